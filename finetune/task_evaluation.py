"""Scores of a downstream task on fused images: runs, sources, their average and other methods' images alike."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.corruptions import CORRUPTIONS
from ..downstream import build_task_network
from ..genotypes.choices import check_choice
from ..operators.network_folders import find_network
from ..runtime.config import load_config
from ..runtime.errors import UserError
from ..runtime.files import make_folder, write_atomically
from ..runtime.run_files import CONFIG_FILE
from .finetune_config import FinetuneConfig
from .finetune_recipe import finetune
from .scored_pairs import JudgedImages, ScoredPairs
from .task_images import channels_of
from .task_table import (
    Difference,
    MethodScores,
    differences_csv,
    differences_markdown,
    find_differences,
    markdown,
    method_name,
    scores_csv,
)
from .task_validation import PRIMARY

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
        corrupted: The score of each method at each severity of a corruption, by "NAME SEVERITY of SOURCE".
        notes: Sentences on what a reader of the tables has to know.
        files: The tables as CSV and in Markdown, which hold all of this and the raw rows.
    """

    methods: list[MethodScores]
    score: str
    differences: list[Difference]
    corrupted: list[MethodScores]
    notes: list[str]
    files: list[Path]


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
    for run, config in configs.items():
        if config.downstream is None:
            raise UserError(f"{run} was finetuned without a downstream task; give its images by --fused NAME=FOLDER")
    first, *others = configs.values()
    assert first.downstream is not None
    frozen = first.downstream.frozen  # then nothing is trained here
    keys = ["downstream", "data", "task", "sources", "colour", *([] if frozen else ["train"])]
    for other in others:
        differing = [key for key in keys if getattr(first, key) != getattr(other, key)]
        if differing:
            raise UserError(
                f"the runs differ in {', '.join(differing)}, so that they cannot stand in one table; give those of one"
                " harness"
            )
    if not all(0 < rate < np.inf for rate in learning_rates):
        raise UserError("a learning rate must be above 0; give another --rate")
    baselines = list(dict.fromkeys(baselines))
    names = Counter([*baselines, *(fused or {}), *(method_name(group) for group in _grouped(configs))])
    for name, count in names.items():
        if count > 1:
            raise UserError(f"the table would have {count} rows {name}; rename a run folder, or give NAME=FOLDER")
        if Path(name).name != name:
            raise UserError(f"{name} cannot be the name of a row; give the fused images another NAME=FOLDER")
    scored = ScoredPairs(runs[0], first, data and data.expanduser())
    scored.check_fused(list((fused or {}).values()))
    make_folder(output)
    # Before anything is trained, so that a run that cannot be scored raises at once.
    own = {run: scored.score(config.guidance.images, run, run).scores for run, config in configs.items()}
    notes = scored.notes
    if "both" in baselines and not frozen and not _can_see_both(first, scored.pairs.source.classes):
        baselines.remove("both")
        notes.append("both is left out, because this task network cannot see both sources")
    if "unguided" in baselines and any(other.init != first.init for other in others):
        baselines.remove("unguided")
        notes.append("unguided is left out, because the runs start from several networks")
    methods = [*_baselines(configs, baselines, fused or {}), *_guided(configs, fresh=fresh)]
    usual = first if steps is None else load_config(FinetuneConfig, runs[0] / CONFIG_FILE, [f"train.steps={steps}"])
    train = partial(_train, usual, learning_rates=learning_rates)
    methods = [_with_judges(method, scored, output, train) for method in methods]
    score = PRIMARY[first.downstream.kind]
    table = [scored.judge(method, score, own) for method in methods]
    files = {"scores.csv": scores_csv(table), "table.md": markdown(table)}
    differences = find_differences(table, score, scored.parts) if len(table) > 1 else []
    if differences:
        files |= {"differences.csv": differences_csv(differences)}
        files |= {"differences.md": differences_markdown(differences, score)}
    corrupted = [scored.corrupted(method, score, corruptions, severities) for method in methods] if corruptions else []
    corrupted = [method for method in corrupted if method.scores]
    if corrupted:
        files |= {"corrupted.csv": scores_csv(corrupted)}
    for file in ("differences.csv", "differences.md", "corrupted.csv"):  # of an earlier evaluation
        (output / file).unlink(missing_ok=True)
    for file, text in files.items():
        write_atomically(output / file, text)
    guided = {method_name(group) for group in _grouped(configs)}
    differences = [each for each in differences if each.method in guided and not each.part]
    return TaskEvaluation(table, score, differences, corrupted, notes, [output / file for file in files])


def _can_see_both(config: FinetuneConfig, classes: Sequence[str]) -> bool:
    """Tell whether the task network can be built for both sources."""
    section = config.downstream
    assert section is not None
    channels = channels_of("both", colour=section.colour)
    try:
        build_task_network(section.kind, section.network, classes, section.width, section.init, channels)
    except UserError:
        return False
    return True


def _baselines(
    configs: Mapping[Path, FinetuneConfig], names: Sequence[str], fused: Mapping[str, Path]
) -> Iterator[JudgedImages]:
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
            yield JudgedImages(name, images, seeds, networks, (run,) if frozen else ())
    for name, folder in fused.items():
        # The whole path, since a folder may be called "fused" or "average".
        images = str(folder.expanduser().resolve())
        yield JudgedImages(name, images, seeds, (None,) * len(seeds), (run,) if frozen else ())


def _guided(configs: Mapping[Path, FinetuneConfig], *, fresh: bool) -> Iterator[JudgedImages]:
    """List the methods among the runs."""
    for group in _grouped(configs):
        config = configs[group[0]]
        assert config.downstream is not None
        judged = config.downstream.frozen or config.strategy == "frozen" or not fresh
        seeds = tuple(configs[run].seed for run in group)
        yield JudgedImages(
            method_name(group), config.guidance.images, seeds, tuple(group), tuple(group) if judged else ()
        )


def _with_judges(
    method: JudgedImages, scored: ScoredPairs, output: Path, train: Callable[[Path, int, str], Path]
) -> JudgedImages:
    """Train the task networks of a method that has none."""
    if method.judges:
        return method
    judges = []
    for seed, network in zip(method.seeds, method.networks, strict=True):
        name, images = f"{method.name}-seed{seed}", method.images
        if network is not None:
            images = str(scored.write_images(network, output / "images" / name))
        judges.append(train(output / name, seed, images))
    return replace(method, judges=tuple(judges))


def _config_of(run: Path) -> FinetuneConfig:
    if not (run / CONFIG_FILE).is_file():
        raise UserError(f"{run} holds no run; give the folder of a `timfuse finetune` run")
    return load_config(FinetuneConfig, run / CONFIG_FILE)


def _train(config: FinetuneConfig, run: Path, seed: int, images: str, *, learning_rates: Sequence[float]) -> Path:
    """Train a task network on images with each learning rate; return the folder of the one that validates best."""
    best, best_score = run, -np.inf
    for rate in learning_rates or (None,):
        folder = run if rate is None else run.with_name(f"{run.name}-rate{rate:g}")
        plain = _plain(config, folder, seed, images, rate)
        started = (folder / CONFIG_FILE).is_file()
        if started and _config_of(folder).model_copy(update={"run": folder}) != plain:
            raise UserError(f"{folder} was trained beside runs of another config; name another folder with --output")
        done = finetune(plain, resume=started)
        assert config.downstream is not None
        score = done.scores["mean"][PRIMARY[config.downstream.kind]]
        if score > best_score:
            best, best_score = folder, score
    return best


def _plain(config: FinetuneConfig, run: Path, seed: int, images: str, rate: float | None) -> FinetuneConfig:
    """Make the config for images that need no fusion network, otherwise the same as that of a run."""
    guidance = type(config.guidance)(strategy="frozen", images=images)
    assert config.downstream is not None
    changes: dict[str, object] = {"run": run, "seed": seed, "guidance": guidance}
    if rate is not None:
        changes["downstream"] = config.downstream.model_copy(update={"learning_rate": rate})
    return config.model_copy(update=changes)


def _grouped(configs: Mapping[Path, FinetuneConfig]) -> list[list[Path]]:
    """Group runs that differ in nothing but the seed, in the order in which they were given."""
    groups: dict[str, list[Path]] = {}
    for run, config in configs.items():
        same = config.model_copy(update={"run": Path(), "seed": 0}).model_dump_json()
        groups.setdefault(same, []).append(run)
    return list(groups.values())
