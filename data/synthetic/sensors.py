"""The two cameras of a street scene: a soft, noisy infrared image and an exposed visible one."""

import numpy as np
from numpy.typing import NDArray

from .canvas import Floats, smooth_noise
from .fields import quantise
from .street import Weather

Light = tuple[float, float, float]  # column and row in pixels of the finished image, strength


def infrared_image(temperature: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn temperatures (H, W) in degrees Celsius into the 8-bit image of a microbolometer; hot is bright."""
    height, width = temperature.shape
    seen = _blur(_blur(temperature))
    if rng.random() < 0.45:  # a fixed span up to the hottest thing: dark but for people and engines
        low = np.percentile(seen, 45) - rng.uniform(1.5, 5)
        signal = 0.02 + 0.95 * (seen - low) / max(float(rng.uniform(30, 38) - low), 15.0)
    else:  # automatic gain over the middle of the histogram
        low, high = np.percentile(seen, [rng.uniform(8, 32), rng.uniform(98.5, 99.8)])
        signal = 0.1 + 0.8 * (seen - low) / max(high - low, 4.0)
        signal = signal + rng.uniform(0, 0.6) * (signal - _blur(_blur(signal)))  # detail enhancement
    noise = rng.uniform(0.006, 0.02)
    pattern = 0.5 * noise * rng.standard_normal((height, 1)) + 0.4 * noise * rng.standard_normal((1, width))
    signal = signal + pattern + noise * rng.standard_normal((height, width), np.float32)
    return quantise(signal)


def visible_image(
    radiance: Floats,
    depth: Floats,
    lights: list[Light],
    weather: Weather,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Turn the radiance (H, W) and depth (H, W) in metres into the 8-bit luma (H, W) of a visible camera."""
    height, width = radiance.shape
    air = 0.08 if weather.night else 0.75
    passed = np.exp(np.float32(-weather.fog) * np.minimum(depth, np.float32(300)))
    if weather.smoke > 0:
        cloud = smooth_noise(rng, height, width, 3, 3) + 0.4 * smooth_noise(rng, height, width, 9, 9)
        passed *= 1 - weather.smoke * np.clip(0.5 + 1.2 * cloud, 0, 1)
    seen = radiance * passed + air * (1 - passed)
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    for column, row, strength in lights:
        dx, dy = columns - column, rows - row
        squared = (dx * dx + dy * dy) / (0.02 * height) ** 2
        streak = 0.15 * np.exp(-np.abs(dx) / (0.012 * height)) / (1 + np.abs(dy) / (0.06 * height)) ** 2
        seen = seen + strength * (1 / (1 + squared) ** 1.5 + streak)
    if weather.night:
        exposure = rng.uniform(0.7, 2.2)
    else:
        exposure = rng.uniform(0.75, 1.3) * (1.8 if rng.random() < 0.12 else 1.0) * 0.3 / (seen.mean() + 1e-3)
    signal = _blur(np.clip(seen * exposure, 0, 1).astype(np.float32))
    shot = rng.uniform(0.01, 0.03) if weather.night else rng.uniform(0.003, 0.012)
    noise = rng.standard_normal((height, width), np.float32)
    signal = signal + shot * np.sqrt(signal + 0.01) * noise
    return quantise(np.maximum(signal, 0) ** (1 / rng.uniform(1.8, 2.2)))


def _blur(image: Floats) -> Floats:
    """Apply a binomial 3x3 filter."""
    padded = np.pad(image, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16
