"""The objects in the street: people, cars, bicycles, trees, signs and lamp posts, each painted on a billboard."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from .canvas import Billboard, Camera, Canvas, smooth_noise
from .street import Lamp, Weather, irradiance


class ObjectClass(IntEnum):
    """Class of a box, numbered as in MSRS; in a mask the number is one higher, and 0 is the background."""

    PERSON = 0
    BICYCLE = 1
    CAR = 2


@dataclass
class Stage:
    """The scene that the objects are painted into."""

    canvas: Canvas
    camera: Camera
    weather: Weather
    lamps: list[Lamp]
    rng: np.random.Generator
    instances: list[IntEnum]

    def billboard(
        self, x: float, depth: float, left: float, right: float, top: float, kind: ObjectClass | None = None
    ) -> Billboard:
        """Make a billboard; with a class, it becomes a labelled object."""
        light = 1.0
        if self.weather.night:
            middle = np.array([[x], [0.8], [depth]], np.float32)
            light = float(irradiance(self.lamps, middle[0], middle[1], middle[2], base=0.02)[0])
        if kind is not None:
            self.instances.append(kind)
        instance = 0 if kind is None else len(self.instances)
        return Billboard(self.canvas, self.camera, x, depth, left, right, top, light=light, instance=instance)

    def shade_ground(self, x: float, depth: float, half_width: float, length: float, warming: float = 0.0) -> None:
        """Darken the road under an object, and warm it by a running engine."""
        column, row, scale = self.camera.foot(x, depth)
        height, width = self.canvas.shape
        flat = max(1.5, length * scale * self.camera.height / depth)
        rows = slice(max(0, int(row - 2 * flat)), max(0, min(height, int(row + 2 * flat) + 1)))
        reach = 1.5 * half_width * scale
        columns = slice(min(width, max(0, int(column - reach))), max(0, min(width, int(column + reach) + 1)))
        v = (np.arange(rows.start, max(rows.start, rows.stop), dtype=np.float32)[:, None] - row) / flat
        u = (np.arange(columns.start, max(columns.start, columns.stop), dtype=np.float32)[None] - column) / (
            half_width * scale
        )
        depth_of = np.exp(-2 * (u * u) ** 2 - v * v)
        self.canvas.reflectance[rows, columns] *= 1 - 0.75 * depth_of
        self.canvas.temperature[rows, columns] += warming * depth_of


def paint_person(stage: Stage, x: float, depth: float, *, riding: bool = False) -> None:
    """Paint a person: a hot face and hands, cooler clothes, walking, standing or riding."""
    rng, ambient = stage.rng, stage.weather.ambient
    size = rng.uniform(0.9, 1.06)  # of 1.75 m
    if not riding:
        stage.shade_ground(x, depth, 0.35, 0.3)
    board = stage.billboard(x, depth, 0.75, 0.75, 1.95, ObjectClass.PERSON)
    if 0 in board.shape:
        return
    facing = rng.uniform(0.35, 1)  # 0 seen from the side, 1 from the front
    stride = rng.uniform(0.05, 0.38) * (1.3 - facing) * rng.choice([-1, 1])
    shoulder, hip = 0.17 * facing + 0.04, 0.09 * facing

    def at(u: float, v: float) -> tuple[float, float]:
        return u * size, (v + (0.15 if riding else 0)) * size

    cloth = rng.uniform(0.3, 0.6)  # share of the body's warmth that comes through
    warm = ambient + cloth * (33 - ambient)
    folds = smooth_noise(rng, *board.shape, 7, 4)
    torso, legs = rng.choice([0.05, 0.1, 0.2, 0.35, 0.65, 0.8]), rng.choice([0.04, 0.08, 0.15, 0.35])
    skin, hair = rng.uniform(0.25, 0.5), rng.uniform(0.03, 0.2)
    swing = -stride * 0.8
    for side in (-1, 1):
        step = stride * side
        knee, ankle = at(side * hip + 0.55 * step, 0.5), at(side * hip + step - 0.1 * abs(step), 0.06)
        limb = board.limb(at(side * hip, 0.92), knee, 0.17 * size) | board.limb(knee, ankle, 0.12 * size)
        board.paint(limb, warm - 2 + 2 * folds, legs * (1 + 0.3 * folds))
        board.paint(board.limb(ankle, at(side * hip + step + 0.08, 0.03), 0.09), ambient + 5, 0.06)
    body = board.limb(at(-shoulder * 0.7, 1.34), at(-hip, 0.95), 0.24 * size)
    body |= board.limb(at(shoulder * 0.7, 1.34), at(hip, 0.95), 0.24 * size)
    board.paint(body, warm + 2.5 * folds, torso * (1 + 0.25 * folds))
    for side in (-1, 1):
        move = swing * side
        elbow, hand = (
            at(side * (shoulder + 0.03) + 0.5 * move, 1.12),
            at(side * (shoulder + 0.02) + move, 0.87),
        )
        arm = board.limb(at(side * shoulder, 1.38), elbow, 0.11 * size) | board.limb(elbow, hand, 0.09 * size)
        board.paint(arm, warm + 1 + 2 * folds, 0.85 * torso * (1 + 0.25 * folds))
        board.paint(board.disc(*hand, 0.05 * size), 30.0, skin)
    board.paint(board.limb(at(0, 1.42), at(0.01, 1.56), 0.12 * size), 33.0, skin)
    head = board.limb(at(0, 1.6), at(0, 1.66), 0.2 * size)
    board.paint(head, 33.5, skin)
    if rng.random() < 0.5:  # hair, a hat or the back of the head
        board.paint(head & (board.v > at(0, rng.uniform(1.58, 1.68))[1]), 27.0, hair)
    if rng.random() < 0.3:  # a bag keeps the air's temperature
        board.paint(board.limb(at(shoulder + 0.08, 1.0), at(shoulder + 0.1, 0.8), 0.2), ambient + 2, 0.12)


def paint_bicycle(stage: Stage, x: float, depth: float) -> None:
    """Paint a bicycle from the side or at an angle: cold thin tubes that the visible image shows better."""
    rng, ambient = stage.rng, stage.weather.ambient
    ridden = rng.random() < 0.55
    stage.shade_ground(x, depth, 0.8, 0.25)
    if ridden:
        paint_person(stage, x - 0.05, depth + 0.05, riding=True)
    turn = rng.uniform(0.55, 1) * rng.choice([-1, 1])  # foreshortening, and which way it heads
    board = stage.billboard(x, depth, 1.0, 1.0, 1.2, ObjectClass.BICYCLE)
    if 0 in board.shape:
        return
    board.u = (board.u / turn).astype(np.float32)
    paint, tyre = rng.choice([0.08, 0.3, 0.6]), 0.04
    warm = ambient + (4 if ridden else 0)
    for wheel in (-0.52, 0.52):
        board.paint(board.ring(wheel, 0.34, 0.32, 0.05), warm, tyre)
        board.paint(board.disc(wheel, 0.34, 0.05), warm, 0.4)
    joints = {"rear": (-0.52, 0.34), "crank": (-0.06, 0.3), "seat": (-0.2, 0.85), "head": (0.38, 0.88)}
    joints["front"] = (0.52, 0.34)
    pairs = [("rear", "crank"), ("crank", "seat"), ("rear", "seat"), ("seat", "head"), ("crank", "head")]
    for start, end in [*pairs, ("head", "front")]:
        board.paint(board.limb(joints[start], joints[end], 0.05), ambient - 1, paint)
    board.paint(board.limb((-0.3, 0.92), (-0.1, 0.92), 0.08), ambient + 1, tyre)
    board.paint(board.limb((0.3, 1.0), (0.45, 0.98), 0.06), ambient, tyre)


def paint_car(stage: Stage, x: float, depth: float, *, running: bool) -> list[tuple[float, float, float]]:
    """Paint a car from the front or the back: warm wheels and engine, and glass that mirrors the cold sky.

    Returns:
        The position, height and strength of each light that is on.
    """
    rng, ambient = stage.rng, stage.weather.ambient
    front = rng.random() < 0.5
    tall = rng.choice([1.4, 1.5, 1.85])
    half = rng.uniform(0.84, 0.95)
    stage.shade_ground(x, depth, half, 1.0, warming=3.0 if running else 0.0)
    board = stage.billboard(x, depth, half + 0.2, half + 0.2, tall, ObjectClass.CAR)
    if 0 in board.shape:
        return []
    coat = rng.choice([0.04, 0.1, 0.25, 0.45, 0.75, 0.85])
    sheet = ambient + (rng.uniform(1, 4) if running else rng.uniform(-2, 1)) + 0.5 * stage.weather.sunlit
    shine = smooth_noise(rng, *board.shape, 5, 3)
    beside, v = np.abs(board.u), board.v
    waist = 0.62 * tall

    wheels = (beside > half - 0.24) & (beside < half - 0.02) & (v < 0.45)
    board.paint(wheels, ambient + (12.0 if running else 1.0), 0.03)
    under = (beside < half - 0.22) & (v > 0.12) & (v < 0.4)
    board.paint(under, ambient + (9.0 if running else 0.0), 0.02)
    if running:
        board.paint(board.disc(-0.45, 0.28, 0.16), ambient + 24, 0.03)  # exhaust, or the radiator's corner
    body = (v > 0.27) & (v < waist) & (beside < half - 0.5 * np.maximum(0, 0.4 - v) - 0.35 * np.maximum(0, v - 0.8))
    slope = 0.3 * (v - waist)
    cabin = (v >= waist) & (v < tall - 0.03) & (beside < half - 0.1 - slope - 2 * np.maximum(0, v - tall + 0.12))
    board.paint(body | cabin, sheet + 0.8 * shine, coat * (1 + 0.2 * shine + 0.25 * (v - 0.6)))
    edge = np.abs(v - waist) < 0.03
    board.lit(body & edge, 1.0, 1.35)
    glass = (v > waist + 0.06) & (v < tall - 0.14) & (beside < half - 0.2 - slope)
    board.paint(glass, ambient - 5 + 1.5 * shine, 0.09 + 0.1 * np.clip(v - waist, 0, 1) + 0.04 * shine)
    if rng.random() < 0.6:  # people behind the glass: visible light passes, heat does not
        board.lit(glass & (board.disc(-0.35, waist + 0.25, 0.13) | board.disc(0.35, waist + 0.25, 0.13)), 0.5, 0.4)
    bumper = body & (v > 0.32) & (v < 0.52)
    board.lit(bumper, 1.5 if running else 0.0, 0.75)
    if front and running:
        grille = body & (beside < 0.6 * half) & (v > 0.42) & (v < 0.72)
        board.paint(grille, ambient + 11 + 2 * shine, 0.05)
        board.lit((v > 0.72) & (v < waist) & body, 5.0, 1.0)  # bonnet above the engine
    plate = board.box(-0.26, 0.26, 0.44, 0.56)
    board.paint(plate, sheet - 1.5, 0.75)
    board.lit(plate & (np.mod(board.u, 0.09) < 0.045) & board.box(-0.22, 0.22, 0.46, 0.54), 0, 0.3)
    lamps = (beside > half - 0.32) & (beside < half - 0.06) & (v > 0.62) & (v < 0.78)
    shining = running and (stage.weather.night or rng.random() < 0.3)
    board.paint(lamps, ambient + (7.0 if running else 0.0), 0.5, (3.0 if front else 0.7) if shining else 0.0)
    if not shining:
        return []
    strength = 1.0 if front else 0.12
    return [(x + side * (half - 0.2), 0.7, strength) for side in (-1, 1)]


def paint_car_side(stage: Stage, x: float, depth: float, *, running: bool) -> None:
    """Paint a car from the side, crossing or parked."""
    rng, ambient = stage.rng, stage.weather.ambient
    stage.shade_ground(x, depth, 2.1, 0.8, warming=3.0 if running else 0.0)
    board = stage.billboard(x, depth, 2.4, 2.4, 1.6, ObjectClass.CAR)
    if 0 in board.shape:
        return
    board.u = (board.u * rng.choice([-1, 1])).astype(np.float32)
    u, v = board.u, board.v
    coat = rng.choice([0.04, 0.1, 0.25, 0.45, 0.75, 0.85])
    shine = smooth_noise(rng, *board.shape, 4, 8)
    sheet = ambient + (rng.uniform(0, 3) if running else rng.uniform(-2, 1)) + 0.5 * stage.weather.sunlit
    rounding = 0.6 * np.maximum(0, v - 0.7) + 0.5 * np.maximum(0, 0.4 - v)
    body = (v > 0.2) & (v < 0.9 - 0.05 * np.abs(u)) & (np.abs(u) < 2.1 - rounding)
    cabin = (v >= 0.75) & (v < 1.45 - 0.04 * u * u) & (u > -1.75 + 0.9 * (v - 0.8)) & (u < 1.25 - 1.1 * (v - 0.8))
    board.paint(body | cabin, sheet + 0.8 * shine, coat * (1 + 0.2 * shine + 0.3 * (v - 0.6)))
    if running:  # the engine, under the bonnet
        board.lit(body & (u > 1.0), 8 * np.exp(-((u - 1.5) ** 2 + 2 * (v - 0.7) ** 2)), 1.0)
    glass = (v > 0.9) & (v < 1.36 - 0.04 * u * u) & (u > -1.45 + 0.9 * (v - 0.8)) & (u < 1.05 - 1.1 * (v - 0.8))
    glass &= np.abs(u + 0.2) > 0.05
    board.paint(glass, ambient - 5 + 1.5 * shine, 0.1 + 0.05 * shine)
    doors = body & ((np.abs(u + 0.2) < 0.02) | (np.abs(u - 0.85) < 0.02))
    board.lit(doors, -0.5, 0.6)
    for axle in (-1.3, 1.3):
        board.paint(board.disc(axle, 0.34, 0.38), ambient + (3 if running else 0), 0.03)
        board.paint(board.disc(axle, 0.33, 0.32), ambient + (12 if running else 1), 0.05)
        board.paint(board.disc(axle, 0.33, 0.18), ambient + (8 if running else 0), 0.4)


def paint_tree(stage: Stage, x: float, depth: float) -> None:
    """Paint a tree: rich texture in the visible image, near the air's temperature in the infrared one."""
    rng, ambient = stage.rng, stage.weather.ambient
    height, spread = rng.uniform(4, 9), rng.uniform(1.4, 3)
    board = stage.billboard(x, depth, spread + 0.5, spread + 0.5, height + 0.5)
    if 0 in board.shape:
        return
    coarse, fine = smooth_noise(rng, *board.shape, 9, 8), smooth_noise(rng, *board.shape, 30, 24)
    trunk = board.limb((0, 0), (rng.uniform(-0.2, 0.2), 0.6 * height), rng.uniform(0.2, 0.4))
    board.paint(trunk, ambient + 1.5 + 0.8 * fine, 0.1 * (1 + 0.4 * fine))
    middle = 0.66 * height
    inside = 1 - (board.u / spread) ** 2 - ((board.v - middle) / (0.36 * height)) ** 2
    leaves = inside + 0.45 * coarse + 0.45 * fine > 0.12
    sunny = 0.16 + 0.09 * np.clip((board.v - middle) / height * 2, -1, 1)
    board.paint(leaves, ambient - 0.8 + 0.7 * coarse + 0.4 * fine, sunny * (1 + 0.7 * fine + 0.3 * coarse))


def paint_lamp_post(stage: Stage, lamp: Lamp) -> None:
    """Paint a street lamp on its post."""
    inward = -np.sign(lamp.x)
    board = stage.billboard(lamp.x + 1.2 * -inward, lamp.depth, 1.6, 1.6, lamp.height + 0.3)
    if 0 in board.shape:
        return
    post = board.limb((0, 0), (0, lamp.height), 0.13) | board.limb(
        (0, lamp.height), (1.2 * inward, lamp.height + 0.1), 0.09
    )
    ambient = stage.weather.ambient
    board.paint(post, ambient - 2.5, 0.18)
    head = board.limb((0.9 * inward, lamp.height + 0.1), (1.3 * inward, lamp.height + 0.1), 0.18)
    board.paint(head, ambient + (6.0 if stage.weather.night else -1.0), 0.3, 4.0 if stage.weather.night else 0.0)


def paint_sign(stage: Stage, x: float, depth: float) -> None:
    """Paint a road sign with lettering, which is invisible in the infrared image."""
    rng, ambient = stage.rng, stage.weather.ambient
    width, top = rng.uniform(0.4, 0.9), rng.uniform(2.2, 2.8)
    tall = rng.uniform(0.5, 0.8)
    board = stage.billboard(x, depth, width, width, top + 0.1)
    if 0 in board.shape:
        return
    board.paint(board.limb((0, 0), (0, top), 0.07), ambient - 1, 0.25)
    ground, ink = rng.permutation([0.8, 0.1])
    face = board.box(-width, width, top - tall, top)
    letters = rng.random((3, 9)) < 0.6
    row = np.clip(((top - board.v) / tall * 3), 0, 2.99)
    column = np.clip((board.u + width) / (2 * width) * 9, 0, 8.99)
    written = (
        letters[row.astype(np.intp), column.astype(np.intp)] & (np.mod(row, 1) > 0.35) & (np.mod(column, 1) > 0.25)
    )
    board.paint(face, ambient - 1.5, np.where(written, ink, ground).astype(np.float32))
