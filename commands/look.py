"""The commands that show networks, genotypes, runs, operator latencies and configs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, echo

from ..runtime.run_files import CONFIG_FILE, GENOTYPE_FILE, HISTORY_FILE, PICTURES_FOLDER
from ..runtime.terminal import print_table
from .flags import CONFIGS, Config, Settings, read_config

_SCORES = ("VIF", "Qabf", "MEF-SSIM")  # what the rulers of all tasks have in common


def visualize(
    genotype: Annotated[str, Argument(help="Genotype file, run folder or name in the zoo.")],
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="DIR", help="For the pictures; default: beside the genotype.")
    ] = None,
) -> None:
    """Draw a network and its cells, and the curves of a run."""
    from ..drawing import draw
    from ..genotypes import load_genotype
    from ..operators import build_network, parameter_sizes

    path = Path(genotype)
    history = (path / HISTORY_FILE).is_file()
    folder = output or (path / PICTURES_FOLDER if path.is_dir() else path.with_name(f"{path.stem}-{PICTURES_FOLDER}"))
    files: list[Path] = []
    provenance: Mapping[str, Any] = {}
    if history and not (path / GENOTYPE_FILE).is_file():
        echo(f"{path} has no genotype yet: drawing its history so far")
    else:
        loaded = load_genotype(genotype)
        provenance = loaded.provenance
        files += draw(loaded, folder, parameter_sizes(build_network(loaded)))
    if history:
        files += _draw_history(path, folder, provenance)
    for file in files:
        echo(str(file))


def _draw_history(run: Path, folder: Path, provenance: Mapping[str, Any]) -> list[Path]:
    """Draw the curves of a run of any stage, with values from the provenance of its genotype."""
    from ..finetune.finetune_curves import draw_finetuning
    from ..meta_init.adaptation_curves import draw_training
    from ..runtime.history import drawn_history
    from ..runtime.yaml_text import read_mapping
    from ..search.probability_curves import draw_probabilities
    from ..training.train_curves import draw_curves

    content = read_mapping(run / CONFIG_FILE)
    with drawn_history(run) as history:
        match content.get("stage"):
            case "search":
                return draw_probabilities(history, folder)
            case "train":
                return draw_curves(history, folder, provenance.get("metrics"))
            case "meta-init":
                return draw_training(history, folder)
            case "finetune":
                others = provenance.get("fusion_losses_without_network", {})
                trivial = min(others.values(), default=None)
                return draw_finetuning(history, folder, provenance.get("fusion_loss_before"), trivial)
    return []


def networks(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[DIR]", help="Runs, folders of runs, hub:user/name; default: all shipped."),
    ] = None,
) -> None:
    """List trained networks with size, time here and scores.

    The time is the median for a grey 640x480 pair. The scores are means over the validation pairs that each network was
    trained with, so that they compare networks of the same pairs only.
    """
    from ..deploy import list_networks
    from ..runtime.device import device_name, select_device

    found, failed = list_networks(names or [])
    rows = []
    for network in found:
        sizes = f"{network.parameters:,}", f"{network.size / 1e3:,.0f}"
        time = "-" if network.milliseconds is None else f"{network.milliseconds:.1f}"
        scores = [f"{network.scores[name]:.3f}" if name in network.scores else "-" for name in _SCORES]
        rows.append([network.name, network.task, *sizes, time, *scores])
    if found:
        print_table(["name", "task"], ["parameters", "kB", "ms", *_SCORES], rows)
        device = device_name(select_device("auto"))
        echo(f"ms for a grey 640x480 pair on {device}; scores on each one's own validation pairs")
    for line in failed:
        echo(f"error: {line}", err=True)
    if failed:
        raise Exit(1)


def genotypes() -> None:
    """List the published networks with their size and origin."""
    from ..genotypes import load_genotype, zoo_names
    from ..operators import build_network, count_flops, count_parameters

    rows = []
    for name in zoo_names():
        genotype = load_genotype(name)
        network = build_network(genotype)
        flops = count_flops(network, 480, 640, genotype.inputs)
        source = str(genotype.provenance.get("source", ""))
        sizes = f"{count_parameters(network):,}", f"{flops / 1e9:.1f}"
        rows.append([name, genotype.task, genotype.network, source, *sizes])
    print_table(["name", "task", "network", "source"], ["parameters", "GFLOPs"], rows)
    echo("GFLOPs for a 640x480 pair, two operations for a multiply-add")


def latency(
    config: Config = None,
    settings: Settings = None,
    networks: Annotated[int, Option(min=2, max=10_000, help="Number of networks to draw from the search space.")] = 30,
    fresh: Annotated[bool, Option("--fresh", help="Measure anew, if this machine was busy before.")] = False,
) -> None:
    """Measure operators on this device, and predict networks from them.

    The operators of the search space of a config are measured once. The table compares predicted and measured time.
    """
    from ..cost import DeploymentTarget, check_latency_prediction, print_latency_prediction
    from ..runtime.device import select_device

    loaded = read_config("search", config, settings)
    target = DeploymentTarget(loaded.cost.height, loaded.cost.width, select_device(loaded.device))
    space, seed = loaded.space.search_space, loaded.seed
    print_latency_prediction(check_latency_prediction(space, target, networks=networks, seed=seed, fresh=fresh))


def config(
    command: Annotated[str, Argument(metavar="COMMAND", help=f"One of {', '.join(CONFIGS)}.")],
    file: Config = None,
    settings: Settings = None,
) -> None:
    """Print the config of a command: each key, its meaning and values.

    The text is a config file itself, with which the command behaves as without.
    """
    from ..genotypes.choices import check_choice
    from ..runtime.config_text import commented_yaml

    check_choice("COMMAND", command, CONFIGS)
    echo(commented_yaml(read_config(command, file, settings)), nl=False)
