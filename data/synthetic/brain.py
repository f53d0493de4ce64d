"""The anatomy of a synthetic head, which the scanners of a phantom see in different ways."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .canvas import Floats
from .fields import spline_weights, spread, step
from .shapes import capsule

_LAYERS = 5  # grid cells from the base to the crown, by which folds and textures change
_TABLE = (96, 512)  # of the folds' field in polar coordinates: distances, directions
_HEAD = 0.9  # half the length of the head at its widest, of half the picture


@dataclass(frozen=True)
class Brain:
    """The tissues of one slice; each field without a note is a share (H, W) of the pixels in [0, 1].

    Attributes:
        marrow: The spongy middle of the bone, a part of `skull`.
        brain: Everything within the lining of the skull.
        grey: Grey matter, a part of `brain`, like the tissues that follow.
        falx: The membrane between the hemispheres.
        calcified: Chalk in the choroid plexus and the pineal gland.
        swelling: The surroundings of the lesion.
        texture: Fine unevenness of tissue (H, W), about one in size.
        supply: Coarse unevenness of metabolism (H, W), about one in size.
    """

    scalp: Floats
    skull: Floats
    marrow: Floats
    brain: Floats
    grey: Floats
    white: Floats
    fluid: Floats
    falx: Floats
    calcified: Floats
    lesion: Floats
    swelling: Floats
    texture: Floats
    supply: Floats


class _Volume:
    """Random fields of a head that change smoothly from slice to slice."""

    def __init__(self, rng: np.random.Generator, level: float, shape: tuple[int, int]) -> None:
        self.rng, self.shape = rng, shape
        self._layers = spline_weights(np.array([level]), _LAYERS)[0]

    def nodes(self, rows: int, columns: int) -> Floats:
        """Draw the nodes of a (rows, columns) grid in this slice."""
        layers = self.rng.standard_normal((_LAYERS + 3, rows + 3, columns + 3)) / 0.33
        return np.asarray(np.tensordot(self._layers, layers, 1), np.float32)

    def field(self, cells: int) -> Floats:
        """Draw a field with a standard deviation of about one."""
        return spread(self.nodes(cells, cells), *self.shape)

    def symmetric(self, cells: int, share: float) -> Floats:
        """Draw a field; a share of it is mirrored between left and right."""
        nodes = self.nodes(cells, cells)
        mixed = share * (nodes + nodes[:, ::-1]) / math.sqrt(2) + math.sqrt(1 - share**2) * self.nodes(cells, cells)
        return spread(mixed, *self.shape)


def make_brain(rng: np.random.Generator, level: float, height: int, width: int) -> Brain:
    """Cut one axial slice out of a head.

    Args:
        rng: The head: slices of the same head need generators in the same state.
        level: Height of the slice, from 0 at the base of the cerebrum to 1 near the crown.
    """
    half = min(height, width) / 2  # pixels of a unit of length
    pixel = 1 / half
    v = ((np.arange(height, dtype=np.float32) + 0.5) / half - height / (2 * half))[:, None]
    u = ((np.arange(width, dtype=np.float32) + 0.5) / half - width / (2 * half))[None]
    volume = _Volume(rng, level, (height, width))

    # Outline: an egg, narrower in front, that shrinks towards the crown.
    crown = math.sqrt(1 - (0.82 * level) ** 2)
    long = _HEAD * rng.uniform(0.93, 1.0) * crown
    wide = long * rng.uniform(0.76, 0.86)
    tilt = rng.uniform(-0.06, 0.06)
    u, v = u + tilt * v, v - tilt * u
    egg = 1 + rng.uniform(0.05, 0.13) * v / long
    inside = (1 - np.hypot(u / (wide * egg), v / long)) * math.sqrt(wide * long)  # depth under the skin
    inside = inside + 0.012 * volume.symmetric(4, 0.8)
    skin = rng.uniform(0.055, 0.085) + 0.008 * volume.symmetric(5, 0.8)
    bone = rng.uniform(0.055, 0.075) * (1 + 0.6 * level**3) + 0.008 * volume.symmetric(5, 0.8)
    depth = inside - skin - bone  # under the skull's lining
    head, brain = step(inside, -pixel, pixel), step(depth, -pixel, pixel)
    outer = step(inside - skin, -pixel, pixel)
    marrow = step(0.3 * bone - np.abs(depth + 0.5 * bone), -pixel, pixel)

    fissure = np.abs(u + 0.012 * volume.field(3)) - 0.004 - 0.02 * step(np.abs(v) / long, 0.5, 1.1)
    split = step(level + 0.35 * (np.abs(v) / long - 0.45), 0.15, 0.3) if level < 0.6 else np.float32(1)
    fissure = fissure + 0.25 * (1 - split)
    edge = _to_cortex(volume, u, v, long, depth, fissure, half)
    core, spaces = _deep_parts(volume, rng, u, v, level, long)

    gap, ribbon = rng.uniform(0.004, 0.012), rng.uniform(0.045, 0.06)
    fluid = np.maximum(1 - step(edge, gap - pixel, gap + pixel), step(-spaces, -pixel, pixel))
    grey = np.maximum(1 - step(edge, gap + ribbon - pixel, gap + ribbon + 2 * pixel), step(-core, -pixel, 2 * pixel))
    fluid = brain * fluid
    grey = (brain - fluid) * grey
    falx = brain * step(fissure, 0.012 + pixel, 0) * step(np.abs(v) / long, 0.25, 0.5)
    lesion, swelling = _lesion(volume, rng, u, v, level, long, wide, pixel)
    return Brain(
        scalp=head - outer,
        skull=outer - brain,
        marrow=np.minimum(marrow, outer - brain),
        brain=brain,
        grey=grey,
        white=brain - fluid - grey,
        fluid=fluid,
        falx=falx,
        calcified=brain * _calcified(rng, u, v, level, long, pixel),
        lesion=(brain - fluid) * lesion,
        swelling=(brain - fluid) * swelling,
        texture=volume.field(24),
        supply=volume.symmetric(6, 0.6),
    )


def _to_cortex(
    volume: _Volume, u: Floats, v: Floats, long: float, depth: Floats, fissure: Floats, half: float
) -> Floats:
    """Compute the distance to the surface of the folded cortex: the lining, the midline, or the nearest furrow.

    Furrows are the zero crossings of a field around each hemisphere's middle, so that most of them run inwards.
    """
    turns, rings = 26, 3
    nodes = [volume.nodes(rings, turns) for _ in range(3)]  # what both hemispheres share, the left's, the right's
    u, v = u + 0.025 * volume.field(5), v + 0.025 * volume.field(5)
    beside, ahead = np.abs(u) - 0.3 * long, 0.75 * v
    around = _TABLE[1] * (np.arctan2(ahead, beside) / (2 * np.pi) + 0.5)
    radius = np.hypot(beside, ahead)
    far = _TABLE[0] * np.minimum(radius / (0.8 * long), 0.99)
    tables = []
    for side in nodes[1:]:
        mixed = 0.75 * nodes[0] + 0.66 * side
        mixed[:, -3:] = mixed[:, :3]  # once around, and on without a seam
        tables.append(spread(mixed, *_TABLE))
    wave = _look_up(np.stack(tables), (u > 0).astype(np.intp), far, around)
    down, across = np.gradient(wave)
    furrow = np.abs(wave) / (np.hypot(down, across) * half + 1e-3)
    reach = (0.2 + 0.06 * volume.symmetric(6, 0.5)) * long  # how far in furrows go
    furrow = furrow + np.maximum(np.minimum(depth, fissure + 0.04) - reach, 0) + np.maximum(0.22 * long - radius, 0)
    return np.asarray(np.minimum(np.minimum(depth, furrow), np.maximum(fissure, 0)), np.float32)


def _look_up(tables: Floats, which: NDArray[np.intp], rows: Floats, columns: Floats) -> Floats:
    """Interpolate linearly in (K, R, C) tables with cyclic columns."""
    top, left = rows.astype(np.intp), columns.astype(np.intp)
    below, right = np.minimum(top + 1, tables.shape[1] - 1), (left + 1) % tables.shape[2]
    left, down, across = left % tables.shape[2], rows - top, columns - left
    upper = tables[which, top, left] * (1 - across) + tables[which, top, right] * across
    lower = tables[which, below, left] * (1 - across) + tables[which, below, right] * across
    return np.asarray(upper + down * (lower - upper), np.float32)


def _deep_parts(
    volume: _Volume, rng: np.random.Generator, u: Floats, v: Floats, level: float, long: float
) -> tuple[Floats, Floats]:
    """Compute signed distances to the basal ganglia and to the ventricles, which only some levels have."""
    u, v = u / long + 0.015 * volume.field(7), v / long + 0.015 * volume.field(7)
    side = np.abs(u)
    within = 1 - (level - 0.3) ** 2 / 0.3**2  # of the ventricles: full at 0.3, none above 0.6
    roomy = rng.uniform(0.03, 0.075)
    swell = roomy * math.sqrt(max(within, 0.0)) - 0.08 * max(-within, 0.0) - 0.01
    front, body, back = (0.16, -0.38), (0.06, -0.12), (0.24, 0.36)
    spaces = np.minimum(
        np.minimum(capsule(side, v, front, body, swell), capsule(side, v, body, (0.1, 0.12), 0.7 * swell)),
        capsule(side, v, (0.1, 0.12), back, 0.9 * swell),
    )
    low = max(0.0, 1 - (level / 0.45) ** 2)
    spaces = np.minimum(spaces, capsule(side, v, (0.0, -0.08), (0.0, 0.12), 0.025 * low - 0.01 * (1 - low)))
    nuclei = [
        capsule(side, v, (0.24, -0.26), (0.33, 0.0), 0.075 * low - 0.1 * (1 - low)),  # putamen
        capsule(side, v, (0.11, 0.02), (0.13, 0.14), 0.085 * low - 0.1 * (1 - low)),  # thalamus
        capsule(side, v, (0.15, -0.28), (0.17, -0.2), 0.06 * low - 0.1 * (1 - low)),  # caudate
    ]
    core = np.minimum(np.minimum(nuclei[0], nuclei[1]), nuclei[2])
    return np.asarray(core * long, np.float32), np.asarray(spaces * long, np.float32)


def _lesion(
    volume: _Volume,
    rng: np.random.Generator,
    u: Floats,
    v: Floats,
    level: float,
    long: float,
    wide: float,
    pixel: float,
) -> tuple[Floats, Floats]:
    """Draw core and surroundings of a tumour or an infarct, which half of the heads have at some level."""
    present = rng.random() < 0.5
    turn, far, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.6), rng.uniform(0.1, 0.24)
    height, halo = rng.uniform(0.1, 0.8), rng.uniform(1.2, 2.0)
    uneven = 0.035 * volume.field(9)
    radius = math.sqrt(max(size**2 - (0.6 * (level - height)) ** 2, 0.0))
    if not present or radius < 0.03:
        return np.zeros_like(uneven), np.zeros_like(uneven)
    distance = np.hypot(u - far * wide * np.cos(turn), v - far * long * np.sin(turn)) + uneven
    core = step(distance, radius + pixel, radius - 2 * pixel)
    return core, step(distance + 0.5 * uneven, halo * radius + 0.03, halo * radius - 0.03) * (1 - core)


def _calcified(rng: np.random.Generator, u: Floats, v: Floats, level: float, long: float, pixel: float) -> Floats:
    """Draw specks of chalk at the pineal gland and in the choroid plexus of both sides."""
    specks = np.zeros(np.broadcast_shapes(u.shape, v.shape), np.float32)
    for place, height in (((0.0, 0.2), 0.12), ((0.17, 0.26), 0.3), ((-0.17, 0.26), 0.3)):
        at = np.array(place) * long + rng.normal(0, 0.01, 2)
        radius = rng.uniform(0.015, 0.04) - 0.12 * abs(level - height)
        if radius > 0:
            specks = np.maximum(specks, step(np.hypot(u - at[0], v - at[1]), radius + pixel, radius - pixel))
    return specks
