"""The disjoint parts of a data set: for network weights, for the architecture of a search, for validation."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.errors import UserError
from .pairs import read_names

_BLOCKS = 20
_SHORTEST_RUN = 3  # names; in shorter ones hardly a frame is further from the next run than from its own
_SLICE = re.compile("[1-9][0-9]{3,5}")  # a patient's number and a slice's of three digits; frames are padded with zeros
_FRAME = re.compile("(.*?)([0-9]+)[A-Za-z]?", re.DOTALL)  # a video's or a series' name and a number, as in 00004N


@dataclass(frozen=True)
class Splits:
    """Positions of pairs in their source; the three parts are disjoint and none is empty.

    Attributes:
        weight: Pairs on which network weights are trained (the inner problem).
        architecture: Pairs on which architecture logits are trained (the outer problem).
        validation: Pairs that no training sees.
    """

    weight: tuple[int, ...]
    architecture: tuple[int, ...]
    validation: tuple[int, ...]

    def __post_init__(self) -> None:
        parts = (self.weight, self.architecture, self.validation)
        assert all(parts), "a split is empty"
        assert len({i for part in parts for i in part}) == sum(map(len, parts)), "the splits overlap"


def hold_out(
    names: Sequence[str], *, seed: int, folder: Path | None = None, validation: float = 0.1
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split pairs into training and validation; the validation pairs are those of `make_splits` with the same seed.

    Args:
        names: Name of each pair in the source.
        seed: Draws the blocks.
        folder: As for `make_splits`.
        validation: As for `make_splits`.

    Returns:
        The positions of the training and of the validation pairs, each sorted by name.

    Raises:
        UserError: If there are fewer than two pairs, or the two files contradict each other or the pairs.
    """
    position = {name: index for index, name in enumerate(names)}
    parts = None if folder is None else _named(folder, set(position))
    if parts is None:
        if len(names) < 2:
            raise UserError(f"{len(names)} pair cannot be split into training and validation; at least 2 are needed")
        held_out, training = _deal(sorted(names), validation, np.random.default_rng(seed), rest=1)
        parts = training, held_out
    training_positions, validation_positions = (tuple(position[name] for name in sorted(part)) for part in parts)
    return training_positions, validation_positions


def make_splits(
    names: Sequence[str],
    *,
    seed: int,
    folder: Path | None = None,
    architecture: float = 0.5,
    validation: float = 0.1,
) -> Splits:
    """Split pairs by name, deterministically.

    Pairs are dealt out in contiguous blocks of sorted names (20 of them), not one by one: data sets are cut
    from video, neighbouring names are neighbouring frames, and a frame whose neighbour was trained on
    validates nothing. Several random blocks for each part keep a part from being one stretch of the video.

    Args:
        names: Name of each pair in the source.
        seed: Draws the blocks.
        folder: The data set's folder; where it holds `train.txt` and `val.txt`, these name the training and
            the validation pairs, and pairs that neither names are left out.
        architecture: Fraction of the training pairs that goes to the architecture, in (0, 1).
        validation: Fraction of all pairs that goes to validation, in (0, 1), where no file names them.

    Returns:
        The three parts, each sorted by name.

    Raises:
        UserError: If there are too few pairs, or the two files contradict each other or the pairs.
    """
    position = {name: index for index, name in enumerate(names)}
    rng = np.random.default_rng(seed)
    named = None if folder is None else _named(folder, set(position))
    if named is None:
        if len(names) < 3:
            raise UserError(f"{len(names)} pairs cannot be split into three parts; at least 3 are needed")
        held_out, training = _deal(sorted(names), validation, rng, rest=2)
    else:
        training, held_out = named
        if len(training) < 2:
            raise UserError(f"{folder}/train.txt names {len(training)} pair; at least 2 are needed")
    outer, inner = _deal(sorted(training), architecture, rng, rest=1)

    def positions(part: Sequence[str]) -> tuple[int, ...]:
        return tuple(position[name] for name in sorted(part))

    return Splits(weight=positions(inner), architecture=positions(outer), validation=positions(held_out))


def scene_blocks(names: Sequence[str]) -> list[list[int]]:
    """Group pairs that look alike, judging by their names, so that two draws can be kept from sharing a scene.

    Names such as 12034 throughout, of the Harvard sets, are slice 034 of patient 12: one block for each patient.
    Else names that agree up to a number at their end are frames of one video or a series, which is cut in the order
    of the numbers into blocks of up to a twentieth of all names, but up to three names in any case.
    A name without a number belongs to the series of that name (Window and Window2), or is a scene by itself.

    Args:
        names: Name of each pair in the source.

    Returns:
        The positions of each block's pairs, none empty; at least two blocks where there are two names.
    """
    positions = range(len(names))
    if all(_SLICE.fullmatch(name) for name in names):
        patients = _grouped(positions, [name[:-3] for name in names])
        if len(patients) > 1:
            return patients
    frames = [_FRAME.fullmatch(name) for name in names]
    numbers = [-1 if frame is None else int(frame[2]) for frame in frames]
    ordered = sorted(positions, key=lambda index: (numbers[index], names[index]))
    series = _grouped(ordered, [name if frame is None else frame[1] for name, frame in zip(names, frames, strict=True)])
    longest = max(_SHORTEST_RUN, math.ceil(len(names) / _BLOCKS))
    blocks = [run for group in series for run in _runs(group, math.ceil(len(group) / longest))]
    return _runs(blocks[0], 2) if len(blocks) == 1 and len(names) > 1 else blocks


def spread(positions: Sequence[int], count: int) -> tuple[int, ...]:
    """Take at most so many of the positions, at equal distances, since neighbours look alike.

    Args:
        positions: To take from, in the order of the pairs' names.
        count: How many to take.

    Returns:
        The positions that were taken, in their order.
    """
    places = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int)
    return tuple(positions[place] for place in places)


def _grouped(positions: Sequence[int], keys: Sequence[str]) -> list[list[int]]:
    """Group positions by their key, the groups sorted by key, each in the order in which its positions come."""
    groups: dict[str, list[int]] = {key: [] for key in sorted(set(keys))}
    for index in positions:
        groups[keys[index]].append(index)
    return list(groups.values())


def _runs(positions: list[int], count: int) -> list[list[int]]:
    """Cut positions into runs of about the same length."""
    return [run.tolist() for run in np.array_split(np.array(positions), count)]


def _deal(names: list[str], fraction: float, rng: np.random.Generator, rest: int) -> tuple[list[str], list[str]]:
    """Deal a fraction of the names in shuffled contiguous blocks, at least one, leaving at least `rest`."""
    blocks = np.array_split(np.arange(len(names)), min(_BLOCKS, len(names)))
    order = np.concatenate([blocks[index] for index in rng.permutation(len(blocks))])
    count = min(max(1, round(fraction * len(names))), len(names) - rest)
    return [names[i] for i in order[:count]], [names[i] for i in order[count:]]


def _named(folder: Path, known: set[str]) -> tuple[list[str], list[str]] | None:
    """Read `train.txt` and `val.txt` where the folder has them."""
    files = folder / "train.txt", folder / "val.txt"
    present = [file for file in files if file.exists()]
    if not present:
        return None
    if len(present) == 1:
        raise UserError(f"{folder} holds {present[0].name} alone; add the other of train.txt and val.txt or remove it")
    training, validation = (read_names(file, known) for file in files)
    both = sorted(set(training) & set(validation))
    if both:
        raise UserError(f"{both[0]} is named by both train.txt and val.txt in {folder}; take it out of one of them")
    return training, validation
