"""The physical fields of a street scene before a sensor sees them: temperature, reflectance and light of each pixel."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> Floats:
    """Make the (size, cells + 1) matrix that interpolates linearly between the nodes of a regular grid."""
    place = (np.arange(size) + 0.5) * cells / size
    distance = np.abs(place[:, None] - np.arange(cells + 1))
    return np.asarray(np.maximum(0, 1 - distance), np.float32)


def smooth_noise(rng: np.random.Generator, height: int, width: int, rows: int, columns: int) -> Floats:
    """Draw noise (height, width) in [-1, 1] that is linear between the nodes of a grid of rows and columns."""
    nodes = rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32)
    return np.asarray(_interpolation(height, rows) @ nodes @ _interpolation(width, columns).T, np.float32)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a flat road, looking along it; the two sensors share its pixel grid.

    World coordinates in metres: x to the right, height above the road, depth along the road.

    Attributes:
        focal: Focal length of the lens in pixels.
        height: Height of the camera above the road in metres.
        column: Column of the vanishing point in pixels.
        horizon: Row of the vanishing point in pixels.
    """

    focal: float
    height: float
    column: float
    horizon: float

    def foot(self, x: float, depth: float) -> tuple[float, float, float]:
        """Return the pixel column and row of a point on the road, and the pixels per metre there."""
        scale = self.focal / depth
        return self.column + x * scale, self.horizon + self.height * scale, scale


class Canvas:
    """The physical fields of a scene, (H, W) each, which are painted from far to near.

    Attributes:
        temperature: Apparent temperature in degrees Celsius, which the infrared sensor sees.
        reflectance: Reflectance in [0, 1], lit by `light`.
        light: Irradiance of each pixel, 1 in daylight.
        emission: Radiance of lamps and lit windows.
        depth: Distance in metres, which matters for fog.
        instance: Number of the object in each pixel, 0 for background.
    """

    def __init__(self, height: int, width: int) -> None:
        self.shape = (height, width)
        self.temperature = np.zeros(self.shape, np.float32)
        self.reflectance = np.zeros(self.shape, np.float32)
        self.light = np.ones(self.shape, np.float32)
        self.emission = np.zeros(self.shape, np.float32)
        self.depth = np.full(self.shape, 1e3, np.float32)
        self.instance = np.zeros(self.shape, np.uint8)


class Billboard:
    """An upright plane at one depth, on which an object is painted in metres.

    Args:
        x: Position of the object's foot in metres.
        depth: Distance of the object in metres.
        left: Extent of the object to the left of its foot in metres; `right` and `top` are the other extents.
        light: Irradiance on the object, 1 in daylight.
    """

    def __init__(
        self,
        canvas: Canvas,
        camera: Camera,
        x: float,
        depth: float,
        left: float,
        right: float,
        top: float,
        *,
        light: float,
        instance: int = 0,
    ) -> None:
        column, row, self.scale = camera.foot(x, depth)
        height, width = canvas.shape
        rows = slice(max(0, int(row - top * self.scale)), min(height, int(row) + 1))
        columns = slice(
            min(width, max(0, int(column - left * self.scale))),
            max(0, min(width, int(column + right * self.scale) + 1)),
        )
        self._canvas, self._window = canvas, (rows, columns)
        self._depth, self._light, self._instance = depth, light, instance
        # metres to the right of the foot (1, w) and above the road (h, 1)
        self.u = ((np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - column) / self.scale)[None]
        self.v = ((row - np.arange(rows.start, max(rows.start, rows.stop), dtype=np.float32) - 0.5) / self.scale)[
            :, None
        ]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.v.shape[0], self.u.shape[1]

    def box(self, left: float, right: float, bottom: float, top: float) -> Mask:
        """Return the mask of a rectangle, in metres."""
        return (self.u > left) & (self.u < right) & (self.v > bottom) & (self.v < top)

    def disc(self, u: float, v: float, radius: float) -> Mask:
        """Return the mask of a disc, in metres."""
        return (self.u - u) ** 2 + (self.v - v) ** 2 < radius**2

    def ring(self, u: float, v: float, radius: float, thickness: float) -> Mask:
        """Return the mask of a circle line, in metres and at least one pixel thick."""
        distance = np.hypot(self.u - u, self.v - v)
        return np.abs(distance - radius) < max(thickness, 1 / self.scale) / 2

    def limb(self, start: tuple[float, float], end: tuple[float, float], thickness: float) -> Mask:
        """Return the mask of a line with round ends, in metres and at least one pixel thick."""
        du, dv = end[0] - start[0], end[1] - start[1]
        u, v = self.u - start[0], self.v - start[1]
        along = np.clip((u * du + v * dv) / (du * du + dv * dv + 1e-9), 0, 1)
        distance = (u - along * du) ** 2 + (v - along * dv) ** 2
        return distance < (max(thickness, 1 / self.scale) / 2) ** 2

    def paint(
        self, mask: Mask, temperature: float | Floats, reflectance: float | Floats, emission: float = 0.0
    ) -> None:
        """Paint the masked pixels."""
        canvas, window = self._canvas, self._window

        def put(field: NDArray[np.generic], value: float | Floats) -> None:
            field[window][mask] = value[mask] if isinstance(value, np.ndarray) else value

        put(canvas.temperature, temperature)
        put(canvas.reflectance, reflectance)
        put(canvas.emission, emission)
        put(canvas.light, self._light)
        put(canvas.depth, self._depth)
        put(canvas.instance, self._instance)

    def lit(self, mask: Mask, temperature_step: float | Floats, reflectance_factor: float | Floats) -> None:
        """Change painted pixels: a fold in the cloth, a highlight, a cooler edge."""
        self._canvas.temperature[self._window] += np.where(mask, temperature_step, 0).astype(np.float32)
        self._canvas.reflectance[self._window] *= np.where(mask, reflectance_factor, 1).astype(np.float32)
