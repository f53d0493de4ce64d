"""The street: sky, skyline, two walls of houses in perspective, pavements and the road."""

from dataclasses import dataclass

import numpy as np

from .canvas import Camera, Canvas, Floats, smooth_noise


@dataclass(frozen=True)
class Weather:
    """Light and heat of a scene.

    Attributes:
        night: Whether lamps are the only light.
        ambient: Temperature of the air in degrees Celsius.
        sunlit: Degrees by which the sun has warmed the ground and the walls.
        fog: Extinction of visible light per metre.
        smoke: Strength of a drifting cloud that only the visible sensor sees, in [0, 1].
    """

    night: bool
    ambient: float
    sunlit: float
    fog: float
    smoke: float


@dataclass(frozen=True)
class Street:
    """The cross-section of the street, in metres to the right of the camera.

    Attributes:
        kerb: Half the width of the road, measured from `axis`.
        walls: Positions of the left and right walls of houses.
        axis: Position of the middle of the road.
    """

    kerb: float
    walls: tuple[float, float]
    axis: float


@dataclass(frozen=True)
class Lamp:
    """A light in the street: position in metres and strength."""

    x: float
    height: float
    depth: float
    strength: float


def irradiance(lamps: list[Lamp], x: Floats, height: Floats, depth: Floats, base: float) -> Floats:
    """Compute the light on points of the street, all of one shape, in metres, from the irradiance of the sky."""
    total = np.full(x.shape, base, np.float32)
    for lamp in lamps:
        squared = (x - lamp.x) ** 2 + (height - lamp.height) ** 2 + (depth - lamp.depth) ** 2
        total += lamp.strength / (squared + 1.0)
    return total


def paint_street(
    canvas: Canvas,
    camera: Camera,
    street: Street,
    weather: Weather,
    lamps: list[Lamp],
    rng: np.random.Generator,
) -> None:
    """Paint everything except the objects that stand on the ground.

    The ray of each pixel is intersected with the road plane and the two wall planes, so that bricks, windows, kerbs and
    markings all run to one vanishing point.
    """
    height, width = canvas.shape
    across = (np.arange(width, dtype=np.float32) + 0.5 - camera.column)[None] / camera.focal
    down = (np.arange(height, dtype=np.float32) + 0.5 - camera.horizon)[:, None] / camera.focal
    speckle = rng.uniform(-1, 1, (256, 256)).astype(np.float32)  # looked up by world position

    _paint_sky(canvas, camera, weather, rng)
    right = across > 0
    wall = np.where(right, street.walls[1], -street.walls[0]).astype(np.float32)
    wall_depth = np.minimum(wall / np.maximum(np.abs(across), 1e-4), 400)  # (1, W)
    ground_depth = camera.height / np.maximum(down, 1e-4)  # (H, 1)
    _paint_walls(canvas, camera, weather, rng, speckle, right, wall_depth, down)
    lower = slice(max(0, int(camera.horizon)), height)
    _paint_ground(canvas, lower, street, weather, rng, speckle, wall_depth, across, ground_depth[lower])

    if weather.night:
        reach = np.minimum(canvas.depth, 150)
        light = irradiance(lamps, across * reach, camera.height - down * reach, reach, base=0.02)
        np.copyto(canvas.light, light, where=canvas.depth < 150)  # what lies beyond carries its own light


def _cycle(place: Floats, period: float | Floats) -> Floats:
    """Compute the position within a period, in [0, 1)."""
    turns = place / period
    return turns - np.floor(turns)


def _paint_sky(canvas: Canvas, camera: Camera, weather: Weather, rng: np.random.Generator) -> None:
    height, width = canvas.shape
    clouds = smooth_noise(rng, height, width, 4, 5) + 0.5 * smooth_noise(rng, height, width, 10, 8)
    elevation = np.clip((camera.horizon - np.arange(height, dtype=np.float32)) / camera.focal, 0, 1)[:, None]
    overcast = rng.uniform(0, 1)
    canvas.temperature[:] = (
        weather.ambient - 10 - 14 * (1 - overcast) * np.sqrt(elevation) + 3 * overcast * clouds
    ).astype(np.float32)
    brightness = rng.uniform(0.6, 1.3)
    sky = brightness * (0.9 - 0.6 * (1 - overcast) * elevation + 0.12 * clouds)
    canvas.reflectance[:] = 0.012 * sky if weather.night else sky

    # a far skyline of trees and houses
    steps = np.repeat(rng.uniform(0.3, 1, 16), -(-width // 16))[:width].astype(np.float32)
    outline = camera.focal * rng.uniform(0.03, 0.1) * (steps + 0.5 * smooth_noise(rng, 1, width, 1, 24)[0])
    rows = np.arange(height, dtype=np.float32)[:, None]
    far = (rows > camera.horizon - np.maximum(outline, 0)) & (rows < camera.horizon + 2)
    rough = smooth_noise(rng, height, width, height // 4, width // 4)
    np.copyto(canvas.temperature, weather.ambient - 2 + 1.2 * rough, where=far)
    np.copyto(canvas.reflectance, (0.012 if weather.night else 0.3) * (1 + 0.5 * rough), where=far)
    canvas.depth[far] = 150


def _paint_walls(
    canvas: Canvas,
    camera: Camera,
    weather: Weather,
    rng: np.random.Generator,
    speckle: Floats,
    right: np.ndarray,
    depth: Floats,
    down: Floats,
) -> None:
    """Paint houses, hedges and fences on both sides; `right` and `depth` are (1, W), `down` is (H, 1)."""
    count = 24
    widths = rng.uniform(5, 14, (2, count))
    ends = np.cumsum(widths, axis=1) + rng.uniform(-8, 0, (2, 1))
    side = right.astype(np.intp)
    lot = np.where(right, np.searchsorted(ends[1], depth), np.searchsorted(ends[0], depth)).clip(0, count - 1)

    def each(values: np.ndarray) -> Floats:  # one value per lot -> (1, W)
        return np.asarray(values[side, lot], np.float32)

    kind = rng.choice(4, (2, count), p=[0.5, 0.2, 0.15, 0.15])  # house, brick house, hedge, open fence
    tall = np.where(kind < 2, rng.uniform(3.5, 13, (2, count)), rng.uniform(0.8, 2.2, (2, count)))
    top, what = each(tall), each(kind)
    above = camera.height - down * depth  # (H, W) metres above the road
    along = depth - each(ends - widths)  # metres from the start of the lot
    shown = (above < top) & (above > -0.1) & (depth < 150)
    # a texture finer than the pixels would alias; let it fade with the ground a pixel covers
    fade = np.clip(camera.focal / (20 * depth), 0, 1)
    grain = speckle[(above * 12).astype(np.intp) & 255, (along * 12).astype(np.intp) & 255]
    patch = smooth_noise(rng, *canvas.shape, 8, 10)

    plaster = each(rng.uniform(0.15, 0.75, (2, count)))
    heat = each(rng.uniform(-1.5, 3.5, (2, count))) + 0.6 * weather.sunlit * each(rng.uniform(0, 1, (2, count)))
    reflectance = plaster * (1 + 0.08 * grain * fade + 0.1 * patch)
    brick = (what == 1) & ((_cycle(above, 0.3) < 0.17) | (_cycle(along + 0.3 * np.floor(above / 0.3), 0.6) < 0.08))
    reflectance = np.where(what == 1, 0.45 * reflectance + 0.12 * (grain > 0.3) * fade, reflectance)
    reflectance = reflectance * np.where(brick, 1 + 0.7 * fade, 1)
    temperature = weather.ambient + heat + 0.5 * patch + 0.15 * grain * fade

    floor, bay = each(rng.uniform(2.7, 3.4, (2, count))), each(rng.uniform(2.0, 3.4, (2, count)))
    within_floor, within_bay = _cycle(above, floor), _cycle(along, bay)
    house = what < 2
    frame = house & (within_floor > 0.27) & (within_floor < 0.83) & (within_bay > 0.22) & (within_bay < 0.78)
    frame &= (above < top - 0.5) & (along < each(widths) - 0.4) & (along > 0.4)
    pane = frame & (within_floor > 0.31) & (within_floor < 0.79) & (within_bay > 0.27) & (within_bay < 0.73)
    pane &= np.abs(within_bay - 0.5) > 0.02
    drawn = speckle[(above / floor).astype(np.intp) + 7 * lot + 101 * side & 255, (along / bay).astype(np.intp) & 255]
    reflectance = np.where(frame, 0.7, reflectance)
    # glass mirrors the cold sky in the infrared; a heated room warms its frame
    reflectance = np.where(pane, 0.08 + 0.12 * (drawn > 0), reflectance)
    temperature = np.where(frame, temperature + 1.2, temperature)
    temperature = np.where(pane, weather.ambient - 4 + 3 * drawn, temperature)
    ledge = house & (above > top - 0.35)
    reflectance, temperature = np.where(ledge, 0.5 * reflectance, reflectance), temperature - 2.0 * ledge

    hedge = what == 2
    leaves = speckle[(above * 7).astype(np.intp) & 255, (along * 7).astype(np.intp) & 255]
    reflectance = np.where(hedge, 0.13 * (1 + 0.75 * leaves), reflectance)
    temperature = np.where(hedge, weather.ambient - 0.5 + 0.5 * leaves, temperature)
    posts = (what == 3) & (_cycle(along, 0.5) > 0.32) & (above < top - 0.15)
    shown &= ~posts

    np.copyto(canvas.reflectance, reflectance, where=shown)
    np.copyto(canvas.temperature, temperature, where=shown)
    np.copyto(canvas.depth, depth, where=shown)
    if weather.night:
        np.copyto(canvas.emission, 0.25 + 0.5 * drawn, where=shown & pane & (drawn > 0.45))


def _paint_ground(
    canvas: Canvas,
    lower: slice,
    street: Street,
    weather: Weather,
    rng: np.random.Generator,
    speckle: Floats,
    wall_depth: Floats,
    across: Floats,
    depth: Floats,
) -> None:
    """Paint road, markings and pavements in the `lower` rows; `depth` is (rows, 1), the others (1, W)."""
    x = across * depth - street.axis  # metres from the middle of the road
    beside = np.abs(x)
    fade = np.clip(12 / depth, 0, 1)
    fine = speckle[(x * 14).astype(np.intp) & 255, (depth * np.float32(14)).astype(np.intp) & 255]
    coarse = speckle[(x * 2).astype(np.intp) & 255, (depth * np.float32(1.2)).astype(np.intp) & 255]
    patch = smooth_noise(rng, x.shape[0], x.shape[1], 5, 6)

    road, paved = rng.uniform(0.1, 0.28), rng.uniform(0.25, 0.5)
    reflectance = road * (1 + 0.22 * fine * fade + 0.06 * coarse * fade + 0.15 * patch)
    temperature = weather.ambient + rng.uniform(-1, 1) + 0.7 * weather.sunlit + 0.7 * patch + 0.25 * coarse * fade
    temperature = temperature + rng.uniform(0, 1.5) * np.exp(
        -(((3.2 * _cycle(beside, 3.2) - 1.6) / 1.1) ** 2)
    )  # tyre tracks

    pavement = beside > street.kerb
    joints = (_cycle(x, 0.6) < 0.08) | (_cycle(depth, 0.6) < 0.12)
    slabs = paved * (1 + 0.12 * fine * fade + 0.1 * patch) * np.where(joints, 1 - 0.35 * fade, 1)
    reflectance = np.where(pavement, slabs, reflectance)
    temperature = np.where(pavement, temperature - rng.uniform(0.5, 3), temperature)
    kerb = np.abs(beside - street.kerb) < 0.12
    reflectance, temperature = np.where(kerb, 0.55, reflectance), temperature + rng.uniform(-1.5, 1.5) * kerb

    worn = 0.55 + 0.25 * (coarse > -0.6)
    marking = ~pavement & (np.abs(beside - street.kerb + 0.45) < 0.08)
    if rng.random() < 0.75:
        marking |= (beside < 0.08) & (_cycle(depth + rng.uniform(0, 6), 6) < 0.5)
    if rng.random() < 0.35:
        start = rng.uniform(6, 14)
        marking |= ~pavement & (depth > start) & (depth < start + 3) & (_cycle(x, 1) < 0.5)
    reflectance = np.where(marking, worn, reflectance)
    temperature = temperature - rng.uniform(0, 1.2) * marking
    if not weather.night and weather.sunlit > 2:  # shadow of the houses on one side
        sign, edge = rng.choice([-1, 1]), street.kerb * rng.uniform(-0.3, 1.1)
        shadow = sign * x > edge + 0.8 * np.sin(0.35 * depth)
        reflectance = reflectance * np.where(shadow, 0.38, 1)
        temperature = temperature - 1.5 * shadow

    ground = depth < wall_depth
    np.copyto(canvas.reflectance[lower], reflectance, where=ground)
    np.copyto(canvas.temperature[lower], temperature, where=ground)
    np.copyto(canvas.emission[lower], 0, where=ground)
    np.copyto(canvas.depth[lower], depth, where=ground)
