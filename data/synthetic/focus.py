"""Synthetic pictures of one scene, focused on the nearest part, on the farthest part and in between."""

from dataclasses import dataclass

import numpy as np

from ..images import Pixels
from .canvas import Floats
from .fields import disc_blur, field, quantise
from .shapes import box, capsule, cover, grid, local, paint, tinted
from .textures import any_texture, boards, bricks, cloth, leaves, printed, stone
from .views import facade, landscape

_SLICES = 3  # into which a receding table is cut for its blur


@dataclass(frozen=True)
class Layer:
    """A part of the scene, sharp and whole even where nearer parts hide it.

    Attributes:
        colour: Colour (3, H, W), linear in light.
        share: Share of each pixel that the part covers, (H, W) in [0, 1].
        nearness: Inverse distance, 1 for the nearest and 0 for the farthest part; (H, W) for a part that recedes.
    """

    colour: Floats
    share: Floats
    nearness: float | Floats


def make_focus(seed: int | list[int], *, height: int = 128, width: int = 128) -> tuple[Pixels, Pixels]:
    """Photograph a scene in depth twice, in at least 32 × 32 pixels, with a lens wide open.

    As behind a thin lens, parts out of focus are blurred by a disc with a radius proportional to the difference of the
    inverse distances. Each part is blurred before it covers the parts behind it. So the blurred edge of a near part is
    transparent, and its sharp edge hides the blur behind it.

    Returns:
        The picture focused on the nearest part and the picture focused on the farthest part, (H, W, 3) uint8 each.

    Example:
        >>> near, far = make_focus(0, height=32, width=48)
        >>> near.shape, near.dtype
        ((32, 48, 3), dtype('uint8'))
    """
    near, far, _ = make_focus_with_truth(seed, height=height, width=width)
    return near, far


def make_focus_with_truth(
    seed: int | list[int], *, height: int = 128, width: int = 128
) -> tuple[Pixels, Pixels, Pixels]:
    """Photograph the scene of `make_focus` a third time, with the lens stopped down, so that all of it is sharp.

    Returns:
        The pictures focused on the nearest and on the farthest part, and the sharp one, which has no noise; (H, W, 3)
        uint8 each.

    Example:
        >>> *_, sharp = make_focus_with_truth(0, height=32, width=48)
        >>> sharp.shape
        (32, 48, 3)
    """
    near, far, sharp = make_focus_stack(seed, 2, height=height, width=width)
    return near, far, sharp


def make_focus_stack(
    seed: int | list[int], count: int = 3, *, height: int = 128, width: int = 128
) -> tuple[Pixels, ...]:
    """Photograph the scene of `make_focus` with the focus on further planes between the nearest and the farthest part.

    Args:
        count: Number of focal planes, at least 2, evenly spread in inverse distance.

    Returns:
        The pictures from the nearest to the farthest plane, and last the sharp one, (H, W, 3) uint8 each; the others
        than those in between are those of `make_focus_with_truth`.

    Example:
        >>> near, mid, far, sharp = make_focus_stack(0, height=32, width=48)
        >>> mid.shape
        (32, 48, 3)
    """
    rng = np.random.default_rng(seed)
    layers = arrange(rng, height, width)
    aperture = rng.uniform(0.018, 0.036) * min(height, width)
    near, far, sharp = (_through_lens(layers, *lens) for lens in ((1.0, aperture), (0.0, aperture), (0.0, 0.0)))
    between = [_through_lens(layers, float(focus), aperture) for focus in np.linspace(1, 0, count)[1:-1]]
    exposure = rng.uniform(0.75, 1.0) / np.percentile(far, 97)
    gamma, noise = rng.uniform(1.9, 2.3), rng.uniform(0.002, 0.008)

    def develop(picture: Floats, noise: float) -> Pixels:
        grain = noise * rng.standard_normal(picture.shape, np.float32)
        tone = np.clip(exposure * picture, 0, 1) ** (1 / gamma) + grain
        return np.ascontiguousarray(quantise(tone).transpose(1, 2, 0))

    developed = develop(near, noise), develop(far, noise), develop(sharp, 0)
    return developed[0], *(develop(picture, noise) for picture in between), *developed[1:]


def arrange(rng: np.random.Generator, height: int, width: int) -> list[Layer]:
    """Put objects at two or three distances before a background.

    Returns:
        The parts of the scene, from far to near; the first one fills the picture, at nearness 0.
    """
    u, v, pixel = grid(height, width)
    layers = [Layer(_background(rng, u, v, pixel), np.ones_like(u), 0.0)]
    edge = height * pixel / 2  # of the picture, below
    if rng.random() < 0.4:
        layers.append(_table(rng, u, v, pixel, edge))
    side = width * pixel / 2
    if rng.random() < 0.5:
        layers.append(_objects(rng, u, v, pixel, [rng.uniform(-0.7, 0.7) * side], 0.16, rng.uniform(0.25, 0.5)))
    count = int(rng.integers(1, 4))
    places = (np.linspace(-0.6, 0.6, count) if count > 1 else rng.uniform(-0.5, 0.5, 1)) + rng.normal(0, 0.1, count)
    layers.append(
        _objects(rng, u, v, pixel, [place * side for place in places], rng.uniform(0.32, 0.46) / count**0.5, 1.0)
    )
    return layers


def _through_lens(layers: list[Layer], focus: float, aperture: float) -> Floats:
    """Blur the parts and lay them over each other: (3, H, W)."""
    picture = disc_blur(layers[0].colour, aperture * focus)
    for layer in layers[1:]:
        stack = np.concatenate([layer.colour * layer.share, layer.share[None]])
        if isinstance(layer.nearness, float):
            seen = disc_blur(stack, aperture * abs(layer.nearness - focus))
        else:
            seen = np.zeros_like(stack)
            for node in (piece / (_SLICES - 1) for piece in range(_SLICES)):
                hat = np.maximum(1 - np.abs(layer.nearness - node) * (_SLICES - 1), 0)
                seen += disc_blur(stack * hat, aperture * abs(node - focus))
            seen /= np.maximum(seen[3], 1)
        picture = picture * (1 - seen[3]) + seen[:3]
    return np.maximum(picture, 0)


def _background(rng: np.random.Generator, u: Floats, v: Floats, pixel: float) -> Floats:
    kind = rng.random()
    if kind < 0.3:
        return landscape(rng, u, v, pixel)
    if kind < 0.5:
        return facade(rng, u, v, pixel)[0] * (1 + 0.3 * field(rng, u.shape, 2, 2)).clip(0.3)
    picture = any_texture(rng)(rng, u, v, pixel) * (1 + 0.3 * field(rng, u.shape, 2, 2)).clip(0.3)
    for _ in range(rng.integers(4)):  # pictures and notices, to have edges of every strength
        x, y = local(u, v, (rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4)), rng.normal(0, 0.05))
        half = rng.uniform(0.08, 0.2), rng.uniform(0.08, 0.2)
        paint(
            picture, tinted(rng, rng.uniform(0.05, 0.6), 0.4), cover(box(x, y, half[0] + 0.015, half[1] + 0.015), pixel)
        )
        paint(picture, any_texture(rng)(rng, x, y, pixel), cover(box(x, y, *half), pixel))
    return picture


def _table(rng: np.random.Generator, u: Floats, v: Floats, pixel: float, edge: float) -> Layer:
    """Paint a table or a floor from the background to the lower edge of the picture."""
    top = rng.uniform(0.0, 0.25) * edge
    nearness = np.clip((v - top) / (edge - top), 0, 1)
    depth = 1 / (0.35 + nearness)
    texture = (boards, cloth, stone)[rng.integers(3)]
    colour = texture(rng, u * depth, 1.2 * depth, pixel * 2)
    return Layer(colour * (0.6 + 0.4 * nearness), cover(top - v, pixel), nearness)


def _objects(
    rng: np.random.Generator, u: Floats, v: Floats, pixel: float, places: list[float], size: float, nearness: float
) -> Layer:
    """Paint objects at one distance, side by side at `places`."""
    colour, share = np.zeros((3, *u.shape), np.float32), np.zeros_like(u)
    for place in places:
        kind = (_card, _ball, _flower, _plant, _post)[rng.integers(5)]
        big = size * rng.uniform(0.8, 1.15)
        at = (place, rng.uniform(-0.1, 0.3) * (1 - big))
        painted, covered = kind(rng, *local(u, v, at, rng.normal(0, 0.12)), pixel, big)
        paint(colour, painted, covered)
        share = np.maximum(share, covered)
    # `colour` was black where nothing was painted: undo that at soft edges.
    return Layer(np.asarray(colour / np.maximum(share, 1e-3), np.float32), share, nearness)


_Painted = tuple[Floats, Floats]


def _card(rng: np.random.Generator, x: Floats, y: Floats, pixel: float, size: float) -> _Painted:
    """Paint a book, a box or a sign: a border, a picture and lettering."""
    half = size * rng.uniform(0.55, 0.9), size * rng.uniform(0.6, 1.0)
    colour = np.broadcast_to(tinted(rng, rng.uniform(0.1, 0.5), 0.6)[:, None, None], (3, *x.shape)).copy()
    paint(colour, printed(rng, x, y, pixel), cover(box(x, y, 0.86 * half[0], 0.88 * half[1]), pixel))
    inner = cover(box(x, y + 0.3 * half[1], 0.7 * half[0], 0.4 * half[1]), pixel)
    paint(colour, any_texture(rng)(rng, x, y, pixel), inner)
    return colour * (1 + 0.3 * x / half[0]).clip(0.5, 1.5), cover(box(x, y, *half, 0.08 * size), pixel)


def _ball(rng: np.random.Generator, x: Floats, y: Floats, pixel: float, size: float) -> _Painted:
    """Paint a ball in cloth or stone, lit from above on one side."""
    radius = 0.75 * size
    bulge = np.asarray(np.sqrt(np.maximum(1 - (x * x + y * y) / radius**2, 0)), np.float32)
    side = float(rng.choice([-1, 1]))
    light = 0.25 + 0.85 * np.maximum(0.5 * (side * x - y) / radius + 0.7 * bulge, 0)
    curved = np.asarray(1.35 - 0.35 * bulge, np.float32)
    colour = (cloth if rng.random() < 0.6 else stone)(rng, x * curved, y * curved, pixel) * light
    return np.asarray(colour, np.float32), cover(np.hypot(x, y) - radius, pixel)


def _flower(rng: np.random.Generator, x: Floats, y: Floats, pixel: float, size: float) -> _Painted:
    """Paint a flower with veined petals on its stem."""
    petals, far = int(rng.integers(5, 12)), np.hypot(x, y)
    turn = np.arctan2(y, x) * petals / 2
    lobe = np.abs(np.cos(turn))
    veins = 1 + 0.2 * np.cos(9 * np.arcsin(np.sin(turn)))
    tone = veins * (0.45 + 0.55 * lobe) * (0.5 + 0.6 * far / size)
    colour = tinted(rng, 0.45, 0.8)[:, None, None] * tone
    blossom = cover(far - size * (0.5 + 0.35 * lobe**0.7), pixel)
    stem = cover(capsule(x, y, (0.0, 0.0), (0.1 * size, 4.0), 0.07 * size), pixel)
    green = tinted(rng, 0.12, 0.6, 0.3)[:, None, None] * (1 + 4 * x / size).clip(0.4, 1.6)
    picture = np.where(blossom > 0, colour, green).astype(np.float32)
    seeds = tinted(rng, 0.3, 0.8, 0.13)[:, None, None] * (1 + 0.5 * np.sin(70 * x / size) * np.sin(70 * y / size))
    paint(picture, seeds, cover(far - 0.2 * size, pixel))
    return picture, np.maximum(blossom, stem)


def _plant(rng: np.random.Generator, x: Floats, y: Floats, pixel: float, size: float) -> _Painted:
    """Paint a bush in a pot."""
    bush = np.hypot(x, 1.1 * (y + 0.4 * size)) - 0.65 * size + 0.07 * size * field(rng, x.shape, 24, 24)
    colour = leaves(rng, x, y, pixel) * (1 - 0.6 * y / size).clip(0.3, 1.8)
    wide = 0.4 * size - 0.15 * (y - 0.5 * size)
    pot = cover(np.maximum(np.abs(x) - wide, np.abs(y - 0.55 * size) - 0.35 * size), pixel)
    clay = tinted(rng, rng.uniform(0.15, 0.6), 0.5, 0.05)[:, None, None] * (1 - 1.2 * x / size).clip(0.2, 1.6)
    picture = clay * (1 + 0.2 * cover(np.abs(y - 0.28 * size) - 0.06 * size, pixel))
    green = cover(bush, pixel)
    paint(picture, colour, green)
    return picture, np.maximum(green, pot)


def _post(rng: np.random.Generator, x: Floats, y: Floats, pixel: float, size: float) -> _Painted:
    """Paint a post or a pillar that rises from the lower edge of the picture."""
    wide, top = size * rng.uniform(0.25, 0.8), -size * rng.uniform(0.2, 1.5)
    texture = (stone, boards, bricks)[rng.integers(3)]
    colour = texture(rng, x, y, pixel) * (1 + 0.5 * float(rng.choice([-1, 1])) * x / wide).clip(0.4, 1.6)
    return colour, cover(box(x, y - top - 2, wide, 2.0, 0.02), pixel)
