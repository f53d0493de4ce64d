"""The labelled pairs that methods are scored on, and what a task network makes of a method's images of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch

from ..data import PairBatch, RunPairs, write_pixels
from ..data.batch_stream import whole_pair
from ..data.colour import chroma_source, coloured_pixels
from ..data.corruptions import corrupt_source
from ..data.pairs import find_fused, read_names
from ..data.splits import spread
from ..downstream import TaskNetwork, load_guiding_detectors, load_task_network
from ..downstream.scoring import count_confusions, match_detections
from ..genotypes import load_genotype
from ..objectives import FusionLoss
from ..operators import load_network_folder
from ..runtime.device import select_device
from ..runtime.errors import UserError
from ..runtime.progress import Progress
from ..runtime.run_files import DETECTORS_FOLDER
from ..runtime.seeds import derive_seed
from .finetune_config import FinetuneConfig
from .finetune_pairs import with_fused_images
from .finetune_setup import loss_of, open_run_pairs
from .task_images import SOURCES, shown
from .task_table import OWN, MethodScores, Record, part_scores
from .task_validation import Fuse, Validation, validate


@dataclass(frozen=True)
class JudgedImages:
    """The images of a method, and the task networks that judge them.

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


class ScoredPairs:
    """The pairs that all methods are scored on, and the loss.

    Args:
        run: Folder of a finetuning, whose network says which task and colours the pairs have.
        config: Its config, for the pairs and the loss.
        data: Folder of other pairs to score on, or None; see `evaluate_task`.

    Attributes:
        pairs: All pairs; the part "validation" is what is scored.
        parts: Positions among the scored pairs of each further list, by its name.
        notes: Sentences on which pairs are scored.
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
        self.notes: list[str] = []
        self.pairs, self.parts = self._scored(data)
        for part in self.parts:
            if part in self.pairs.source.classes:
                raise UserError(f"test-{part}.txt is called like a class, whose score it would hide; rename it")

    def check_fused(self, folders: Sequence[Path]) -> None:
        """Check that other methods have an image for every pair, before anything is trained.

        Raises:
            UserError: If one is missing, or if pairs for training and for scoring share names.
        """
        trained, scored = self.training.source.names, self.pairs.source.names
        own = [each.source for each in self.training.sets]
        foreign = all(each.source not in own for each in self.pairs.sets)
        if folders and foreign and set(trained) & set(scored):
            raise UserError(
                f"{self.where} and the training pairs share names, so that a folder cannot hold an image of each;"
                " rename the pairs, or leave out --fused"
            )
        for folder in folders:
            for names in (trained, scored):
                find_fused(folder.expanduser(), names)

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

    def judge(
        self, method: JudgedImages, score: str, own: Mapping[Path, Mapping[str, Mapping[str, float]]]
    ) -> MethodScores:
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

    def corrupted(
        self, method: JudgedImages, score: str, names: Sequence[str], severities: Sequence[int]
    ) -> MethodScores:
        """Score a method with one source corrupted at a time; images in a folder cannot be made anew."""
        scores = []
        if method.images in (*SOURCES, "fused"):
            for network, judge in zip(method.networks, method.judges, strict=True):
                row = {}
                for name, severity, side in product(names, severities, ("first", "second")):
                    change = partial(_corrupted, name, severity, side, self.coloured)
                    validation = self.score(method.images, network, judge, change)
                    row[f"{name} {severity} of {side}"] = validation.scores["mean"][score]
                scores.append(row)
        return MethodScores(method.name, method.seeds, tuple(scores))

    @torch.no_grad()
    def write_images(self, network: Path, folder: Path) -> Path:
        """Write the fused image of every pair, in colour if the task network sees colours, and return the folder."""
        fuse = self._fuse("fused", network)
        for source in (each.source for each in self.training.sets):
            with Progress(len(source), f"fusing for {folder.name}") as progress:
                for index in range(len(source)):
                    batch = whole_pair(source, index).to(self.device)
                    luma = fuse(batch.first, batch.second)[0, 0].clamp(0, 1).cpu()
                    first, second = source.read(index)
                    chroma = "grey" if self.colour is None else chroma_source(self.coloured, first, second)
                    pixels = coloured_pixels(luma, first, second, chroma, np.uint8)
                    write_pixels(folder / f"{source.names[index]}.png", pixels)
                    progress.advance()
        return folder.resolve()

    def _scored(self, data: Path | None) -> tuple[RunPairs, dict[str, list[int]]]:
        """Choose the pairs to score on, and the parts of them that are scored apart, too."""
        pairs, roots = self.training, [root and root.expanduser() for root in self.config.data.roots]
        foreign = data is not None and data.resolve() not in [root.resolve() for root in roots if root is not None]
        if data is not None:
            if foreign:
                pairs, roots = open_run_pairs(self.config, self.genotype.task, [data]), [data]
            else:
                place = [root and root.resolve() for root in roots].index(data.resolve())
                pairs, roots = replace(pairs, sets=pairs.sets[place : place + 1]), roots[place : place + 1]
        sets, start = [], 0
        parts: dict[str, list[int]] = {}
        for each, root in zip(pairs.sets, roots, strict=True):
            names = each.source.names
            scored: Sequence[int] = each.split.validation
            if root is not None and (root / "test.txt").exists():
                known = foreign and not (root / "train.txt").exists()  # then its split is not anybody's
                scored = _listed(root / "test.txt", names, () if known else each.split.training + each.split.validation)
            elif root is not None and foreign and not (root / "val.txt").exists():
                everything, count = tuple(range(len(names))), self.config.data.validation_pairs
                scored = everything if count is None else spread(everything, count)
            elif not foreign:
                self.notes.append(
                    f"the scores are of the validation pairs of {each.name}, which have chosen the weights; name others"
                    " in test.txt"
                )
            for file in sorted(root.glob("test-*.txt")) if root is not None else ():
                chosen = set(_listed(file, names))
                places = [start + place for place, index in enumerate(scored) if index in chosen]
                parts.setdefault(file.stem.removeprefix("test-"), []).extend(places)
            start += len(scored)
            sets.append(replace(each, split=each.split._replace(validation=tuple(scored))))
        return replace(pairs, sets=tuple(sets)), {part: places for part, places in parts.items() if places}

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
