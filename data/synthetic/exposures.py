"""Synthetic pictures of one scene of high dynamic range, exposed for its lights, for its shadows and in between."""

import numpy as np

from ..images import Pixels
from .canvas import Floats
from .fields import field, gaussian_blur, quantise, step
from .shapes import box, capsule, cover, grid, local, paint, tinted
from .textures import any_texture, boards, bricks, cloth, printed, stone
from .views import facade, landscape


def make_exposures(seed: int | list[int], *, height: int = 128, width: int = 128) -> tuple[Pixels, Pixels]:
    """Photograph a scene of high contrast, in at least 32 × 32 pixels, with a short and with a long exposure.

    Returns:
        The underexposed picture with black shadows, and the overexposed one with clipped lights; (H, W, 3) uint8 each.

    Example:
        >>> under, over = make_exposures(0, height=32, width=48)
        >>> under.shape, bool(under.mean() < over.mean())
        ((32, 48, 3), True)
    """
    under, over = make_exposure_stack(seed, 2, height=height, width=width)
    return under, over


def make_exposure_stack(
    seed: int | list[int], count: int = 3, *, height: int = 128, width: int = 128
) -> tuple[Pixels, ...]:
    """Photograph the scene of `make_exposures` with further exposures between the short and the long one.

    Args:
        count: Number of exposures, at least 2; each is longer than the one before by the same factor.

    Returns:
        The pictures from the shortest to the longest exposure, (H, W, 3) uint8 each; the first and the last one are
        those of `make_exposures`.

    Example:
        >>> stack = make_exposure_stack(0, height=32, width=48)
        >>> [bool(darker.mean() < brighter.mean()) for darker, brighter in zip(stack, stack[1:])]
        [True, True]
    """
    rng = np.random.default_rng(seed)
    kind = (_room, _room, _gate, _evening, _evening, _shade, _night)[rng.integers(7)]
    radiance = kind(rng, *grid(height, width))
    glare = gaussian_blur(radiance, 0.06 * min(height, width))  # light strays within the lens
    radiance = np.maximum(radiance + rng.uniform(0.001, 0.004) * glare, 0)
    level = radiance.mean(0)
    short = rng.uniform(0.5, 0.95) / np.percentile(level, 99.5)
    long = rng.uniform(0.12, 0.35) / max(float(np.percentile(level, rng.uniform(15, 35))), 1e-4)
    long = short * float(np.clip(long / short, 8, 80))
    contrast, gamma = rng.uniform(0, 0.4), rng.uniform(2.0, 2.4)
    shot, dark = rng.uniform(0.004, 0.015), rng.uniform(0.0005, 0.002)

    def expose(time: float) -> Pixels:
        light = time * radiance
        noise = rng.standard_normal(light.shape, np.float32)
        signal = np.clip(light + noise * (shot * np.sqrt(np.minimum(light, 1)) + dark), 0, 1) ** (1 / gamma)
        tone = signal + contrast * signal * (1 - signal) * (2 * signal - 1)  # the S of a camera's response
        return np.ascontiguousarray(quantise(tone).transpose(1, 2, 0))

    under, over = expose(short), expose(long)
    return under, *map(expose, np.geomspace(short, long, count)[1:-1]), over


def _room(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Paint a dim room with a view through its window."""
    edge = v[-1, 0]
    picture = (stone, boards, cloth, bricks)[rng.integers(4)](rng, u, v, pixel)
    floor = rng.uniform(0.45, 0.75) * edge
    depth = 1 / (0.3 + np.maximum(v - floor, 0) / edge)
    paint(picture, (boards, cloth, stone)[rng.integers(3)](rng, u * depth, depth, 2 * pixel), cover(floor - v, pixel))
    paint(picture, tinted(rng, 0.4, 0.2), cover(np.abs(v - floor) - 0.012, pixel))  # skirting
    middle = rng.uniform(-0.35, 0.35) * u[0, -1] * 2, rng.uniform(-0.25, 0.0)
    half = rng.uniform(0.14, 0.3), rng.uniform(0.16, 0.28)
    x, y = local(u, v, middle)
    _furnish(rng, picture, u, v, pixel, floor, away=middle[0])
    light = 0.03 + 0.12 / (1 + (box(x, y, *half).clip(0) / 0.15) ** 2)
    light = light * (1 + 0.15 * field(rng, u.shape, 3, 3)) * rng.uniform(0.4, 1.2)
    sun = box(x + 0.5 * (y - 0.6) * float(rng.choice([-1, 1])), y - rng.uniform(0.45, 0.7), half[0], 0.12)
    picture *= light + (0.7 * cover(sun, 2 * pixel) if rng.random() < 0.5 else 0)
    bar = max(0.01, 1.5 * pixel)
    frame = cover(box(x, y, half[0] + 0.03, half[1] + 0.03), pixel)
    panes = rng.integers(1, 3)
    bars = np.abs((x / half[0] + 1) * panes % 1 - 0.5) * half[0] / panes if panes > 1 else np.abs(x) + 1
    glass = cover(box(x, y, *half), pixel) * (1 - cover(np.minimum(bars, np.abs(y)) - bar / 2, pixel))
    paint(picture, tinted(rng, 0.06, 0.2), frame)
    paint(picture, rng.uniform(2, 6) * landscape(rng, x, y * 1.5, pixel), glass)
    return picture


def _furnish(
    rng: np.random.Generator, picture: Floats, u: Floats, v: Floats, pixel: float, floor: float, away: float
) -> None:
    """Put cupboards on the floor and pictures on the wall, beside the window."""
    for _ in range(rng.integers(1, 4)):
        wide, tall = rng.uniform(0.08, 0.2), rng.uniform(0.1, 0.3)
        place = away + float(rng.choice([-1, 1])) * rng.uniform(0.3, 0.8)
        x, y = local(u, v, (place, floor + 0.06 - tall))
        paint(picture, (boards, cloth)[rng.integers(2)](rng, x, y, pixel), cover(box(x, y, wide, tall, 0.01), pixel))
        for line in (-0.4, 0.2):
            paint(picture, np.full(3, 0.03), cover(np.abs(y - line * tall) - 0.004, pixel) * (np.abs(x) < wide))
    for _ in range(rng.integers(3)):
        x, y = local(u, v, (away + float(rng.choice([-1, 1])) * rng.uniform(0.35, 0.8), rng.uniform(-0.35, -0.1)))
        half = rng.uniform(0.06, 0.13), rng.uniform(0.06, 0.13)
        paint(picture, tinted(rng, 0.2, 0.4), cover(box(x, y, half[0] + 0.015, half[1] + 0.015), pixel))
        paint(picture, any_texture(rng)(rng, x, y, pixel), cover(box(x, y, *half), pixel))


def _gate(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Paint a sunlit wall with an open gate and things in the dark behind it."""
    wall = (bricks, stone, boards)[rng.integers(3)](rng, u, v, pixel)
    shadow = step(u * float(rng.choice([-1, 1])) + 0.6 * v, rng.uniform(0.2, 0.5), rng.uniform(0.52, 0.6))
    picture = wall * (1 - 0.75 * shadow)
    inside = any_texture(rng)(rng, u, v, pixel)
    for _ in range(rng.integers(2, 5)):
        x, y = local(u, v, (rng.uniform(-0.3, 0.3), rng.uniform(-0.1, 0.5)), rng.normal(0, 0.1))
        half = rng.uniform(0.05, 0.13), rng.uniform(0.08, 0.2)
        paint(inside, any_texture(rng)(rng, x, y, pixel), cover(box(x, y, *half, 0.03), pixel))
    place, wide, top = rng.uniform(-0.15, 0.15), rng.uniform(0.2, 0.32), rng.uniform(-0.25, 0.0)
    opening = capsule(u - place, v, (0, top + wide / 2), (0, 3), wide)
    paint(picture, 0.5 * wall + 0.15, cover(opening - 0.05, pixel))
    paint(picture, inside * rng.uniform(0.006, 0.025) * (1 - v).clip(0.4, 1.6), cover(opening, pixel))
    return picture


def _evening(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Paint dark land under a bright sky."""
    picture = landscape(rng, u, v, pixel, ground=rng.uniform(0.04, 0.15))
    if rng.random() < 0.6:  # a house in the shadow of the foreground
        front, glass = facade(rng, u, v, pixel)
        wide, top = rng.uniform(0.15, 0.35), rng.uniform(-0.15, 0.1)
        x = u - rng.uniform(-0.5, 0.5)
        body = np.maximum(np.abs(x) - wide, top - v)
        roof = np.maximum(np.abs(x) * 0.6 - (v - top + 0.35 * wide * 2), v - top)
        dim = rng.uniform(0.02, 0.08)
        lit = glass * (0.25 if rng.random() < 0.5 else 0.0)
        warm = np.array([1.0, 0.65, 0.3], np.float32)[:, None, None]
        paint(picture, front * dim + lit * warm, cover(body, pixel))
        paint(picture, bricks(rng, u, v, pixel) * dim * 0.7, cover(roof, pixel))
    return picture


def _shade(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Paint a street front in the shade beside a bright sky."""
    picture = 1.5 * landscape(rng, u, v, pixel, ground=0.3)
    front, _ = facade(rng, u, v, pixel)
    side = float(rng.choice([-1, 1]))
    slope, edge = rng.uniform(0.2, 0.5), rng.uniform(-0.15, 0.2)
    house = cover(np.maximum(side * u - edge, -v - 0.5 + slope * (side * u + 0.5)), pixel)
    paint(picture, front * rng.uniform(0.03, 0.12) * (1 + 0.4 * v), house)
    ground = rng.uniform(0.2, 0.4)
    depth = 1 / (0.2 + np.maximum(v - ground, 0))
    paint(picture, stone(rng, u * depth, depth, pixel) * 0.12, cover(ground - v, pixel))
    return picture


def _night(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    """Paint lit windows and a sign in a dark street."""
    front, glass = facade(rng, u, v, pixel)
    lamp = rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.0)
    far = np.hypot(u - lamp[0], v - lamp[1])
    picture = front * (0.006 + 0.12 / (1 + (far / 0.12) ** 2))
    inside = printed(rng, u, v, pixel) if rng.random() < 0.4 else any_texture(rng)(rng, u, v, pixel)
    warm = tinted(rng, rng.uniform(0.6, 1.6), 0.4, 0.1)[:, None, None]
    paint(picture, inside * warm, glass)
    x, y = local(u, v, (rng.uniform(-0.3, 0.3), rng.uniform(-0.4, 0.3)))
    sign = cover(box(x, y, rng.uniform(0.12, 0.3), rng.uniform(0.05, 0.1)), pixel)
    paint(picture, printed(rng, x, y, pixel) * tinted(rng, 2.0, 0.7)[:, None, None], sign)
    ground = rng.uniform(0.25, 0.45)
    depth = 1 / (0.2 + np.maximum(v - ground, 0))
    road = stone(rng, u * depth, depth, pixel) * (0.004 + 0.05 / (1 + (far / 0.25) ** 2))
    paint(picture, road, cover(ground - v, pixel))
    return picture + 3 * cover(far - 0.02, pixel)
