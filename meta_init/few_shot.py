"""Few-shot adaptation, from an initialisation and a few pairs of a task to a network that fuses."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import PairBatch
from ..data.batch_stream import cut_crops
from ..data.splits import spread
from ..data.stage_config import Sources
from ..genotypes import TASKS, Genotype, load_genotype
from ..operators import build_network, load_network_folder, save_network_folder
from ..operators.network_folders import find_shipped, folders_with
from ..runtime.config import config_to_yaml, load_config
from ..runtime.device import select_device
from ..runtime.errors import UserError
from ..runtime.memory import keep_freed_memory
from ..runtime.progress import Progress
from ..runtime.run_files import CONFIG_FILE, PICTURES_FOLDER, RATES_FILE
from ..runtime.run_folder import open_run
from ..runtime.seeds import derive_seed, seed_everything
from ..runtime.weights import load_into
from .adaptation_curves import draw_adaptation
from .adapted_examples import draw_fused
from .episodes import Episode, validation_query
from .meta_init_config import AdaptConfig, MetaInitConfig, TaskSection
from .meta_tasks import Task
from .rates import adaptation_of, adapting_layers, load_rates, plain_adaptation
from .trials import Curve, adapt_and_score

SHIPPED = Path(__file__).parent / "initialisations"

_SCORED = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500, 800, 1200)


class Adapted(NamedTuple):
    """The result of an adaptation.

    Attributes:
        genotype: The network with its provenance, as in `genotype.yaml`.
        curve: The validation loss by number of steps.
        kept: The number of steps with the least of these losses, whose weights are kept.
        fresh: The validation loss from random weights, by `plain_adaptation`.
        pairs: Number of pairs that the network adapted to.
        seconds: Time of the adaptation in seconds, without reading and checking pairs.
        sources: Names of the two folders of the pairs, if they are not the usual ones of the task.
    """

    genotype: Genotype
    curve: Curve
    kept: int
    fresh: Curve
    pairs: int
    seconds: float
    sources: Sources | None


def adapt_to_task(config: AdaptConfig, *, overwrite: bool = False) -> Adapted:
    """Adapt an initialisation to a task on a few pairs, and write a run folder with a network that fuses.

    Args:
        config: The initialisation, the task, the pairs and the number of steps; `config.run` is the run folder.
        overwrite: Whether to replace the run in the folder.

    Raises:
        UserError: If there is no such initialisation or task, or the data, the device or the run folder cannot be
            used.

    Example:
        One step on a synthetic pair, for the sake of brevity:

        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as run:
        ...     config = AdaptConfig(run=Path(run), init="all-tasks", task="mri-ct", data={"pairs": 1}, steps=1)
        ...     adapted = adapt_to_task(config)
        >>> list(adapted.curve), adapted.pairs
        ([0, 1], 1)
    """
    keep_freed_memory()
    device = select_device(config.device)
    folder = find_initialisation(config.init)
    trained = _trained(folder)
    section = _section(config, trained)
    data = trained.data.model_copy(update={"stretch": config.data.stretch})
    task = data.open_task(config.task, section, config.seed, config.data.roots)
    loss = task.loss
    seed_everything(config.seed)
    origin = load_genotype(folder)
    sources = None if config.task in TASKS else section.sources
    genotype = replace(origin, name=config.run.resolve().name, task=config.task, sources=sources, colour=section.colour)
    network, fresh_network = (build_network(genotype).to(device) for _ in range(2))
    load_into(network, folder)
    layers = adapting_layers(network, trained.adapting_part)
    adaptation = adaptation_of(layers, load_rates(folder, layers).to(device), trained.inner.optimizer)
    training = sorted(task.training)
    pairs = spread(training, config.data.pairs or len(training))
    episode = _episode(config, trained, task, pairs).to(device)
    scored = [*(count for count in _SCORED if count < config.steps), config.steps]
    with (
        open_run(config.run, config_yaml=config_to_yaml(config), resume=False, overwrite=overwrite),
        Progress(config.steps, f"adapting to {config.task}") as progress,
    ):
        start = time.monotonic()
        curve = adapt_and_score(network, adaptation, loss, episode, scored, progress, keep_best=True)
        seconds = time.monotonic() - start
        _check_finite(curve)
        kept = min(curve, key=curve.__getitem__)
        fresh = adapt_and_score(fresh_network, plain_adaptation(fresh_network), loss, episode, scored)
        curves = {"meta-initialisation": {config.task: curve}, "random weights, Adam": {config.task: fresh}}
        draw_adaptation(curves, config.run / PICTURES_FOLDER)
        genotype = config.described(
            genotype,
            data={"root": config.data.origin, "training_pairs": len(pairs)},
            steps=config.steps,
            kept_after=kept,
            metrics={"adapted": {config.task: {f"after {count}": value for count, value in curve.items()}}},
            initialisation=origin.provenance,
        )
        initial = load_network_folder(folder)[1]
        networks = {"before": initial, f"after {kept} steps": network} if kept else {"the start": initial}
        draw_fused(task, genotype, networks, config.run / PICTURES_FOLDER, device)
        save_network_folder(config.run, genotype, network)
    return Adapted(genotype, curve, kept, fresh, len(pairs), seconds, section.sources)


def shipped_initialisations() -> tuple[str, ...]:
    """List the meta-initialisations that come with timfuse, sorted.

    Example:
        >>> shipped_initialisations()
        ('all-tasks',)
    """
    return folders_with(RATES_FILE, SHIPPED)


def find_initialisation(name_or_path: str) -> Path:
    """Find the folder of a meta-initialisation.

    Args:
        name_or_path: A name that `shipped_initialisations` lists, which goes first, or the folder of a run.

    Raises:
        UserError: If there is no such initialisation.
    """
    names = shipped_initialisations()
    return find_shipped(name_or_path, SHIPPED, names, what="meta-initialisation", run="`timfuse meta-init` run")


def _trained(folder: Path) -> MetaInitConfig:
    """Read the config of an initialisation."""
    if not (folder / CONFIG_FILE).is_file() or not (folder / RATES_FILE).is_file():
        raise UserError(f"{folder} holds no meta-initialisation; give the folder of a `timfuse meta-init` run")
    return load_config(MetaInitConfig, folder / CONFIG_FILE)


def _section(config: AdaptConfig, trained: MetaInitConfig) -> TaskSection:
    """Join the task of the initialisation with the keys of the config, which go first."""
    known = trained.used_tasks.get(config.task, TaskSection())
    changes = {name: value for name in ("sources", "colour", "loss") if (value := getattr(config, name)) is not None}
    return known.model_copy(update=changes)


def _episode(config: AdaptConfig, trained: MetaInitConfig, task: Task, pairs: Sequence[int]) -> Episode:
    """Cut a batch for each step, and the query batch of the validation pairs."""
    data = trained.data
    rng = np.random.default_rng(derive_seed(config.seed, "adaptation", task.name))

    def batch() -> PairBatch:
        drawn = rng.choice(pairs, data.support, replace=len(pairs) < data.support).tolist()
        return cut_crops(task.source, drawn, data.crop, rng)

    support = tuple(batch() for _ in range(config.steps))
    return Episode(support, validation_query(task, data.crop, config.seed))


def _check_finite(curve: Curve) -> None:
    for count, value in curve.items():
        if not np.isfinite(value):
            raise UserError(f"the validation loss is not finite after {count} steps; give fewer with --steps")
