"""The command line: one function per command."""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .runtime.distribution import leads
from .runtime.errors import UserError

app = typer.Typer(
    name="timfuse",
    help="Find, train and use compact image-fusion networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_debug = False

# What every command that runs a config takes.
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key of the config.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, to the bit.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]


def _version(show: bool) -> None:
    if show:
        typer.echo(f"timfuse {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    operators: Annotated[
        list[Path] | None,
        typer.Option("--operators", metavar="FILE", help="Python file that registers operators of your own; is run."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug
    if operators:
        from .operators import load_operators

        for file in operators:
            load_operators(file)


@app.command()
def search(
    config: Annotated[
        Path,
        typer.Option("--config", "-c", help="YAML file, or the name of a shipped one: search-demo, search-ivif."),
    ],
    settings: Settings = None,
    outer_loss: Annotated[
        str | None,
        typer.Option(
            "--outer-loss",
            metavar="fusion|detection|segmentation",
            help="What scores the architecture: the fusion loss, or a network for a task on labelled pairs, which the "
            "section `downstream` of the config describes. Default: what the config says.",
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", min=1, help="Search so many times, report mean and deviation, and keep the best on validation."
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="What the network may cost: 10ms on this device, 5GFLOPs or 50kparams."),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Search an architecture on image pairs."""
    import json

    from rich.console import Console

    from .runtime.config import load_config
    from .search import SearchConfig, Spending, print_seeds, search_seeds
    from .search import search as run_search

    settings = settings or []
    if seeds is not None:
        settings = [*settings, f"seeds={seeds}"]
    if budget is not None:
        settings = [*settings, f"cost.budget={json.dumps(budget)}"]
    if outer_loss is not None:
        settings = [*settings, "downstream=null" if outer_loss == "fusion" else f"downstream.kind={outer_loss}"]
    loaded = load_config(SearchConfig, config, settings)
    if loaded.seeds > 1:
        report = search_seeds(loaded, resume=resume, overwrite=overwrite)
        # In a pipe or a file the table is as wide as it needs to be.
        print_seeds(report, Console(width=None if sys.stdout.isatty() else 1000))
        typer.echo(f"genotype  {loaded.run / 'genotype.yaml'}, weights and pictures beside it")
        typer.echo(f"searches  {loaded.run / 'seed-*'}")
        genotype = report.genotype
    else:
        genotype = run_search(loaded, resume=resume, overwrite=overwrite)
        for index, cell in enumerate(genotype.cells):
            typer.echo(f"cell {index + 1} ({cell.kind}): {', '.join(cell.operators)}")
        typer.echo(f"genotype  {loaded.run / 'genotype.yaml'}")
        if loaded.downstream is not None:
            typer.echo(f"network   {loaded.run / 'task'}, for {loaded.downstream.kind}")
        typer.echo(f"pictures  {loaded.run / 'pictures'}: network.svg, cell_*.svg, probabilities.svg")
        typer.echo(f"history   {loaded.run / 'history.jsonl'}; curves: tensorboard --logdir {loaded.run}")
    spending = Spending.of(genotype)
    if spending is not None:
        typer.echo(f"budget    {spending}")
        spending.check()


@app.command()
def latency(
    config: Annotated[
        Path,
        typer.Option("--config", "-c", help="YAML file of a search, or the name of a shipped one: search-ivif-fast."),
    ],
    settings: Settings = None,
    networks: Annotated[int, typer.Option("--networks", min=2, help="How many to draw from the search space.")] = 30,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure the operators anew, for example if this machine was busy before.")
    ] = False,
) -> None:
    """Measure the operators of a search on this device, once, and how well they tell the time of networks."""
    from rich.console import Console

    from .runtime.config import load_config
    from .search import SearchConfig, check_prediction, print_prediction

    prediction = check_prediction(load_config(SearchConfig, config, settings or []), networks, fresh=fresh)
    # In a pipe or a file the table is as wide as it needs to be.
    print_prediction(prediction, Console(width=None if sys.stdout.isatty() else 1000))


@app.command()
def train(
    config: Annotated[
        Path,
        typer.Option("--config", "-c", help="YAML file, or the name of a shipped one: train-demo, train-ivif."),
    ],
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a network on image pairs."""
    from rich.console import Console
    from rich.table import Table

    from .runtime.config import load_config
    from .training import TrainConfig
    from .training import train as run_training

    loaded = load_config(TrainConfig, config, settings or [])
    training = run_training(loaded, resume=resume, overwrite=overwrite)
    columns = list(training.scores["best"]["mean"])
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("validation", "method"):
        table.add_column(heading, no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for data_set in training.scores["best"]:
        for method, scores in training.scores.items():
            table.add_row(data_set, method, *(f"{scores[data_set][name]:.3f}" for name in columns))
    Console().print(table)
    typer.echo(
        f"weights   {loaded.run / 'weights.safetensors'} of step {training.best_step}; {loaded.run / 'genotype.yaml'}"
    )
    typer.echo(f"pictures  {loaded.run / 'pictures'}: examples.png, curves.svg")
    typer.echo(f"history   {loaded.run / 'history.jsonl'}; curves: tensorboard --logdir {loaded.run}")


@app.command(name="meta-init")
def meta_init(
    config: Annotated[
        Path,
        typer.Option("--config", "-c", help="YAML file, or the name of a shipped one: meta-init-demo, meta-init."),
    ],
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Train one initialisation from which a network adapts to every fusion task."""
    from .meta_init import MetaInitConfig, meta_initialise
    from .runtime.config import load_config

    loaded = load_config(MetaInitConfig, config, settings or [])
    done = meta_initialise(loaded, resume=resume, overwrite=overwrite)
    _print_curves("validation loss after steps", list(done.curves.items()))
    typer.echo(f"weights   {loaded.run / 'weights.safetensors'} of step {done.best_step}, and rates.yaml")
    typer.echo(f"pictures  {loaded.run / 'pictures'}: adaptation.svg, curves.svg")
    typer.echo(f"history   {loaded.run / 'history.jsonl'}; curves: tensorboard --logdir {loaded.run}")


@app.command()
def adapt(
    initialisation: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a meta-initialisation, or all-tasks, which comes along.")
    ],
    task: Annotated[str, typer.Option("--task", help="What is fused: mri-ct, multi-focus, ..., or a task of the run.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with the pairs; without it, synthetic ones.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, max=2000, help="Optimiser steps.")] = 20,
    pairs: Annotated[int, typer.Option("--pairs", min=0, help="Training pairs to adapt on; 0 for all.")] = 8,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the network; default: runs/adapt-TASK.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="seed, device, sources, colour, loss.NAME."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the network in the folder.")] = False,
) -> None:
    """Adapt an initialisation to a task, on a few pairs and in seconds."""
    import json

    from .meta_init import AdaptConfig, adapt_to_task
    from .runtime.config import load_config

    run = output or Path("runs") / f"adapt-{task}"
    options: dict[str, str | int] = {
        "init": initialisation,
        "task": task,
        "steps": steps,
        "pairs": pairs,
        "run": str(run),
    }
    if data is not None:
        options["data"] = str(data)
    given = [f"{key}={json.dumps(value)}" for key, value in options.items()]
    done = adapt_to_task(load_config(AdaptConfig, None, [*(settings or []), *given]), overwrite=overwrite)
    _print_curves("validation loss after steps", [(task, done.curve), ("random weights, Adam", done.fresh)])
    typer.echo(f"{steps} steps on {done.pairs} pairs in {done.seconds:.1f} s: {run / 'weights.safetensors'}")
    typer.echo(f"pictures  {run / 'pictures'}: adaptation.svg")
    typer.echo(f"fuse      timfuse fuse --network {run} --first ... --second ... -o fused")


def _print_curves(title: str, rows: Sequence[tuple[str, Mapping[int, float]]]) -> None:
    """Print one line for each curve: its values by number of steps."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(title, no_wrap=True)
    for count in rows[0][1]:
        table.add_column(str(count), justify="right", no_wrap=True)
    for name, curve in rows:
        table.add_row(name, *(f"{value:.4f}" for value in curve.values()))
    # In a pipe or a file the table is as wide as it needs to be.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)


@app.command()
def finetune(
    config: Annotated[
        Path,
        typer.Option(
            "--config",
            "-c",
            help="YAML file, or the name of a shipped one: finetune-detection, finetune-segmentation, ...",
        ),
    ],
    settings: Settings = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Adapt a fusion network to detection or segmentation, and train the task's network with it."""
    from .finetune import FinetuneConfig
    from .finetune import finetune as run_finetuning
    from .runtime.config import load_config

    loaded = load_config(FinetuneConfig, config, settings or [])
    done = run_finetuning(loaded, resume=resume, overwrite=overwrite)
    for name, score in done.scores.items():
        typer.echo(f"{name:<18} {score:.4f}" + (f", before {done.fusion_loss_before:.4f}" * (name == "loss")))
    if loaded.guidance.strategy == "lagrangian":
        typer.echo(f"promise            {'kept' if done.promise_kept else 'broken'}: {loaded.guidance.tolerance:.0%}")
    typer.echo(f"weights   {loaded.run / 'weights.safetensors'} and {loaded.run / 'task'}, of step {done.best_step}")
    typer.echo(f"pictures  {loaded.run / 'pictures'}: examples.png, curves.svg")
    typer.echo(f"history   {loaded.run / 'history.jsonl'}; curves: tensorboard --logdir {loaded.run}")


@app.command(name="evaluate-task")
def evaluate_task(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of `timfuse finetune` runs.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Labelled pairs to score on; without it, the validation pairs of the runs."),
    ] = None,
    fused: Annotated[
        list[str] | None,
        typer.Option("--fused", metavar="[NAME=]FOLDER", help="Another method's images of all pairs, training too."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Train and score on the sources and their average too.")
    ] = True,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for scores.csv, table.md and what is trained to compare.")
    ] = Path("runs/evaluate-task"),
) -> None:
    """Score detection or segmentation on fused images, sources and other methods' images, by one harness."""
    from rich.console import Console
    from rich.table import Table

    from .data import named_folders
    from .finetune import evaluate_task as run_evaluation
    from .finetune.task_evaluation import columns_of, shown

    methods = run_evaluation(runs, data, output, fused=named_folders(fused or []), baselines=baselines)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    for heading in columns_of(methods):
        table.add_column(heading, justify="right", no_wrap=True)
    for method in methods:
        table.add_row(method.name, *(shown(method, score) for score in columns_of(methods)))
    # In a pipe or a file the table is as wide as it needs to be.
    Console(width=None if sys.stdout.isatty() else 1000).print(table)
    for file in ("scores.csv", "table.md"):
        typer.echo(str(output / file))


@app.command()
def tune(
    config: Annotated[
        Path,
        typer.Option("--config", "-c", help="YAML file, or the name of a shipped one: tune."),
    ],
    settings: Settings = None,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Finished trials that the study is to have, whoever runs them.")
    ] = 30,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Database that all workers share, such as postgresql://user:password@host/name; default: a file in "
            "the run folder, for workers on one machine.",
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Draw what the study has found so far; run nothing.")] = False,
) -> None:
    """Look for the best networks for their cost: a study of searches and trainings, by any number of workers."""
    from rich.console import Console

    from .runtime.config import load_config
    from .tuning import TuneConfig, print_front
    from .tuning import show as show_study
    from .tuning import tune as run_study

    loaded = load_config(TuneConfig, config, settings or [])
    if not show:
        run_study(loaded, trials, storage)
    front = show_study(loaded, storage)
    # In a pipe or a file the table is as wide as it needs to be.
    print_front(front, Console(width=None if sys.stdout.isatty() else 1000))
    for file in front.files:
        typer.echo(str(file))
    if front.note:
        typer.echo(front.note)


@app.command()
def fuse(
    first: Annotated[str, typer.Option("--first", help="First sources: folder, file or glob pattern.")],
    second: Annotated[str, typer.Option("--second", help="Second sources, with the same names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the fused images; for one pair, a file.")],
    network: Annotated[
        str, typer.Option("--network", "-n", help="ivif, ivif-fast, or the folder of a run or of its weights.")
    ] = "ivif",
    resume: Annotated[bool, typer.Option("--resume", help="Skip the pairs that are fused already.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace fused images and labels.")] = False,
    resize: Annotated[
        str | None,
        typer.Option("--resize", metavar="second", help="Resample second images to the size of their first."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Folder for what the network's task network finds in the fused images."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ... or mps.")] = "auto",
) -> None:
    """Fuse pairs of images, of any size, 8 or 16 bits, grey or in colour."""
    from .deploy import fuse_files, load, load_labeller

    fuser = load(network, device)
    labeller = load_labeller(network, labels, fuser.device) if labels else None
    files = fuse_files(fuser, first, second, output, resume=resume, overwrite=overwrite, resize=resize, labels=labeller)
    speed = f", {files.rate:.3g} images per second" if files.fused else ""
    skipped = f"; {files.skipped} were there already" if files.skipped else ""
    typer.echo(f"{files.fused} fused with {fuser.name} into {output}{speed}{skipped}")
    if labels:
        typer.echo(f"what {network} finds in them is in {labels}")


@app.command()
def evaluate(
    first: Annotated[str, typer.Option("--first", help="First sources: folder, file or glob pattern.")],
    second: Annotated[str, typer.Option("--second", help="Second sources, with the same names.")],
    fused: Annotated[
        list[str],
        typer.Option("--fused", metavar="[NAME=]FOLDER", help="A method's fused images; more folders may follow."),
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=]FOLDER", help="The other methods.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for metrics.csv, summary.csv, table.md and table.tex.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Names joined by commas; default: the eleven of the field.")
    ] = None,
    trivial: Annotated[
        bool, typer.Option("--trivial/--no-trivial", help="Score average, maximum and copies of the sources too.")
    ] = True,
) -> None:
    """Score methods' fused images by the field's metrics: means, ranks, intervals."""
    from rich.console import Console

    from .data import match_pairs
    from .deploy import evaluate as run_evaluation
    from .deploy import find_methods, print_table, write_tables
    from .objectives.metrics import FIELD_METRICS
    from .runtime.files import make_folder
    from .runtime.progress import Progress

    pairs = match_pairs(first, second)
    methods = find_methods([*fused, *(more or [])], pairs)
    if output:
        make_folder(output)
    names = [name.strip() for name in metrics.split(",")] if metrics else FIELD_METRICS
    with Progress(len(pairs), "scoring", unit="pairs") as progress:
        evaluation = run_evaluation(pairs, methods, names, trivial=trivial, progress=progress)
    # In a pipe or a file the table is as wide as it needs to be.
    print_table(evaluation, Console(width=None if sys.stdout.isatty() else 1000))
    for file in write_tables(evaluation, output) if output else []:
        typer.echo(str(file))


@app.command()
def compare(
    first: Annotated[str, typer.Option("--first", help="First sources: folder, file or glob pattern.")],
    second: Annotated[str, typer.Option("--second", help="Second sources, with the same names.")],
    fused: Annotated[
        list[str],
        typer.Option("--fused", metavar="[NAME=]FOLDER", help="A method's fused images; more folders may follow."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .png or .html file, or a folder for sheet.png and page.html.")
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=]FOLDER", help="The other methods.", show_default=False)
    ] = None,
    names: Annotated[str | None, typer.Option("--names", help="The pairs to show, joined by commas.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Without names: so many pairs, spread evenly.")] = 6,
    zoom: Annotated[
        list[str] | None,
        typer.Option("--zoom", metavar="X,Y,WIDTH,HEIGHT", help="Enlarge this region; default: where methods differ."),
    ] = None,
    pictures: Annotated[
        list[Path] | None, typer.Option("--picture", help="An image, such as curves, to show below on the page.")
    ] = None,
) -> None:
    """Show sources and fused images side by side: a sheet, and a page with a slider."""
    from .data import match_pairs
    from .deploy import choose_pairs, find_methods, write_comparison
    from .deploy.regions import parse_region

    pairs = choose_pairs(match_pairs(first, second), names.split(",") if names else None, limit=limit)
    methods = find_methods([*fused, *(more or [])], pairs)
    regions = [parse_region(text) for text in zoom or []]
    for file in write_comparison(pairs, methods, output, zoom=regions, pictures=pictures or []):
        typer.echo(str(file))


@app.command()
def scenes(
    output: Annotated[Path, typer.Option("--output", "-o", help="Gets folders, such as ir/ and vis/.")],
    task: Annotated[
        str,
        typer.Option("--task", "-t", help="Also mri-ct, mri-pet, mri-spect, multi-exposure, multi-focus."),
    ] = "infrared-visible",
    count: Annotated[int, typer.Option("--count", min=1, help="How many pairs.")] = 6,
    size: Annotated[str, typer.Option("--size", metavar="WIDTHxHEIGHT", help="In pixels.")] = "640x480",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Chooses the scenes.")] = 0,
) -> None:
    """Render synthetic pairs of a task, infrared-visible ones with boxes and masks, to try things without data."""
    from .data import write_scenes

    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 32):
        raise UserError(f"--size must be WIDTHxHEIGHT from 32x32 on, like 640x480, not {size!r}")
    first, second = write_scenes(output, count, task=task, height=int(height), width=int(width), seed=seed)
    labels = f", with labels in {output / 'boxes'} and {output / 'label'}" if task == "infrared-visible" else ""
    typer.echo(f"{count} pairs in {first} and {second}{labels}")


@app.command()
def visualize(
    genotype: Annotated[str, typer.Argument(help="Genotype file, run folder or name in the zoo.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the pictures; default: beside the genotype."),
    ] = None,
) -> None:
    """Draw a network and its cells; for a run also how operator probabilities or losses and scores went."""
    from .drawing import draw
    from .finetune.finetune_curves import draw_finetuning
    from .genotypes import load_genotype
    from .meta_init.adaptation_curves import draw_training
    from .operators import build_network, parameter_sizes
    from .runtime.history import HISTORY_FILE, read_history
    from .search.probability_curves import draw_probabilities
    from .training.train_curves import draw_curves

    path = Path(genotype)
    history = path / HISTORY_FILE
    folder = output or (path / "pictures" if path.is_dir() else path.with_name(f"{path.stem}-pictures"))
    files: list[Path] = []
    reference: float | None = None
    if not history.is_file() or (path / "genotype.yaml").is_file():
        loaded = load_genotype(genotype)
        before = loaded.provenance.get("fusion_loss_before")
        reference = before if isinstance(before, float) else None
        drawing = draw(loaded, folder, parameter_sizes(build_network(loaded)))
        files += drawing.files
        if drawing.note:
            typer.echo(drawing.note)
    else:
        typer.echo(f"{path} has no genotype yet: drawing its history so far")
    if history.is_file():
        rows = read_history(history)
        known = rows[0] if rows else {}
        if "query" in known:  # of a meta-initialisation, by task
            files += draw_training(rows, folder)
        elif "loss" in known:  # of a training; a search has an inner and an outer one
            files += draw_curves(rows, folder)
        elif "task_loss" in known or "detector_loss" in known:  # of a finetuning for a task
            files += draw_finetuning(rows, folder, reference)
        else:
            files += draw_probabilities(rows, folder)
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


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Name of a shipped network or a run folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file, like model.onnx.")],
) -> None:
    """Write a trained network as ONNX, checked against PyTorch."""
    import torch

    from .deploy import export_onnx
    from .runtime.device import device_name

    done = export_onnx(run, output)
    typer.echo(f"{output}: {done.size:,} bytes, opset {done.opset}, at most {done.difference:.0e} from PyTorch")
    typer.echo(
        f"640x480 pair: {1e3 * done.onnxruntime_seconds:.1f} ms in onnxruntime, {1e3 * done.pytorch_seconds:.1f} ms in "
        f"PyTorch ({device_name(torch.device('cpu'))})"
    )


def _thread_died(died: threading.ExceptHookArgs) -> None:
    if not isinstance(died.exc_value, OSError):
        threading.__excepthook__(died)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2."""
    # TensorBoard writes in a thread of its own, whose full disk the next line of the history reports as well.
    threading.excepthook = _thread_died
    try:
        # Of the processes that torchrun starts, the first alone reports.
        with contextlib.redirect_stdout(sys.stdout if leads() else io.StringIO()):
            app()
    except UserError as error:
        if _debug:
            raise
        # The others meet only with errors before they work together, the same as all on one machine.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)
