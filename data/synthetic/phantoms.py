"""Synthetic slices of the head as two scanners see them: MRI with CT, PET or SPECT."""

import zlib
from typing import Literal

import numpy as np

from ..images import Pixels
from .brain import Brain, make_brain
from .canvas import Floats
from .fields import field, gaussian_blur, quantise, step

Modality = Literal["ct", "pet", "spect"]

# Red, green and blue at even steps of activity: a rainbow for PET, from indigo over orange to white for SPECT.
_COLOURS = {
    "pet": "000000 00004c 0014a0 004fe8 5a8cb8 a8a850 fff000 ffb400 ff6a00 ff1e1e ff28b4",
    "spect": "000000 1c3234 303f54 4a1278 7a2488 a04a82 c06478 e8692c ff7a10 ffb08c ffdcff",
}


def make_phantom(
    seed: int | list[int], *, modality: Modality, level: float = 0.4, height: int = 128, width: int = 128
) -> tuple[Pixels, Pixels]:
    """Scan one slice of a head twice, in at least 32 × 32 pixels.

    Magnetic resonance shows the folds of the cortex and little of the skull. Computed tomography shows bone, chalk and
    hardly any difference within the brain. Emission tomography shows the activity of tissue, blurred, in false colours.

    Args:
        seed: The head; the same seed gives the same head.
        modality: The second scanner: "ct", "pet" or "spect".
        level: Height of the slice, from 0 at the base of the cerebrum to 1 near the crown; slices of one head at
            neighbouring levels look alike.

    Returns:
        The MRI, (H, W) uint8, and the other image: (H, W) uint8 for CT, (H, W, 3) uint8 for PET and SPECT.

    Example:
        >>> mri, pet = make_phantom(0, modality="pet", height=32, width=32)
        >>> mri.shape, pet.shape
        ((32, 32), (32, 32, 3))
    """
    rng = np.random.default_rng(seed)
    t1 = bool(rng.random() < {"ct": 0.5, "pet": 0.85, "spect": 0.25}[modality])
    noise = np.random.default_rng([int(rng.integers(2**63)), zlib.crc32(repr(level).encode())])  # of this slice alone
    head = make_brain(rng, level, height, width)
    first = _magnetic_resonance(head, rng, noise, t1=t1)
    if modality == "ct":
        return first, _computed_tomography(head, rng, noise)
    return first, _emission_tomography(head, rng, noise, modality)


def _magnetic_resonance(head: Brain, rng: np.random.Generator, noise: np.random.Generator, *, t1: bool) -> Pixels:
    """Make a T1-weighted image with bright fat and dark fluid, or a T2-weighted one with bright fluid."""
    height, width = head.brain.shape
    if t1:
        scalp, marrow, grey, white, fluid = 0.9, 0.45, 0.47, 0.68, 0.12
        lesion, swelling = float(rng.choice([0.25, 0.85])), 0.42
    else:
        scalp, marrow, grey, white, fluid = 0.38, 0.2, 0.5, 0.32, 0.85
        lesion, swelling = float(rng.choice([0.55, 0.95])), 0.8
    signal = scalp * head.scalp * (1 + 0.12 * head.texture) + 0.04 * head.skull + marrow * head.marrow
    signal = signal + grey * head.grey + white * head.white + fluid * head.fluid
    for value, share in ((swelling, 0.75 * head.swelling), (lesion, head.lesion), (0.3, 0.7 * head.falx)):
        signal = signal + share * (value - signal)
    signal = signal * (1 + 0.025 * head.texture + 0.07 * field(rng, (height, width), 2, 2)) * rng.uniform(0.85, 1.25)
    signal = gaussian_blur(signal, rng.uniform(0.4, 0.6) * min(height, width) / 128)
    level = rng.uniform(0.008, 0.03)
    real, imaginary = level * noise.standard_normal((2, height, width), np.float32)
    return quantise(np.hypot(signal + real, imaginary) - 1.2 * level)


def _computed_tomography(head: Brain, rng: np.random.Generator, noise: np.random.Generator) -> Pixels:
    """Make an image with a window for the brain: white bone, dark fluid, grey and white matter alike."""
    height, width = head.brain.shape
    size = min(height, width)
    middle, contrast = rng.uniform(0.36, 0.5), rng.uniform(0.03, 0.07)
    lesion, swelling = float(rng.choice([-0.18, -0.1, 0.22])), -0.1
    tissue = (middle + contrast) * head.grey + middle * head.white + (middle - 0.26) * head.fluid
    tissue = tissue + 0.12 * head.falx + lesion * head.lesion + swelling * head.swelling
    bone = 2.2 * head.skull - 0.7 * head.marrow + 1.2 * head.calcified  # the window ends at 1
    signal = tissue + bone + rng.uniform(0.3, 0.75) * head.scalp
    signal = signal + 0.25 * head.brain * gaussian_blur(head.skull, 0.02 * size)  # hardened rays beside bone
    signal = gaussian_blur(signal + _head_rest(rng, height, width), rng.uniform(0.7, 0.95) * size / 128)
    grain = noise.standard_normal((height, width), np.float32)
    grain = grain - gaussian_blur(grain, 1.5 * size / 128)  # filtered back-projection leaves fine grain alone
    return quantise(signal + rng.uniform(0.015, 0.04) * grain * (0.15 + head.brain))


def _head_rest(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Draw the thin shell of the head rest, which some scans show."""
    radius, thin = rng.uniform(0.9, 1.0), rng.uniform(0.006, 0.012)
    if rng.random() < 0.5:
        return np.zeros((height, width), np.float32)
    half = min(height, width) / 2
    v = (np.arange(height, dtype=np.float32) + 0.5 - height / 2)[:, None] / half
    u = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None] / half
    shell = step(np.abs(np.hypot(u, v) - radius), thin + 1 / half, thin)
    return np.asarray(0.9 * shell * step(v, 0.3, 0.35), np.float32)


def _emission_tomography(
    head: Brain, rng: np.random.Generator, noise: np.random.Generator, modality: Modality
) -> Pixels:
    """Show metabolism (PET) or blood flow (SPECT), high in grey matter; SPECT is the coarser of the two."""
    height, width = head.brain.shape
    size, coarse = min(height, width), modality == "spect"
    activity = 1.0 * head.grey + 0.28 * head.white + 0.03 * head.fluid + rng.uniform(0.02, 0.1) * head.scalp
    activity = activity * (1 + 0.22 * np.tanh(head.supply))
    activity = activity * (1 - 0.35 * head.swelling)
    lesion = float(rng.choice([0.1, 1.3]))  # dead tissue or a hungry tumour
    activity = activity + head.lesion * (lesion - activity)
    # Counts are few: noise comes before the blur, and grows with the activity.
    counts = noise.standard_normal((height, width), np.float32) * np.sqrt(activity + 0.02)
    sigma = rng.uniform(0.026, 0.032) * size if coarse else rng.uniform(0.016, 0.022) * size
    seen = gaussian_blur(activity + (0.045 if coarse else 0.03) * sigma * counts, sigma)
    top = rng.uniform(0.75, 0.95) if coarse else rng.uniform(0.8, 1.0)
    return _false_colour(np.clip(seen * (top / np.percentile(seen, 99.5)), 0, 1), modality)


def _false_colour(activity: Floats, modality: Modality) -> Pixels:
    """Colour activity (H, W) in [0, 1]: (H, W, 3)."""
    table = np.array([list(bytes.fromhex(colour)) for colour in _COLOURS[modality].split()]) / 255
    levels = np.linspace(0, 1, len(table))
    return quantise(np.stack([np.interp(activity, levels, channel) for channel in table.T], axis=-1))
