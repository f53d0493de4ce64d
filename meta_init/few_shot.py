"""Few-shot adaptation, from a trained start and a few pairs of a task to a network that fuses."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..data import PairBatch
from ..data.batch_stream import cut_crops
from ..data.splits import spread
from ..data.stage_config import Sources
from ..genotypes import TASKS, Genotype, load_genotype
from ..operators import build_network, load_network_folder, save_network_folder
from ..operators.hub_networks import is_hub_name
from ..operators.network_folders import SHIPPED as NETWORKS
from ..operators.network_folders import find_network, find_shipped, folders_with, shipped_names
from ..runtime.config import config_to_yaml, load_config
from ..runtime.device import select_device
from ..runtime.errors import UserError
from ..runtime.memory import keep_freed_memory
from ..runtime.progress import Progress
from ..runtime.run_files import (
    CONFIG_FILE,
    DETECTORS_FOLDER,
    GENOTYPE_FILE,
    PICTURES_FOLDER,
    RATES_FILE,
    WEIGHTS_FILE,
)
from ..runtime.run_folder import open_run
from ..runtime.seeds import derive_seed, seed_everything
from ..runtime.weights import load_into
from .adaptation_curves import draw_adaptation
from .adapted_examples import draw_fused
from .episodes import validation_query
from .meta_init_config import AdaptConfig, MetaInitConfig, TaskSection
from .meta_tasks import Task
from .rates import adaptation_of, adapting_layers, load_rates, plain_adaptation
from .trials import Curve, adapt_and_score, pair_loss

SHIPPED = Path(__file__).parent / "initialisations"

_BATCH = 12  # crops of a step
_RATE = 1e-3  # of all layers of a network that has learnt no rates
_JUDGED = 8  # training pairs, by which a start is chosen

_SCORED = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 300, 500, 800, 1200)


class Adapted(NamedTuple):
    """The result of an adaptation.

    Attributes:
        start: Name of the shipped start, or its folder.
        genotype: The network with its provenance, as in `genotype.yaml`.
        curve: The validation loss by number of steps.
        kept: The number of steps with the least of these losses, whose weights are kept.
        fresh: The validation loss from random weights, by `plain_adaptation`.
        pairs: Number of pairs that the network adapted to.
        seconds: Time of the adaptation in seconds, without reading and checking pairs.
        sources: Names of the two folders of the pairs, if they are not the usual ones of the task.
    """

    start: str
    genotype: Genotype
    curve: Curve
    kept: int
    fresh: Curve
    pairs: int
    seconds: float
    sources: Sources | None


def adapt_to_task(config: AdaptConfig, *, overwrite: bool = False) -> Adapted:
    """Adapt a trained network to a task on a few pairs, and write a run folder with a network that fuses.

    Without `config.init`, it starts from the shipped network or initialisation whose loss on training pairs is the
    least. Layers step at the rates that an initialisation has learnt, those of other networks at 0.001.

    Args:
        config: The start, the task, the pairs and the number of steps; `config.run` is the run folder.
        overwrite: Whether to replace the run in the folder.

    Raises:
        UserError: If there is no such network or task, or the data, the device or the run folder cannot be used.

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
    start = None if config.init is None else find_start(config.init)
    trained = _trained(start)
    section = _section(config, trained)
    data = trained.data.model_copy(update={"stretch": config.data.stretch})
    task = data.open_task(config.task, section, config.seed, config.data.roots)
    training = sorted(task.training)
    seed_everything(config.seed)
    if start is None:
        start = _best_start(task, spread(training, _JUDGED), data.crop, device)
        trained = _trained(start)
    loss = task.loss
    origin = load_genotype(start)
    if origin.network == "refine":
        raise UserError(f"{origin.name} is a refine network; an adaptation starts from a fusion network")
    if (start / DETECTORS_FOLDER).is_dir():
        raise UserError(f"detectors guide the network of {start}; go on from it with `timfuse finetune`")
    name = start.name if start.parent in (SHIPPED, NETWORKS) else str(start)
    sources = None if config.task in TASKS else section.sources
    genotype = replace(origin, name=config.run.resolve().name, task=config.task, sources=sources, colour=section.colour)
    network, fresh_network = (build_network(genotype).to(device) for _ in range(2))
    load_into(network, start)
    layers = adapting_layers(network, trained.adapting_part)
    learnt = (start / RATES_FILE).is_file()
    rates = load_rates(start, layers) if learnt else torch.full((len(layers),), _RATE)
    adaptation = adaptation_of(layers, rates.to(device), trained.inner.optimizer)
    pairs = spread(training, config.data.pairs or len(training))
    support = _Support(task, pairs, data.crop, config.steps, derive_seed(config.seed, "adaptation", task.name), device)
    query = validation_query(task, data.crop, config.seed).to(device)
    scored = [*(count for count in _SCORED if count < config.steps), config.steps]
    with (
        open_run(config.run, config_yaml=config_to_yaml(config), resume=False, overwrite=overwrite),
        Progress(config.steps, f"adapting to {config.task}") as progress,
    ):
        started = time.monotonic()
        curve = adapt_and_score(network, adaptation, loss, support, query, scored, progress, keep_best=True)
        seconds = time.monotonic() - started
        _check_finite(curve)
        kept = min(curve, key=curve.__getitem__)
        fresh = adapt_and_score(fresh_network, plain_adaptation(fresh_network), loss, support, query, scored)
        curves = {name: {config.task: curve}, "random weights, Adam": {config.task: fresh}}
        draw_adaptation(curves, config.run / PICTURES_FOLDER)
        genotype = config.described(
            genotype,
            data={"root": config.data.origin, "training_pairs": len(pairs)},
            start=name,
            steps=config.steps,
            kept_after=kept,
            metrics={"adapted": {config.task: {f"after {count}": value for count, value in curve.items()}}},
            initialisation=origin.provenance,
        )
        initial = load_network_folder(start)[1]
        networks = {"before": initial, f"after {kept} steps": network} if kept else {"the start": initial}
        draw_fused(task, genotype, networks, config.run / PICTURES_FOLDER, device)
        save_network_folder(config.run, genotype, network)
    return Adapted(name, genotype, curve, kept, fresh, len(pairs), seconds, section.sources)


def shipped_initialisations() -> tuple[str, ...]:
    """List the meta-initialisations that come with timfuse, sorted.

    Example:
        >>> shipped_initialisations()
        ('all-tasks',)
    """
    return folders_with(RATES_FILE, SHIPPED)


def find_start(name_or_path: str) -> Path:
    """Find the folder of a meta-initialisation or of another trained network.

    Args:
        name_or_path: A name that `shipped_initialisations` or `operators.network_folders.shipped_names` lists, which
            goes first, or the folder of a run.

    Raises:
        UserError: If there is no such network.
    """
    names = shipped_initialisations()
    if is_hub_name(name_or_path):
        return find_network(name_or_path)
    root = SHIPPED if name_or_path in names else NETWORKS
    folder = find_shipped(name_or_path, root, (*names, *shipped_names()), what="network", run="run")
    for file in (GENOTYPE_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise UserError(f"{folder} holds no trained network: there is no {file}; give the folder of a finished run")
    return folder


def _trained(folder: Path | None) -> MetaInitConfig:
    """Read the config of an initialisation; for other networks return the usual one."""
    initialisation = folder is not None and (folder / RATES_FILE).is_file()
    return load_config(MetaInitConfig, folder / CONFIG_FILE) if folder and initialisation else MetaInitConfig()


@torch.no_grad()
def _best_start(task: Task, pairs: Sequence[int], crop: int, device: torch.device) -> Path:
    """Find the shipped network or initialisation with the least loss on crops of pairs."""
    batch = cut_crops(task.source, pairs, crop, np.random.default_rng(0)).to(device)
    folders = [SHIPPED / name for name in shipped_initialisations()] + [NETWORKS / name for name in shipped_names()]
    losses = {}
    for folder in folders:
        network = load_network_folder(folder)[1].to(device).eval()
        losses[folder] = pair_loss(task.loss, network, batch).item()
    return min(losses, key=losses.__getitem__)


def _section(config: AdaptConfig, trained: MetaInitConfig) -> TaskSection:
    """Join the task of the initialisation with the keys of the config, which go first."""
    known = trained.used_tasks.get(config.task, TaskSection())
    changes = {name: value for name in ("sources", "colour", "loss") if (value := getattr(config, name)) is not None}
    return known.model_copy(update=changes)


@dataclass(frozen=True)
class _Support:
    """The batches of an adaptation, the same each time: new crops of its pairs for every step."""

    task: Task
    pairs: Sequence[int]
    crop: int
    steps: int
    seed: int
    device: torch.device

    def __iter__(self) -> Iterator[PairBatch]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.steps):
            drawn = rng.choice(self.pairs, _BATCH, replace=len(self.pairs) < _BATCH).tolist()
            yield cut_crops(self.task.source, drawn, self.crop, rng).to(self.device)


def _check_finite(curve: Curve) -> None:
    for count, value in curve.items():
        if not np.isfinite(value):
            raise UserError(f"the validation loss is not finite after {count} steps; give fewer with --steps")
