"""Marked scenes: infrared shows where warm bodies are, and visible light which marking each of them wears."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from .canvas import Floats
from .fields import field
from .objects import Stage
from .scenes import Scene, photograph, set_stage
from .sensors import Light
from .shapes import box, local
from .street import Weather


class Marking(IntEnum):
    """Shape of a marking, which is the class of the body that wears it."""

    DISC = 0
    CROSS = 1
    STRIPES = 2


MARKED_CLASSES = tuple(marking.name.lower() for marking in Marking)
"""Names of the classes of a marked scene's boxes."""

_SMALLEST, _LARGEST = 18 / 192, 60 / 192  # height of a figure, of the shorter side of the image
_REACH = 0.55  # from the middle of a figure, of its height; nothing of the figure lies farther right, left, up or down


@dataclass(frozen=True)
class Figure:
    """A body or a board in a scene; boards are drawn as if they were on a body.

    Attributes:
        x: Distance of the middle from the left border, in units of the image's shorter side.
        y: Distance of the middle from the upper border, in the same units.
        size: Height of the silhouette, in the same units.
        girth: Half the width of the silhouette, in units of `size`.
        lean: Angle in radians by which the figure is turned clockwise.
        span: Half the width of the marking, in units of `size`.
        brightness: Light that comes back from the white of the marking, 1 for white in daylight.
        heat: Temperature in degrees Celsius; None for a board, which is as cold as what is behind it.
        marking: The marking in the middle of the figure; None for a body without one.
    """

    x: float
    y: float
    size: float
    girth: float
    lean: float
    span: float
    brightness: float
    heat: float | None
    marking: Marking | None


def make_marked_scene(seed: int | list[int], *, height: int = 192, width: int = 256) -> Scene:
    """Render bodies in a street at night, in at least 32 × 32 pixels, for an infrared and a visible camera.

    An object is a warm body with a marking. In infrared it looks like a warm body without a marking, which is no
    object, and the class does not show. In the visible image bodies do not show, and the marking of an object looks
    like one on a cold board, which is no object. Night, smoke and glare vary.

    Returns:
        The scene, whose classes are those of `MARKED_CLASSES` and whose boxes enclose the silhouettes in infrared.

    Example:
        >>> scene = make_marked_scene(0)
        >>> scene.first.shape, 2 <= len(scene.classes) <= 5
        ((192, 256), True)
    """
    rng = np.random.default_rng(seed)
    return render_figures(draw_figures(rng, height=height, width=width), rng, height=height, width=width)


def draw_figures(rng: np.random.Generator, *, height: int, width: int) -> list[Figure]:
    """Draw the figures of a scene of the height and width: 2 to 5 objects, 2 to 4 boards and 1 or 2 unmarked bodies.

    Places and looks of all of them come from the same distributions, and they do not overlap.
    """
    targets, boards, unmarked = (int(rng.integers(low, high + 1)) for low, high in ((2, 5), (2, 4), (1, 2)))
    warm = np.repeat([True, False, True], [targets, boards, unmarked])
    marked = np.repeat([True, True, False], [targets, boards, unmarked])
    right, bottom = width / min(height, width), height / min(height, width)
    places: list[tuple[float, float, float]] = []
    while len(places) < len(warm):
        size = float(np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST))))
        reach = _REACH * size
        x, y = rng.uniform(reach, right - reach), rng.uniform(reach, bottom - reach)
        if all(max(abs(x - u), abs(y - v)) > reach + _REACH * other for u, v, other in places):
            places.append((x, y, size))
    figures = []
    order = rng.permutation(len(warm))  # whatever a figure is, it had as much room as the others
    for number, (x, y, size) in zip(order, places, strict=True):
        heat, marking = rng.uniform(22, 34), Marking(int(rng.integers(len(Marking))))
        figures.append(
            Figure(
                x=x,
                y=y,
                size=size,
                girth=rng.uniform(0.34, 0.43),
                lean=rng.uniform(-0.12, 0.12),
                span=rng.uniform(0.25, 0.31),
                brightness=rng.uniform(0.6, 1.5),
                heat=heat if warm[number] else None,
                marking=marking if marked[number] else None,
            )
        )
    return figures


def render_figures(figures: list[Figure], rng: np.random.Generator, *, height: int, width: int) -> Scene:
    """Render figures in a street at night; the generator chooses the street, the weather and the glare."""
    weather = Weather(
        night=True,
        ambient=rng.uniform(0, 14),
        sunlit=rng.uniform(0, 1.5),
        fog=0.0,
        smoke=rng.uniform(0.3, 0.7) if rng.random() < 0.5 else 0.0,
    )
    stage, _ = set_stage(weather, rng, height=height, width=width)
    for figure in figures:
        _paint_figure(stage, figure)
    return photograph(stage, _glare(stage, figures))


def _paint_figure(stage: Stage, figure: Figure) -> None:
    """Paint the heat of a body into the temperature alone, and a marking into the fields of visible light alone."""
    canvas = stage.canvas
    short = float(min(canvas.shape))
    reach = _REACH * figure.size
    rows, columns = (
        slice(max(0, int((middle - reach) * short)), int((middle + reach) * short) + 1)
        for middle in (figure.y, figure.x)
    )
    # to the right (1, w) and down (h, 1), then both (h, w) and in units of the figure's height
    across = (np.arange(canvas.shape[1], dtype=np.float32)[None, columns] + 0.5) / short - figure.x
    down = (np.arange(canvas.shape[0], dtype=np.float32)[rows, None] + 0.5) / short - figure.y
    u, v = local(across / figure.size, down / figure.size, (0.0, 0.0), figure.lean)
    v = v - 0.08  # 0 in the middle of the torso
    window = rows, columns
    folds = field(stage.rng, u.shape, 5, 4)  # drawn for boards too, so that all else stays the same without one
    if figure.heat is not None:
        body = (box(u, v, figure.girth, 0.42, corner=0.2) < 0) | (np.hypot(u, v + 0.42) < 0.16)
        canvas.temperature[window][body] = (figure.heat + folds)[body]
        if figure.marking is not None:
            stage.instances.append(figure.marking)
            canvas.instance[window][body] = len(stage.instances)
    if figure.marking is not None:
        patch = box(u, v, figure.span + 0.05, figure.span + 0.05, corner=0.05) < 0
        white = _shape(figure.marking, u, v, figure.span) < 0
        canvas.reflectance[window][patch] = np.where(white, 1.0, 0.03)[patch]
        canvas.light[window][patch] = figure.brightness
        canvas.emission[window][patch] = 0


def _shape(marking: Marking, u: Floats, v: Floats, span: float) -> Floats:
    """Compute the signed distance (H, W) to the white of a marking that is twice `span` wide."""
    match marking:
        case Marking.DISC:
            return np.asarray(np.hypot(u, v) - span)
        case Marking.CROSS:
            return np.minimum(box(u, v, span, span / 3), box(u, v, span / 3, span))
        case Marking.STRIPES:
            return box(u, np.abs(v) - np.float32(2 * span / 3), span, span / 3)


def _glare(stage: Stage, figures: list[Figure]) -> list[Light]:
    """Draw up to four lights that glare; one that would hide a figure is left out."""
    height, width = stage.canvas.shape
    short = min(height, width)
    lights = []
    for _ in range(stage.rng.integers(5)):
        x, y = stage.rng.uniform(0, width / short), stage.rng.uniform(0, height / short)
        strength = stage.rng.uniform(0.5, 3)
        if all(max(abs(x - each.x), abs(y - each.y)) > _REACH * each.size + 0.03 for each in figures):
            lights.append((x * short, y * short, strength))
    return lights
