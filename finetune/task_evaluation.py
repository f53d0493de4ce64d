"""Scores of a downstream task on fused images: runs, sources, their average and other methods' images alike."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..data import RunPairs
from ..data.splits import spread
from ..downstream import load_guiding_detectors, load_task_network
from ..genotypes import load_genotype
from ..objectives import FusionLoss
from ..operators import load_network_folder
from ..runtime.config import load_config
from ..runtime.csv_text import csv_text
from ..runtime.device import select_device
from ..runtime.errors import UserError
from ..runtime.files import make_folder, write_atomically
from ..runtime.progress import Progress
from ..runtime.run_files import CONFIG_FILE, DETECTORS_FOLDER
from .finetune_config import FinetuneConfig
from .finetune_recipe import finetune
from .finetune_setup import loss_of, open_run_pairs
from .strategies import SOURCES
from .task_validation import Fuse, validate

BASELINES = {"infrared": "first", "visible": "second", "average": "average"}
"""Images that need no fusion network, by their names in tables."""
_SEED = re.compile("[-_]?(seed)?[-_]?[0-9]+")


class MethodScores(NamedTuple):
    """The scores of one method.

    Attributes:
        scores: For each run, the mean scores and those of each class, such as "AP50" and "AP50 person".

    Example:
        >>> MethodScores("joint", (0, 1), ({"AP50": 0.5}, {"AP50": 0.7})).mean("AP50")
        0.6
    """

    name: str
    seeds: tuple[int, ...]
    scores: tuple[Mapping[str, float], ...]

    def mean(self, score: str) -> float:
        """Return the mean over the runs."""
        return math.fsum(row[score] for row in self.scores) / len(self.scores)

    def deviation(self, score: str) -> float | None:
        """Return the standard deviation over the runs, of a sample; None for a single run."""
        values = [row[score] for row in self.scores]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def evaluate_task(
    runs: Sequence[Path],
    data: Path | None,
    output: Path,
    *,
    fused: Mapping[str, Path] | None = None,
    baselines: bool = True,
) -> list[MethodScores]:
    """Score runs on labelled pairs, beside the sources, their average and the fused images of other methods.

    A run is scored with its own task network. For images that come without one, the same task network is trained in
    the same way, with as many steps, on the run's training pairs, once for each seed of the runs. These trainings are
    runs in `output`; a stopped one is resumed.

    Args:
        runs: Folders of finetunings for one task; those that differ in the seed alone are one method.
        data: Folder of the labelled pairs to score on: those of its val.txt, or all where it has none; None for the
            validation pairs of the runs.
        output: Folder for the trainings and the tables scores.csv and table.md.
        fused: By name of the method, a folder with the fused image of every pair, also of the training pairs.
        baselines: Whether to score the sources and their average.

    Returns:
        The methods, those without a fusion network first; the fusion loss of the first run is used for all.

    Raises:
        UserError: If a folder cannot be used, the runs are of several tasks, or the classes of data and run differ.

    Example:
        >>> runs = [Path("runs/joint"), Path("runs/lagrangian")]
        >>> for method in evaluate_task(runs, None, Path("runs/comparison")):  # doctest: +SKIP
        ...     print(method.name, method.mean("AP50"))
    """
    configs = {run: _config_of(run) for run in runs}
    first, *others = configs.values()
    harness = [(each.downstream, each.data, each.train) for each in (first, *others)]
    if any(other != harness[0] for other in harness):
        raise UserError(
            "the runs differ in downstream, data or train, so that they cannot stand in one table; give those of one"
            " harness"
        )
    clashing = sorted(set(BASELINES) & set(fused or {})) if baselines else []
    if clashing:
        raise UserError(f"{clashing[0]} is what the table calls a source; give the fused images another NAME=FOLDER")
    data = data and data.expanduser()
    make_folder(output)
    loss = loss_of(first, load_genotype(runs[0]).task)
    ours: list[MethodScores] = []  # first, so that a run that cannot be scored raises before anything is trained
    for group in _grouped(configs):
        rows = [_score(run, configs[run], data, loss) for run in group]
        ours.append(MethodScores(_name(group), tuple(configs[run].seed for run in group), tuple(rows)))
    methods: list[MethodScores] = []
    seeds = sorted({config.seed for config in configs.values()})
    # Whole paths, since a folder may be called "fused" or "average".
    folders = {name: str(folder.expanduser().resolve()) for name, folder in (fused or {}).items()}
    wanted = {**(BASELINES if baselines else {}), **folders}
    for name, images in wanted.items():
        rows = []
        for seed in seeds:
            run = output / f"{name}-seed{seed}"
            config = _plain(first, run, seed, images)
            started = (run / CONFIG_FILE).is_file()
            if started and _config_of(run).model_copy(update={"run": run}) != config:
                raise UserError(f"{run} was trained beside runs of another config; name another folder with --output")
            finetune(config, resume=started)
            rows.append(_score(run, config, data, loss))
        methods.append(MethodScores(name, tuple(seeds), tuple(rows)))
    methods += ours
    write_atomically(output / "scores.csv", _csv(methods))
    write_atomically(output / "table.md", markdown(methods))
    return methods


def markdown(methods: Sequence[MethodScores]) -> str:
    """Write a table in Markdown of the scores of at least one method: mean ± standard deviation over the seeds."""
    columns = columns_of(methods)
    lines = [["method", "seeds", *columns], [":--", *["--:"] * (len(columns) + 1)]]
    lines += [[method.name, str(len(method.seeds)), *(shown(method, name) for name in columns)] for method in methods]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def columns_of(methods: Sequence[MethodScores]) -> list[str]:
    """List the scores of a table, the fusion loss last."""
    names = [name for name in methods[0].scores[0] if name != "loss"]
    return [*names, "loss"]


def shown(method: MethodScores, score: str) -> str:
    """Write the mean of a score with its standard deviation, if there is one."""
    mean, deviation = method.mean(score), method.deviation(score)
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def _csv(methods: Sequence[MethodScores]) -> str:
    columns = columns_of(methods)
    return csv_text(
        ["method", "seed", *columns],
        (
            [method.name, seed, *(f"{row[name]:.6g}" for name in columns)]
            for method in methods
            for seed, row in zip(method.seeds, method.scores, strict=True)
        ),
    )


def _config_of(run: Path) -> FinetuneConfig:
    if not (run / CONFIG_FILE).is_file():
        raise UserError(f"{run} holds no run; give the folder of a `timfuse finetune` run")
    return load_config(FinetuneConfig, run / CONFIG_FILE)


def _plain(config: FinetuneConfig, run: Path, seed: int, images: str) -> FinetuneConfig:
    """Make the config for images that need no fusion network, otherwise the same as that of a run."""
    guidance = type(config.guidance)(strategy="frozen", images=images)
    return config.model_copy(update={"run": run, "seed": seed, "guidance": guidance})


def _grouped(configs: Mapping[Path, FinetuneConfig]) -> list[list[Path]]:
    """Group runs that differ in nothing but the seed, in the order in which they were given."""
    groups: dict[str, list[Path]] = {}
    for run, config in configs.items():
        same = config.model_copy(update={"run": Path(), "seed": 0}).model_dump_json()
        groups.setdefault(same, []).append(run)
    return list(groups.values())


def _name(group: Sequence[Path]) -> str:
    """Name a method by its run folder, without the seed where there are several."""
    name = group[0].resolve().name
    return name if len(group) == 1 else re.sub(f"{_SEED.pattern}$", "", name) or name


def _score(run: Path, config: FinetuneConfig, data: Path | None, loss: FusionLoss) -> dict[str, float]:
    device = select_device(config.device)
    task = load_task_network(run).to(device)
    pairs = _pairs(config, load_genotype(run).task, data)
    if pairs.source.classes != task.classes:
        raise UserError(
            f"{data or config.data.root} has the classes {', '.join(pairs.source.classes)}, and the task network of"
            f" {run} knows {', '.join(task.classes)}; give data with the same classes"
        )
    with Progress(1, f"scoring {run.name}", unit="runs") as progress:
        scores = validate(_fuse(run, config, device), task, pairs, loss, device).scores
        progress.advance()
    by_class = {part.removeprefix("class "): row for part, row in scores.items() if part != "mean"}
    return scores["mean"] | {f"{score} {name}": value for name, row in by_class.items() for score, value in row.items()}


def _pairs(config: FinetuneConfig, task: str, data: Path | None) -> RunPairs:
    """Open the pairs to score on: the validation pairs of the run, or those of another folder."""
    if data is None:
        return open_run_pairs(config, task)
    pairs = open_run_pairs(config, task, [data])
    own = [root.resolve() for root in config.data.roots if root is not None]
    if data.resolve() in own or (data / "val.txt").exists():
        return pairs
    (pair_set,) = pairs.sets
    everything, count = tuple(range(len(pair_set.source))), config.data.validation_pairs
    split = pair_set.split._replace(validation=everything if count is None else spread(everything, count))
    return replace(pairs, sets=(replace(pair_set, split=split),))


def _fuse(run: Path, config: FinetuneConfig, device: torch.device) -> Fuse:
    """Make the function that turns a pair into the image for a run's task network."""
    images = config.guidance.images
    if images != "fused":
        return SOURCES.get(images, SOURCES["first"])
    _, network = load_network_folder(run)
    network.to(device).eval()
    if not (run / DETECTORS_FOLDER).is_dir():
        return lambda first, second: network(first, second)
    detectors = load_guiding_detectors(run).to(device)
    return lambda first, second: network(first, second, attention=detectors.attention(first, second))
