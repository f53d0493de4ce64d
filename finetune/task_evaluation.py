"""Scores of a downstream task on fused images: runs, sources, their average and other methods' images alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..data import PairBatch, RunPairs, write_pixels
from ..data.batch_stream import whole_pair
from ..data.colour import chroma_source, coloured_pixels
from ..data.corruptions import CORRUPTIONS, corrupt_source
from ..data.pairs import read_names
from ..data.splits import spread
from ..downstream import TaskNetwork, load_guiding_detectors, load_task_network
from ..downstream.scoring import count_confusions, match_detections
from ..genotypes import load_genotype
from ..genotypes.choices import check_choice
from ..objectives import FusionLoss
from ..operators import load_network_folder
from ..operators.network_folders import find_network
from ..runtime.config import load_config
from ..runtime.device import select_device
from ..runtime.errors import UserError
from ..runtime.files import make_folder, write_atomically
from ..runtime.progress import Progress
from ..runtime.run_files import CONFIG_FILE, DETECTORS_FOLDER
from ..runtime.seeds import derive_seed
from .finetune_config import FinetuneConfig
from .finetune_pairs import with_fused_images
from .finetune_recipe import finetune
from .finetune_setup import loss_of, open_run_pairs
from .task_images import SOURCES, shown
from .task_table import (
    OWN,
    Difference,
    MethodScores,
    Record,
    differences_csv,
    differences_markdown,
    find_differences,
    markdown,
    method_name,
    part_scores,
    scores_csv,
)
from .task_validation import PRIMARY, Fuse, Validation, validate

BASELINES = {
    "infrared": "first",
    "visible": "second",
    "average": "average",
    "maximum": "maximum",
    "laplacian": "laplacian",
    "both": "both",
    "unguided": "fused",
}
"""Rows beside the runs: what needs no fusion network, both sources at once, and the network before it is guided."""
USUAL = ("infrared", "visible", "average", "both", "unguided")
"""The baselines that stand in a table unless others are asked for."""


class TaskEvaluation(NamedTuple):
    """The result of an evaluation.

    Attributes:
        methods: The methods, those without a guided network first.
        score: The score by which they are compared, "AP50" or "mIoU".
        differences: How much better each run is than every method above it.
        corrupted: The score of each method at each severity of a corruption, by "NAME SEVERITY".
        files: The tables as CSV and in Markdown, which hold all of this and the raw rows.
    """

    methods: list[MethodScores]
    score: str
    differences: list[Difference]
    corrupted: list[MethodScores]
    files: list[Path]


@dataclass(frozen=True)
class _Method:
    """A line of the table.

    Attributes:
        images: As in `GuidanceSection.images`.
        networks: Folder of the fusion network of each run; None without one.
        judges: Folder of the task network of each run, where there is one already.
    """

    name: str
    images: str
    seeds: tuple[int, ...]
    networks: tuple[Path | None, ...]
    judges: tuple[Path, ...] = ()


def evaluate_task(
    runs: Sequence[Path],
    data: Path | None,
    output: Path,
    *,
    fused: Mapping[str, Path] | None = None,
    baselines: Sequence[str] = USUAL,
    fresh: bool = True,
    steps: int | None = None,
    learning_rates: Sequence[float] = (),
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (1, 2, 3),
) -> TaskEvaluation:
    """Score runs on labelled pairs, beside the sources, what needs no guidance and the fused images of other methods.

    For every method, a task network is trained on its images, in the same way as those of the runs and on the same
    training pairs, once for each seed of the runs; the validation pairs choose its best weights. A run's own task
    network, which has learned with the fusion network, is scored too. These trainings are runs in `output`; a stopped
    one is resumed. A frozen task network judges all images as it is.

    Scores are of the pairs that `test.txt` in the folder of the data names. Each `test-NAME.txt` names a part of them
    that is scored apart, too.

    Args:
        runs: Folders of finetunings for one task; those that differ in the seed alone are one method.
        data: Folder of the labelled pairs to score on; those of its val.txt if there is no test.txt, or all where it
            has neither. None for the folder of the runs.
        output: Folder for the trainings and the tables.
        fused: By name of the method, a folder with the fused image of every pair, also of the training pairs.
        baselines: Keys of `BASELINES`, the rows beside the runs.
        fresh: Whether to train task networks on the images of the runs, too.
        steps: Steps of each training; None for as many as the runs had.
        learning_rates: Learning rates of the task network to choose from on the validation pairs, for each training;
            empty for that of the runs.
        corruptions: Keys of `CORRUPTIONS`, by which one source at a time is corrupted before it is fused.
        severities: Severities of the corruptions, from 1 to 3.

    Raises:
        UserError: If a folder cannot be used, the runs are of several tasks, or the classes of data and run differ.

    Example:
        >>> runs = [Path("runs/joint"), Path("runs/lagrangian")]
        >>> for method in evaluate_task(runs, None, Path("runs/comparison")).methods:  # doctest: +SKIP
        ...     print(method.name, method.mean("AP50"))
    """
    for name in baselines:
        check_choice("the baseline", name, BASELINES)
    for name in corruptions:
        check_choice("the corruption", name, CORRUPTIONS)
    configs = {run: _config_of(run) for run in runs}
    first, *others = configs.values()
    harness = [(each.downstream, each.data, each.train) for each in (first, *others)]
    if any(other != harness[0] for other in harness):
        raise UserError(
            "the runs differ in downstream, data or train, so that they cannot stand in one table; give those of one"
            " harness"
        )
    assert first.downstream is not None
    clashing = sorted({*baselines, *(method_name(group) for group in _grouped(configs))} & set(fused or {}))
    if clashing:
        raise UserError(f"{clashing[0]} is what the table calls another row; give the fused images another NAME=FOLDER")
    bench = _Bench(runs[0], first, data and data.expanduser())
    make_folder(output)
    # Before anything is trained, so that a run that cannot be scored raises at once.
    own = {run: bench.score(config.guidance.images, run, run).scores for run, config in configs.items()}
    methods = [*_baselines(configs, baselines, fused or {}), *_guided(configs, fresh=fresh)]
    train = partial(_train, first, steps=steps, learning_rates=learning_rates)
    methods = [_with_judges(method, bench, output, train) for method in methods]
    score = PRIMARY[first.downstream.kind]
    table = [bench.judge(method, score, own) for method in methods]
    files = {"scores.csv": scores_csv(table), "table.md": markdown(table)}
    differences = find_differences(table, score, bench.parts) if len(table) > 1 else []
    if differences:
        files |= {"differences.csv": differences_csv(differences)}
        files |= {"differences.md": differences_markdown(differences, score)}
    corrupted = [bench.corrupted(method, score, corruptions, severities) for method in methods] if corruptions else []
    corrupted = [method for method in corrupted if method.scores]
    if corrupted:
        files |= {"corrupted.csv": scores_csv(corrupted)}
    for file, text in files.items():
        write_atomically(output / file, text)
    guided = {method_name(group) for group in _grouped(configs)}
    differences = [each for each in differences if each.method in guided and not each.part]
    return TaskEvaluation(table, score, differences, corrupted, [output / file for file in files])


def _baselines(
    configs: Mapping[Path, FinetuneConfig], names: Sequence[str], fused: Mapping[str, Path]
) -> Iterator[_Method]:
    """List what stands beside the runs; a frozen task network judges at once."""
    run, config = next(iter(configs.items()))
    assert config.downstream is not None
    frozen = config.downstream.frozen
    seeds = (0,) if frozen else tuple(sorted({each.seed for each in configs.values()}))
    start = None if config.init is None else find_network(config.init)
    for name in names:
        images = BASELINES[name]
        # A network that sees one image does not see both sources, and random weights are no baseline.
        if not (images == "both" and frozen) and not (images == "fused" and start is None):
            networks = (start if images == "fused" else None,) * len(seeds)
            yield _Method(name, images, seeds, networks, (run,) if frozen else ())
    for name, folder in fused.items():
        # The whole path, since a folder may be called "fused" or "average".
        images = str(folder.expanduser().resolve())
        yield _Method(name, images, seeds, (None,) * len(seeds), (run,) if frozen else ())


def _guided(configs: Mapping[Path, FinetuneConfig], *, fresh: bool) -> Iterator[_Method]:
    """List the methods among the runs."""
    for group in _grouped(configs):
        config = configs[group[0]]
        assert config.downstream is not None
        judged = config.downstream.frozen or config.strategy == "frozen" or not fresh
        seeds = tuple(configs[run].seed for run in group)
        yield _Method(method_name(group), config.guidance.images, seeds, tuple(group), tuple(group) if judged else ())


def _with_judges(method: _Method, bench: "_Bench", output: Path, train: Callable[[Path, int, str], Path]) -> _Method:
    """Train the task networks of a method that has none."""
    if method.judges:
        return method
    judges = []
    for seed, network in zip(method.seeds, method.networks, strict=True):
        name, images = f"{method.name}-seed{seed}", method.images
        if network is not None:
            images = str(bench.write_images(network, output / "images" / name))
        judges.append(train(output / name, seed, images))
    return replace(method, judges=tuple(judges))


class _Bench:
    """The pairs that all methods are scored on, and the loss, which are those of the first run.

    Attributes:
        pairs: All pairs; the part "validation" is what is scored.
        parts: Positions among the scored pairs of each further list, by its name.
    """

    def __init__(self, run: Path, config: FinetuneConfig, data: Path | None) -> None:
        self.genotype = load_genotype(run)
        self.device = select_device(config.device)
        self.config = config.model_copy(update={"guidance": type(config.guidance)(strategy="joint")})
        self.loss: FusionLoss = loss_of(config, self.genotype.task)
        self.where = data or config.data.root
        assert config.downstream is not None
        self.coloured = self.genotype.colour_source
        self.colour = self.coloured if config.downstream.colour else None
        self.training = open_run_pairs(self.config, self.genotype.task)
        self.pairs, self.parts = _scored(self.config, self.training, self.genotype.task, data)

    def score(
        self,
        images: str,
        network: Path | None,
        judge: Path,
        change: Callable[[int, PairBatch], PairBatch] | None = None,
    ) -> Validation:
        """Score images by the task network of a run folder."""
        task = self._task(judge)
        pairs = self.pairs if images in (*SOURCES, "fused") else with_fused_images(self.pairs, Path(images))
        with Progress(1, f"scoring {judge.name}", unit="runs") as progress:
            validation = validate(
                self._fuse(images, network),
                task,
                pairs,
                self.loss,
                self.device,
                shown=partial(shown, images=images, coloured=self.coloured),
                colour=self.colour,
                change=change,
            )
            progress.advance()
        return validation

    def judge(self, method: _Method, score: str, own: Mapping[Path, Mapping[str, Mapping[str, float]]]) -> MethodScores:
        """Score all runs of a method."""
        scores, records = [], []
        for network, judge in zip(method.networks, method.judges, strict=True):
            validation = self.score(method.images, network, judge)
            record = self._record(validation)
            by_class = {part.removeprefix("class "): each for part, each in validation.scores.items() if part != "mean"}
            named = {f"{name} {label}": value for label, each in by_class.items() for name, value in each.items()}
            entries = validation.scores["mean"] | part_scores(record, score, self.parts) | named
            if network is not None and network in own and judge != network:
                entries[f"{OWN} {score}"] = own[network]["mean"][score]
            scores.append(entries)
            records.append(record)
        return MethodScores(method.name, method.seeds, tuple(scores), tuple(records))

    def corrupted(self, method: _Method, score: str, names: Sequence[str], severities: Sequence[int]) -> MethodScores:
        """Score a method with one source corrupted at a time, as the mean over both; images in a folder have none."""
        scores = []
        if method.images in (*SOURCES, "fused"):
            for network, judge in zip(method.networks, method.judges, strict=True):
                row = {}
                for name, severity in product(names, severities):
                    sides = []
                    for side in ("first", "second"):
                        change = partial(_corrupted, name, severity, side, self.coloured)
                        sides.append(self.score(method.images, network, judge, change).scores["mean"][score])
                    row[f"{name} {severity}"] = sum(sides) / len(sides)
                scores.append(row)
        return MethodScores(method.name, method.seeds, tuple(scores))

    @torch.no_grad()
    def write_images(self, network: Path, folder: Path) -> Path:
        """Write the fused image of every pair, in colour as users save it, and return the folder."""
        fuse = self._fuse("fused", network)
        for source in (each.source for each in self.training.sets):
            with Progress(len(source), f"fusing for {folder.name}") as progress:
                for index in range(len(source)):
                    batch = whole_pair(source, index).to(self.device)
                    luma = fuse(batch.first, batch.second)[0, 0].clamp(0, 1).cpu()
                    first, second = source.read(index)
                    chroma = chroma_source(self.coloured, first, second)
                    pixels = coloured_pixels(luma, first, second, chroma, np.uint8)
                    write_pixels(folder / f"{source.names[index]}.png", pixels)
                    progress.advance()
        return folder.resolve()

    def _task(self, judge: Path) -> TaskNetwork:
        task = load_task_network(judge).to(self.device)
        if self.pairs.source.classes != task.classes:
            raise UserError(
                f"{self.where} has the classes {', '.join(self.pairs.source.classes)}, and the task network of"
                f" {judge} knows {', '.join(task.classes)}; give data with the same classes"
            )
        return task

    def _record(self, validation: Validation) -> Record:
        classes = self.pairs.source.classes
        if self.pairs.source.labels == "boxes":
            return match_detections(validation.predictions, validation.truths, classes)  # type: ignore[arg-type]
        return count_confusions(validation.predictions, validation.truths, classes)  # type: ignore[arg-type]

    def _fuse(self, images: str, folder: Path | None) -> Fuse:
        """Make the function that turns a pair into an image."""
        if images != "fused":
            return SOURCES.get(images, SOURCES["first"])
        assert folder is not None
        _, network = load_network_folder(folder)
        network.to(self.device).eval()
        if not (folder / DETECTORS_FOLDER).is_dir():
            return lambda first, second: network(first, second)
        detectors = load_guiding_detectors(folder).to(self.device)
        return lambda first, second: network(first, second, attention=detectors.attention(first, second))


def _config_of(run: Path) -> FinetuneConfig:
    if not (run / CONFIG_FILE).is_file():
        raise UserError(f"{run} holds no run; give the folder of a `timfuse finetune` run")
    return load_config(FinetuneConfig, run / CONFIG_FILE)


def _train(
    config: FinetuneConfig, run: Path, seed: int, images: str, *, steps: int | None, learning_rates: Sequence[float]
) -> Path:
    """Train a task network on images with each learning rate; return the folder of the one that validates best."""
    best, best_score = run, -np.inf
    for rate in learning_rates or (None,):
        folder = run if rate is None else run.with_name(f"{run.name}-rate{rate:g}")
        plain = _plain(config, folder, seed, images, steps, rate)
        started = (folder / CONFIG_FILE).is_file()
        if started and _config_of(folder).model_copy(update={"run": folder}) != plain:
            raise UserError(f"{folder} was trained beside runs of another config; name another folder with --output")
        done = finetune(plain, resume=started)
        assert config.downstream is not None
        score = done.scores["mean"][PRIMARY[config.downstream.kind]]
        if score > best_score:
            best, best_score = folder, score
    return best


def _plain(
    config: FinetuneConfig, run: Path, seed: int, images: str, steps: int | None, rate: float | None
) -> FinetuneConfig:
    """Make the config for images that need no fusion network, otherwise the same as that of a run."""
    guidance = type(config.guidance)(strategy="frozen", images=images)
    assert config.downstream is not None
    changes: dict[str, object] = {"run": run, "seed": seed, "guidance": guidance}
    if rate is not None:
        changes["downstream"] = config.downstream.model_copy(update={"learning_rate": rate})
    if steps is not None:
        changes["train"] = config.train.model_copy(update={"steps": steps})
    return config.model_copy(update=changes)


def _grouped(configs: Mapping[Path, FinetuneConfig]) -> list[list[Path]]:
    """Group runs that differ in nothing but the seed, in the order in which they were given."""
    groups: dict[str, list[Path]] = {}
    for run, config in configs.items():
        same = config.model_copy(update={"run": Path(), "seed": 0}).model_dump_json()
        groups.setdefault(same, []).append(run)
    return list(groups.values())


def _scored(
    config: FinetuneConfig, pairs: RunPairs, task: str, data: Path | None
) -> tuple[RunPairs, dict[str, list[int]]]:
    """Choose the pairs to score on, and the parts of them that are scored apart, too."""
    own = [root.resolve() for root in config.data.roots if root is not None]
    roots = [root.expanduser() if root is not None else None for root in config.data.roots]
    whole = False
    if data is not None and data.resolve() not in own:
        pairs, roots = open_run_pairs(config, task, [data]), [data]
        whole = not (data / "val.txt").exists()
    sets, start = [], 0
    parts: dict[str, list[int]] = {}
    for each, root in zip(pairs.sets, roots, strict=True):
        names = each.source.names
        scored: Sequence[int] = each.split.validation
        if root is not None and (root / "test.txt").exists():
            scored = _listed(root / "test.txt", names, each.split.training + each.split.validation)
        elif whole:
            everything, count = tuple(range(len(names))), config.data.validation_pairs
            scored = everything if count is None else spread(everything, count)
        if root is not None:
            for file in sorted(root.glob("test-*.txt")):
                chosen = set(_listed(file, names))
                places = [start + place for place, index in enumerate(scored) if index in chosen]
                parts.setdefault(file.stem.removeprefix("test-"), []).extend(places)
        start += len(scored)
        sets.append(replace(each, split=each.split._replace(validation=tuple(scored))))
    return replace(pairs, sets=tuple(sets)), {part: places for part, places in parts.items() if places}


def _listed(file: Path, names: Sequence[str], others: Sequence[int] = ()) -> tuple[int, ...]:
    """Read the positions of the pairs that a list names, none of which may be among others."""
    position = {name: index for index, name in enumerate(names)}
    listed = tuple(position[name] for name in read_names(file, set(names)))
    both = sorted(set(listed) & set(others))
    if both:
        raise UserError(f"{file} names {names[both[0]]}, a pair for training or validation; take it out of one list")
    return listed


def _corrupted(name: str, severity: int, side: str, coloured: str, place: int, batch: PairBatch) -> PairBatch:
    generator = torch.Generator().manual_seed(derive_seed(0, name, severity, side, place))
    return corrupt_source(batch, side, name, severity, generator, coloured=coloured in (side, "both"))
