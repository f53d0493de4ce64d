"""Surfaces in colour: walls, wood, cloth, print and leaves, fine enough to show blur and lack of light.

Each texture takes a generator, the coordinates u and v of the pixels, (H, W) in units of the picture's shorter side,
and the size of a pixel in these units. It returns the reflectance, (3, H, W).
"""

from collections.abc import Callable

import numpy as np

from .canvas import Floats
from .fields import field
from .shapes import local, tinted

Texture = Callable[[np.random.Generator, Floats, Floats, float], Floats]


def bricks(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Make rows of bricks, each with its own tone, between lighter mortar."""
    tall = max(rng.uniform(0.03, 0.06), 4 * pixel)
    wide, joint = tall * rng.uniform(1.9, 2.6), 0.12 * tall
    row = np.floor(v / tall)
    across = u / wide + 0.5 * (row % 2)
    column = np.floor(across)
    edge = np.minimum(_to_edge(v / tall) * tall, _to_edge(across) * wide)
    mortar = np.clip(0.5 - (edge - joint / 2) / pixel, 0, 1)
    tones = rng.uniform(0.65, 1.25, (64, 64)).astype(np.float32)
    tone = tones[row.astype(np.intp) & 63, column.astype(np.intp) & 63]
    grain = 1 + 0.1 * _grain(rng, u.shape, 2)
    face = tinted(rng, rng.uniform(0.12, 0.35), rng.uniform(0.3, 0.7), 0.03)[:, None, None] * tone
    return (face + mortar * (rng.uniform(0.35, 0.6) - face)) * grain


def boards(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Make planks with grain along them."""
    wide = max(rng.uniform(0.07, 0.16), 6 * pixel)
    if rng.random() < 0.5:
        u, v = v, u
    plank = np.floor(u / wide)
    gap = np.clip(0.5 - (_to_edge(u / wide) * wide - 0.004) / pixel, 0, 1)
    tones = rng.uniform(0.75, 1.2, 64).astype(np.float32)
    shift = rng.uniform(0, 9, 64).astype(np.float32)[plank.astype(np.intp) & 63]
    rings = rng.uniform(0.2, 0.35) / max(pixel, 0.004)
    wave = np.sin(rings * (u + 0.03 * np.sin(5 * v + shift)) + shift + 0.6 * field(rng, u.shape, 4, 4))
    tone = tones[plank.astype(np.intp) & 63] * (1 + 0.2 * wave) * (1 - 0.7 * gap) * (1 + 0.06 * _grain(rng, u.shape, 2))
    return tinted(rng, rng.uniform(0.12, 0.4), rng.uniform(0.3, 0.6), 0.08)[:, None, None] * tone


def stone(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Make rough plaster or rock, uneven at every scale."""
    rough = sum(_grain(rng, u.shape, size) * share for size, share in ((2, 0.5), (5, 0.5), (16, 0.6), (48, 0.5)))
    tone = np.maximum(1 + rng.uniform(0.12, 0.3) * rough, 0.15)
    return tinted(rng, rng.uniform(0.2, 0.5), rng.uniform(0.05, 0.35), 0.1)[:, None, None] * tone


def cloth(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Make checks or stripes in two or three colours."""
    period = max(rng.uniform(0.04, 0.12), 6 * pixel)
    sharp = period / pixel / 6
    down, across = (np.clip(0.5 + sharp * np.sin(2 * np.pi * place / period), 0, 1) for place in (v, u))
    first, second, third = (tinted(rng, rng.uniform(0.08, 0.6), rng.uniform(0.2, 0.9))[:, None, None] for _ in range(3))
    plain = first + across * (second - first)
    checked = plain + 0.5 * down * (third - plain)
    return (checked if rng.random() < 0.6 else plain) * (1 + 0.08 * _grain(rng, u.shape, 2))


def printed(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Make lines that look like lettering, sometimes with a headline and a picture."""
    line = max(rng.uniform(0.025, 0.05), 5 * pixel)
    row, within = np.floor(v / line), v / line - np.floor(v / line)
    letter = 0.35 * line
    stroke = (u / letter + 0.15 * np.sin(9 * row)).astype(np.float32)
    marks = rng.uniform(0, 1, (64, 256)).astype(np.float32)
    column = np.floor(2.5 * stroke).astype(np.intp)
    kind = marks[row.astype(np.intp) & 63, column & 255]
    word = marks[(row.astype(np.intp) + 31) & 63, (column // 9) & 255] > 0.15  # gaps between words
    low = np.where(kind < 0.3, np.float32(0.5), np.float32(0.25))
    high = np.where(kind > 0.6, np.float32(0.55), np.float32(0.75))
    ink = np.clip(0.5 + line / pixel * np.minimum(within - low, high - within), 0, 1) * word * (kind > 0.22)
    page = tinted(rng, rng.uniform(0.5, 0.8), rng.uniform(0, 0.3))
    dark = tinted(rng, rng.uniform(0.02, 0.12), rng.uniform(0, 0.6))
    if rng.random() < 0.4:
        page, dark = dark, page
    return (page[:, None, None] + ink * (dark - page)[:, None, None]) * (1 + 0.03 * _grain(rng, u.shape, 3))


def leaves(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Make dense foliage: leaves at random angles, each with a vein, over shade."""
    shape = u.shape
    picture = np.broadcast_to(tinted(rng, 0.03, 0.4, 0.33)[:, None, None], (3, *shape)).copy()
    hue = rng.uniform(0.22, 0.36)
    size = max(rng.uniform(0.035, 0.08), 5 * pixel)
    shade = np.maximum(1 + 0.35 * field(rng, shape, 5, 5), 0.3)
    for layer in range(4):  # each a grid of leaves that do not touch, turned its own way
        across, down = local(u / size, v / size, tuple(rng.uniform(0, 64, 2)), rng.uniform(0, 6.28))
        row, column = np.floor(down), np.floor(across)
        leaf = (row.astype(np.intp) & 31, column.astype(np.intp) & 31)
        cosine, sine, tone, length, right, below = _draw_leaves(rng)[:, *leaf]
        x, y = across - column - 0.5 - right, down - row - 0.5 - below
        along, aside = cosine * x + sine * y, np.abs(cosine * y - sine * x)
        edge = aside - 0.42 * (length - along * along / length)
        share = np.clip(0.5 - edge * size / pixel, 0, 1)
        vein = np.clip(1 - aside * size / pixel, 0, 1)
        light = tone * (0.55 + 0.15 * layer) * shade * (1 + 0.5 * vein) * (1 + 0.5 * along)
        colour = tinted(rng, 0.16, 0.65, hue)[:, None, None] * light
        picture += share * (colour - picture)
    return picture


def _draw_leaves(rng: np.random.Generator) -> Floats:
    """Draw direction (two numbers), tone, half length and place of the leaf of each grid cell: (6, 32, 32)."""
    angle, tone, length, right, below = rng.uniform(0, 1, (5, 32, 32))
    length = 0.32 + 0.16 * length
    room = 0.5 - length  # for its middle to move without leaving the cell
    place = [room * (2 * right - 1), room * (2 * below - 1)]
    angle = 2 * np.pi * angle
    return np.stack([np.cos(angle), np.sin(angle), 0.5 + tone, length, *place]).astype(np.float32)


def any_texture(rng: np.random.Generator) -> Texture:
    """Draw one of the textures."""
    return (bricks, boards, stone, cloth, printed, leaves)[rng.integers(6)]


def _to_edge(place: Floats) -> Floats:
    """Compute the distance to the nearest whole number."""
    return np.abs(place - np.rint(place))


def _grain(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> Floats:
    """Draw a Gaussian field with waves about `size` pixels long."""
    return field(rng, shape, max(1, shape[0] * 2 // (size * 3)), max(1, shape[1] * 2 // (size * 3)))
