"""Synthetic infrared-visible street scenes with boxes and masks."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..pair_batch import Objects
from .canvas import Camera, Canvas, Floats
from .objects import (
    ObjectClass,
    Stage,
    paint_bicycle,
    paint_car,
    paint_car_side,
    paint_lamp_post,
    paint_person,
    paint_sign,
    paint_tree,
)
from .sensors import Light, infrared_image, visible_image
from .street import Lamp, Street, Weather, paint_street

SCENE_CLASSES = tuple(kind.name.lower() for kind in ObjectClass)
"""Names of the classes of a scene's boxes."""
MASK_CLASSES = ("background", *SCENE_CLASSES)
"""Names of the classes of a scene's mask."""

_OVERSAMPLING = 2
_MINIMUM_PIXELS = 12  # what is seen of an object, below which it is not worth a box


@dataclass(frozen=True)
class Scene:
    """An aligned infrared-visible pair with its labels.

    Attributes:
        first: Infrared image, (H, W) uint8.
        second: Luma of the visible image, (H, W) uint8.
        boxes: Left, top, right and bottom in pixels of the visible part of each object, (K, 4) float32.
        classes: Class of each object, (K,) int64, a position in the names of the classes; in a street `SCENE_CLASSES`.
        mask: Class of each pixel, (H, W) uint8; 0 background, otherwise the class of the object plus 1.

    Example:
        >>> scene = make_scene(3, height=64, width=64)
        >>> len(scene.objects.boxes) == len(scene.classes)
        True
    """

    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    mask: NDArray[np.uint8]

    @property
    def objects(self) -> Objects:
        """The boxes and classes as tensors."""
        return Objects(torch.from_numpy(self.boxes), torch.from_numpy(self.classes))


def make_scene(seed: int | list[int], *, height: int = 128, width: int = 128) -> Scene:
    """Render a street by day or by night, in at least 32 × 32 pixels, for an infrared and a visible camera.

    Heat and light are modelled apart. Bodies, wheels and engines are hot in any light. Bricks, markings, lettering,
    foliage, shadows and lamps show in visible light. The clear sky, and glass that mirrors it, are cold.

    Example:
        >>> scene = make_scene(0, height=32, width=48)
        >>> scene.first.shape, scene.mask.dtype
        ((32, 48), dtype('uint8'))
    """
    rng = np.random.default_rng(seed)
    night = bool(rng.random() < 0.5)
    weather = Weather(
        night=night,
        ambient=rng.uniform(0, 16) if night else rng.uniform(4, 24),
        sunlit=rng.uniform(0, 1.5) if night else rng.uniform(0, 6),
        fog=rng.uniform(0.01, 0.05) if rng.random() < 0.2 else rng.uniform(0, 0.003),
        smoke=rng.uniform(0.4, 0.95) if rng.random() < 0.15 else 0.0,
    )
    stage, street = set_stage(weather, rng, height=height, width=width)
    lights = _populate(stage, street)
    return photograph(stage, lights)


def set_stage(weather: Weather, rng: np.random.Generator, *, height: int, width: int) -> tuple[Stage, Street]:
    """Paint a street without objects, at the oversampled size of an image of the height and width in pixels."""
    canvas = Canvas(_OVERSAMPLING * height, _OVERSAMPLING * width)
    tall, wide = canvas.shape
    camera = Camera(
        focal=rng.uniform(0.9, 1.5) * max(tall, wide) * 0.85,
        height=rng.uniform(1.3, 2.4),
        column=wide * rng.uniform(0.3, 0.7),
        horizon=tall * rng.uniform(0.36, 0.52),
    )
    kerb, axis = rng.uniform(3, 4.5), rng.uniform(-1.5, 1.5)
    walk = rng.uniform(2, 4.5)
    street = Street(kerb=kerb, axis=axis, walls=(axis - kerb - walk, axis + kerb + walk))
    lamps = _lamps(street, rng) if weather.night else []
    paint_street(canvas, camera, street, weather, lamps, rng)
    return Stage(canvas, camera, weather, lamps, rng, instances=[]), street


def _lamps(street: Street, rng: np.random.Generator) -> list[Lamp]:
    """Place street lamps along one side, and the headlights of the camera's own car."""
    lamps = []
    if rng.random() < 0.8:
        side, start, strength = rng.choice([-1, 1]), rng.uniform(6, 16), rng.uniform(1, 6)
        x = street.axis + side * (street.kerb - 0.4)
        lamps = [Lamp(x, rng.uniform(4.5, 6.5), start + 17 * i, strength) for i in range(3)]
    if rng.random() < 0.6:
        lamps.append(Lamp(0.0, 0.8, 0.0, rng.uniform(4, 20)))
    return lamps


def _populate(stage: Stage, street: Street) -> list[Light]:
    """Place and paint all objects, far ones first, and return the lights that glare."""
    rng, camera = stage.rng, stage.camera
    placed: list[tuple[float, str, float]] = []  # depth, what, x

    def place(what: str, most: int, near: float, far: float, xs: list[tuple[float, float]]) -> None:
        for _ in range(int(rng.integers(most + 1))):
            low, high = xs[rng.integers(len(xs))]
            # even in 1 / depth, which is even on the image
            placed.append((1 / rng.uniform(1 / far, 1 / near), what, rng.uniform(low, high)))

    left, right = street.axis - street.kerb, street.axis + street.kerb
    pavements = [(street.walls[0] + 0.5, left - 0.2), (right + 0.2, street.walls[1] - 0.5)]
    place("tree", 5, 12, 60, [(left - 1.5, left - 0.6), (right + 0.6, right + 1.5)])
    place("sign", 2, 8, 30, [(left - 0.8, left - 0.3), (right + 0.3, right + 0.8)])
    place("person", 3, 5.5, 35, pavements)
    place("person", 2, 5.5, 30, [(left, right)])
    place("bicycle", 2, 5, 18, [(left, left + 1.5), (right - 1.5, right), *pavements])
    lanes = [(street.axis - 2.2, street.axis - 1.4), (street.axis + 1.4, right - 1)]
    place("car", 2, 8, 45, lanes)
    place("parked", 2, 8, 40, [(left + 0.9, left + 1.1), (right - 1.1, right - 0.9)])
    if rng.random() < 0.6:
        place("crossing", 1, 11, 28, [(left - 2, right + 2)])

    lights: list[Light] = []
    seen = [lamp for lamp in stage.lamps if lamp.depth > 1]
    for lamp in sorted(seen, key=lambda lamp: -lamp.depth):
        column, row, scale = camera.foot(lamp.x, lamp.depth)
        lights.append((column, row - lamp.height * scale, 0.15 * lamp.strength * min(1.0, 12 / lamp.depth)))
        placed.append((lamp.depth, "lamp", lamp.x))
    posts = {lamp.depth: lamp for lamp in seen}
    occupied: list[tuple[float, float]] = []
    for depth, what, x in sorted(placed, reverse=True):
        if what in ("car", "parked", "crossing"):
            gap = 6.0 if what == "crossing" else 5.0
            if any(abs(depth - z) < gap and abs(x - there) < 2.5 for z, there in occupied):
                continue
            occupied.append((depth, x))
        match what:
            case "tree":
                paint_tree(stage, x, depth)
            case "sign":
                paint_sign(stage, x, depth)
            case "person":
                paint_person(stage, x, depth)
            case "bicycle":
                paint_bicycle(stage, x, depth)
            case "crossing":
                paint_car_side(stage, x, depth, running=True)
            case "lamp":
                paint_lamp_post(stage, posts[depth])
            case _:
                for there, above, strength in paint_car(stage, x, depth, running=what == "car"):
                    column, row, scale = camera.foot(there, depth)
                    lights.append((column, row - above * scale, strength * min(1.0, 15 / depth)))
    return lights


def photograph(stage: Stage, lights: list[Light]) -> Scene:
    """Take both images, and read boxes and mask off the canvas, in whose pixels the lights that glare are placed."""
    canvas, rng = stage.canvas, stage.rng
    radiance = _reduce(np.minimum(canvas.reflectance * canvas.light + canvas.emission, 4))
    instance = canvas.instance[::_OVERSAMPLING, ::_OVERSAMPLING]
    boxes, classes, kept = [], [], np.zeros(len(stage.instances) + 1, np.uint8)
    for number, kind in enumerate(stage.instances, start=1):
        rows, columns = np.nonzero(instance == number)
        if len(rows) >= _MINIMUM_PIXELS:
            boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
            classes.append(int(kind))
            kept[number] = kind + 1
    glare = [(column / _OVERSAMPLING, row / _OVERSAMPLING, strength) for column, row, strength in lights]
    return Scene(
        first=infrared_image(_reduce(canvas.temperature), rng),
        second=visible_image(radiance, _reduce(canvas.depth), glare, stage.weather, rng),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.array(classes, np.int64),
        mask=kept[instance],
    )


def _reduce(field: Floats) -> Floats:
    """Average each square of oversampled pixels."""
    steps = range(_OVERSAMPLING)
    total = sum(field[row::_OVERSAMPLING, column::_OVERSAMPLING] for row in steps for column in steps)
    return np.asarray(total / _OVERSAMPLING**2, np.float32)
