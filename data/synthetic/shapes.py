"""Flat shapes with soft edges, and how to paint them over a picture in colour."""

import numpy as np
from numpy.typing import NDArray

from .canvas import Floats


def grid(height: int, width: int) -> tuple[Floats, Floats, float]:
    """Make the pixel coordinates u to the right and v down, (H, W) each, 0 in the middle, and the pixel size."""
    short = min(height, width)
    v = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / short
    u = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / short
    return np.tile(u, (height, 1)), np.tile(v[:, None], (1, width)), 1 / short


def local(u: Floats, v: Floats, place: tuple[float, float], angle: float = 0.0) -> tuple[Floats, Floats]:
    """Transform coordinates to a place, turned clockwise by an angle in radians."""
    right, down = u - np.float32(place[0]), v - np.float32(place[1])
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * right + sine * down, cosine * down - sine * right


def box(u: Floats, v: Floats, half_width: float, half_height: float, corner: float = 0.0) -> Floats:
    """Compute the signed distance to a box around the origin with round corners."""
    right, down = np.abs(u) - (half_width - corner), np.abs(v) - (half_height - corner)
    outside = np.hypot(np.maximum(right, 0), np.maximum(down, 0))
    return np.asarray(outside + np.minimum(np.maximum(right, down), 0) - corner, np.float32)


def capsule(u: Floats, v: Floats, start: tuple[float, float], end: tuple[float, float], radius: float) -> Floats:
    """Compute the signed distance to a line with round ends; a negative radius gives an empty shape."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / (du * du + dv * dv), 0, 1)
    return np.asarray(np.hypot(u - start[0] - along * du, v - start[1] - along * dv) - radius, np.float32)


def cover(distance: NDArray[np.floating], pixel: float) -> Floats:
    """Compute the share of each pixel that a shape covers, in [0, 1], from its signed distance."""
    return np.asarray(np.clip(0.5 - distance / pixel, 0, 1), np.float32)


def paint(picture: Floats, colour: NDArray[np.floating], share: Floats) -> None:
    """Paint a colour (3, H, W) or (3,) over a share (H, W) in [0, 1] of each pixel of a picture (3, H, W), in place."""
    colour = np.asarray(colour, np.float32)
    picture += share * ((colour if colour.ndim == 3 else colour[:, None, None]) - picture)


def tinted(rng: np.random.Generator, brightness: float, saturation: float, hue: float | None = None) -> Floats:
    """Draw a colour (3,), linear in light.

    Args:
        brightness: Mean of the colour over red, green and blue.
        saturation: Saturation in [0, 1], 0 for grey.
        hue: Hue from 0 for red over 1/3 for green to 2/3 for blue; None for any hue.
    """
    turn = rng.random() if hue is None else hue + rng.normal(0, 0.02)
    pure = 1 + np.cos(2 * np.pi * (turn - np.arange(3) / 3))
    return np.asarray(brightness * (1 + saturation * (pure - 1)), np.float32)
