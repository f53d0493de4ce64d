"""The parts of a data set: for training weights, for scoring the architecture of a search, for validation."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..runtime.errors import UserError
from .pairs import read_names

_BLOCKS = 20
_SHORTEST_RUN = 3  # names; in shorter ones hardly a frame is further from the next run than from its own
_SLICE = re.compile("[1-9][0-9]{3,5}")  # a patient's number and a slice's of three digits; frames are padded with zeros
_FRAME = re.compile("(.*?)([0-9]+)[A-Za-z]?", re.DOTALL)  # a video's or a series' name and a number, as in 00004N
_HELD_OUT = ("test.txt", "valid.txt", "validation.txt", "eval.txt")  # lists that data sets have in place of val.txt


class Split(NamedTuple):
    """Positions of pairs in their source, each part sorted by name; the parts are disjoint.

    Attributes:
        training: Pairs that train network weights (the inner problem).
        architecture: Pairs that score the architecture of a search (the outer problem); empty unless asked for.
        validation: Pairs that neither weights nor architecture are trained on.
    """

    training: tuple[int, ...]
    architecture: tuple[int, ...]
    validation: tuple[int, ...]


def split_pairs(
    names: Sequence[str],
    *,
    seed: int,
    folder: Path | None = None,
    validation: float = 0.1,
    architecture: float | None = None,
    unlabelled: Sequence[str] = (),
) -> Split:
    """Split the pairs of a data set by name into parts that depend on names and seed alone.

    Pairs are dealt in 20 contiguous blocks of sorted names, not one by one: data sets are cut from video, neighbouring
    names are neighbouring frames, and a frame next to a training frame validates nothing. Several random blocks for
    each part keep a part from being one stretch of the video.

    Args:
        seed: Chooses the blocks of each part.
        folder: Folder of the data set; if it holds `train.txt` and `val.txt`, these name the training and the
            validation pairs, and pairs that neither names are left out. So are those that `test.txt` names, unless
            hardly any others are left: then it is a folder to score on.
        validation: Fraction of all pairs for validation, in (0, 1), where no file names them.
        architecture: Fraction of the training pairs for the architecture of a search, in (0, 1); None for no such part.
        unlabelled: Names of the data set's further pairs, which are in no part. The two files may name them, and with
            `architecture` they are dealt too, so that a search has the same parts with and without labels.

    Raises:
        UserError: If there are too few pairs, or the two files contradict each other or the pairs.
    """
    listed = None if folder is None else _listed(folder, {*names, *unlabelled})
    rng = np.random.default_rng(seed)
    if listed is None:
        known = list(names) if architecture is None else [*names, *unlabelled]
        least = 2 if architecture is None else 3
        if folder is not None and (folder / "test.txt").exists():
            held_back = set(read_names(folder / "test.txt", {*names, *unlabelled}, strict=False))
            others = [name for name in known if name not in held_back]
            known = others if len(others) >= least else known
        if len(known) < least:
            wanted = "training and validation" if architecture is None else "three parts"
            raise UserError(f"{_count(known)} cannot be split into {wanted}; at least {least} are needed")
        held_out, training = _deal(sorted(known), validation, rng, rest=least - 1)
    else:
        training, held_out = listed
    outer: list[str] = []
    if architecture is not None:
        if len(training) < 2:
            raise UserError(f"{folder}/train.txt names {_count(training)}; at least 2 are needed")
        outer, training = _deal(sorted(training), architecture, rng, rest=1)
    position = {name: index for index, name in enumerate(names)}
    parts = (training, outer, held_out)
    split = Split(*(tuple(position[name] for name in sorted(part) if name in position) for part in parts))
    for name, part in zip(Split._fields, split, strict=True):
        if not part and (name != "architecture" or architecture is not None):
            raise UserError(
                f"none of the {name} pairs in {folder} has a label; label some of them and name these in labelled.txt"
            )
    return split


def scene_blocks(names: Sequence[str]) -> list[list[int]]:
    """Group pairs that look alike, judging by their names, so that two draws share no scene.

    If all names are like 12034, as in the Harvard sets (slice 034 of patient 12), each patient is a block. Otherwise
    names that agree up to a number at their end are frames of one video or a series. Such a series is cut in the order
    of the numbers into blocks of up to a twentieth of all names, or up to three names if that is more. A name without a
    number belongs to the series of that name (Window and Window2), or is a scene by itself.

    Returns:
        The positions of each block's pairs; no block is empty, and two or more names make at least two blocks.
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
    """Choose up to `count` positions at equal distances, since neighbours look alike."""
    places = np.linspace(0, len(positions) - 1, min(count, len(positions))).round().astype(int)
    return tuple(positions[place] for place in places)


def _grouped(positions: Sequence[int], keys: Sequence[str]) -> list[list[int]]:
    """Group positions by their key; groups are sorted by key, and positions keep their order in each group."""
    groups: dict[str, list[int]] = {key: [] for key in sorted(set(keys))}
    for index in positions:
        groups[keys[index]].append(index)
    return list(groups.values())


def _runs(positions: list[int], count: int) -> list[list[int]]:
    """Cut positions into runs of about the same length."""
    return [run.tolist() for run in np.array_split(np.array(positions), count)]


def _count(names: Sequence[str]) -> str:
    return "1 pair" if len(names) == 1 else f"{len(names)} pairs"


def _deal(names: list[str], fraction: float, rng: np.random.Generator, rest: int) -> tuple[list[str], list[str]]:
    """Deal a fraction of the names in shuffled contiguous blocks, at least one, leaving at least `rest`."""
    blocks = np.array_split(np.arange(len(names)), min(_BLOCKS, len(names)))
    order = np.concatenate([blocks[index] for index in rng.permutation(len(blocks))])
    count = min(max(1, round(fraction * len(names))), len(names) - rest)
    return [names[i] for i in order[:count]], [names[i] for i in order[count:]]


def _listed(folder: Path, known: set[str]) -> tuple[list[str], list[str]] | None:
    """Read the names in `train.txt` and `val.txt`; None if the folder has neither."""
    files = folder / "train.txt", folder / "val.txt"
    present = [file for file in files if file.exists()]
    if not present:
        return None
    if len(present) == 1:
        others = [name for name in _HELD_OUT if (folder / name).exists()]
        if present == [files[0]] and others:
            raise UserError(f"{folder} holds train.txt and {others[0]}, but no val.txt; copy {others[0]} to val.txt")
        raise UserError(f"{folder} holds {present[0].name} alone; add the other of train.txt and val.txt or remove it")
    training, validation = (read_names(file, known) for file in files)
    both = sorted(set(training) & set(validation))
    if both:
        raise UserError(f"{both[0]} is named by both train.txt and val.txt in {folder}; take it out of one of them")
    return training, validation
