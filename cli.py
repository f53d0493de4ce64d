"""The command line: one function per command."""

import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .runtime.errors import UserError

app = typer.Typer(
    name="timfuse",
    help="Find, draw and import compact image-fusion networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_debug = False


def _version(show: bool) -> None:
    if show:
        typer.echo(f"timfuse {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


@app.command()
def search(
    config: Annotated[
        Path,
        typer.Option("--config", "-c", help="YAML file, or the name of a shipped one: search-demo, search-ivif."),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key of the config."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, to the bit.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Search an architecture on image pairs."""
    from .runtime.config import load_config
    from .search import SearchConfig
    from .search import search as run_search

    loaded = load_config(SearchConfig, config, settings or [])
    genotype = run_search(loaded, resume=resume, overwrite=overwrite)
    for index, cell in enumerate(genotype.cells):
        typer.echo(f"cell {index + 1} ({cell.kind}): {', '.join(cell.operators)}")
    typer.echo(f"genotype  {loaded.run / 'genotype.yaml'}")
    typer.echo(f"pictures  {loaded.run / 'pictures'}: network.svg, cell_*.svg, probabilities.svg")
    typer.echo(f"history   {loaded.run / 'history.jsonl'}; curves: tensorboard --logdir {loaded.run}")


@app.command()
def visualize(
    genotype: Annotated[str, typer.Argument(help="Genotype file, run folder or name in the zoo.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the pictures; default: beside the genotype."),
    ] = None,
) -> None:
    """Draw a network and its cells; for a run also how the operator probabilities went."""
    from .genotypes import draw, load_genotype
    from .operators import build_network, parameter_sizes
    from .runtime.history import HISTORY_FILE, read_history
    from .search.pictures import draw_probabilities

    path = Path(genotype)
    history = path / HISTORY_FILE
    folder = output or (path / "pictures" if path.is_dir() else path.with_name(f"{path.stem}-pictures"))
    files: list[Path] = []
    if not history.is_file() or (path / "genotype.yaml").is_file():
        loaded = load_genotype(genotype)
        drawing = draw(loaded, folder, parameter_sizes(build_network(loaded)))
        files += drawing.files
        if drawing.note:
            typer.echo(drawing.note)
    else:
        typer.echo(f"{path} has no genotype yet: drawing the probabilities of the search so far")
    if history.is_file():
        files += draw_probabilities(read_history(history), folder)
    for file in files:
        typer.echo(str(file))


@app.command()
def genotypes() -> None:
    """List the zoo: parameters, operations at 640x480 and where each comes from."""
    from rich.console import Console
    from rich.table import Table

    from .genotypes import load_genotype, zoo_names
    from .operators import build_network, count_flops, count_parameters

    caption = "GFLOPs for a 640x480 pair, two operations for a multiply-add"
    table = Table(box=None, caption=caption, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("name", "task", "network"):
        table.add_column(heading, no_wrap=True)
    for heading in ("parameters", "GFLOPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("source")
    for name in zoo_names():
        genotype = load_genotype(name)
        network = build_network(genotype)
        flops = count_flops(network, 480, 640, inputs=3 if genotype.network == "refine" else 2)
        source = str(genotype.provenance.get("source", ""))
        table.add_row(
            name,
            genotype.task,
            genotype.network,
            f"{count_parameters(network):,}",
            f"{flops / 1e9:.1f}",
            source,
        )
    Console().print(table)


@app.command(name="import")
def import_weights(
    state_dict: Annotated[Path, typer.Argument(help="The authors' weights, a state dict saved by torch.")],
    genotype: Annotated[str, typer.Option("--genotype", "-g", help="Genotype file or name in the zoo.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for weights.safetensors and genotype.yaml.")],
) -> None:
    """Convert published TIM weights to safetensors and a genotype."""
    from .genotypes import load_genotype, save_genotype
    from .operators import build_network, count_parameters
    from .operators.released import convert_released, read_released
    from .runtime.weights import save_weights

    loaded = load_genotype(genotype)
    network = build_network(loaded)
    released = read_released(state_dict)
    try:
        network.load_state_dict(convert_released(network, released))
    except UserError as error:
        raise UserError(f"{state_dict}: {error}") from None
    save_weights(output / "weights.safetensors", network.state_dict(), {"genotype": loaded.name})
    save_genotype(loaded, output / "genotype.yaml")
    typer.echo(f"{count_parameters(network):,} parameters in {output / 'weights.safetensors'}")


def _thread_died(died: threading.ExceptHookArgs) -> None:
    if not isinstance(died.exc_value, OSError):
        threading.__excepthook__(died)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    # TensorBoard writes in a thread of its own, whose full disk the next line of the history reports as well.
    threading.excepthook = _thread_died
    try:
        app()
    except UserError as error:
        if _debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
