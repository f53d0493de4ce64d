"""The background of a picture: landscapes and fronts of houses, in colour and linear in light."""

import numpy as np

from .canvas import Floats
from .fields import field, step
from .shapes import box, cover, paint, tinted
from .textures import boards, bricks, leaves, stone


def landscape(rng: np.random.Generator, u: Floats, v: Floats, pixel: float, *, ground: float = 1.0) -> Floats:
    """Paint sky, clouds, ranges of hills and trees: (3, H, W), about 1 in a bright sky.

    Args:
        u: Coordinates (H, W) to the right, in units of the picture's shorter side.
        v: Coordinates (H, W) downwards, in the same units.
        ground: Light on everything but the sky, 1 in daylight.
    """
    height, width = u.shape
    horizon = rng.uniform(-0.1, 0.2)
    up = np.clip((horizon - v) / 0.7, 0, 1)
    evening = rng.random() < 0.4
    zenith = tinted(rng, rng.uniform(0.25, 0.5), rng.uniform(0.3, 0.7), 0.6)
    low = tinted(rng, rng.uniform(0.7, 1.0), 0.45 if evening else 0.08, 0.09 if evening else 0.6)
    picture = low[:, None, None] + up * (zenith - low)[:, None, None]
    drift = (
        field(rng, (height, width), 6, 3)
        + 0.5 * field(rng, (height, width), 14, 8)
        + 0.25 * field(rng, (height, width), 30, 20)
    )
    white = tinted(rng, rng.uniform(0.8, 1.1), 0.15 if evening else 0.0, 0.08)
    paint(picture, white, 0.85 * step(drift, rng.uniform(-0.3, 0.6), 1.8))
    if rng.random() < 0.5:
        far = np.hypot(u - rng.uniform(-0.4, 0.4), v - horizon + rng.uniform(0.02, 0.3))
        glow = 0.25 * np.exp(-far / 0.12) + 3 * cover(far - 0.03, 0.02)
        picture += glow * np.array([1.0, 0.8, 0.5], np.float32)[:, None, None]
    ranges = int(rng.integers(1, 4))
    for near in range(1, ranges + 1):
        ridge = field(rng, (1, width), 1, 4)[0] + 0.3 * field(rng, (1, width), 1, 16)[0]
        line = horizon + 0.22 * (near - 1) / ranges - 0.06 * ridge
        rough = field(rng, (height, width), height // 3, width // 3)
        haze = 0.6 * (1 - near / ranges)
        hill = tinted(rng, 0.1, 0.5, 0.3)[:, None, None] * np.maximum(1 + 0.35 * rough, 0.1) * ground
        share = cover(line - v - 0.006 * near * rough, pixel)
        paint(picture, hill + haze * (0.5 * low[:, None, None] * ground - hill), share)
    if rng.random() < 0.6:
        wood = horizon + rng.uniform(0.02, 0.15) - 0.05 * field(rng, (1, width), 1, 12)[0]
        crowns = field(rng, (height, width), height // 4, width // 4)
        paint(picture, leaves(rng, u, v, pixel) * ground, cover(wood - v - 0.02 * crowns, pixel))
    return np.maximum(picture, 0)


def facade(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> tuple[Floats, Floats]:
    """Paint the front of a house.

    Args:
        u: Coordinates (H, W) to the right, in units of the picture's shorter side.
        v: Coordinates (H, W) downwards, in the same units.

    Returns:
        Its reflectance, (3, H, W), and the share of window glass in each pixel, (H, W).
    """
    wall = (bricks, stone, boards)[rng.integers(3)]
    picture = wall(rng, u, v, pixel)
    wide, tall = rng.uniform(0.22, 0.4), rng.uniform(0.28, 0.42)
    x = (u / wide + rng.random()) % 1 - 0.5
    y = (v / tall + rng.random()) % 1 - 0.5
    half = rng.uniform(0.22, 0.32) * wide, rng.uniform(0.26, 0.34) * tall
    outer = box(x * wide, y * tall, *half)
    bar = max(0.008, pixel)
    frame = tinted(rng, rng.uniform(0.3, 0.7), 0.2)
    sill = box(x * wide, y * tall - half[1] - 0.02, half[0] + 0.02, 0.012)
    paint(picture, frame, np.maximum(cover(outer - 0.012, pixel), cover(sill, pixel)))
    bars = np.minimum(np.abs(x * wide), np.abs(y * tall + 0.3 * half[1])) - bar / 2
    glass = cover(outer, pixel) * (1 - cover(bars, pixel))
    paint(picture, np.full(3, 0.05), glass)
    return picture, glass
