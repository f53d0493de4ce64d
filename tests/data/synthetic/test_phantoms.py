"""Synthetic heads: each scanner sees what it should, and slices of one head belong together."""

import numpy as np
import pytest

from timfuse.data import luma, make_phantom
from timfuse.data.synthetic.brain import Brain, make_brain

MODALITIES = ("ct", "pet", "spect")
SEEDS = range(12)


def scans(modality: str) -> list[tuple[np.ndarray, np.ndarray]]:
    return [make_phantom([5, seed], modality=modality, level=0.3, height=160, width=176) for seed in SEEDS]


def roughness(image: np.ndarray) -> float:
    """Mean difference of neighbours, of the range."""
    image = image.astype(float)
    return float((np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean()) / np.ptp(image))


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_phantom_is_a_function_of_its_seed_and_level(modality: str) -> None:
    one, again = (make_phantom(3, modality=modality, level=0.4) for _ in range(2))
    for image, same in zip(one, again, strict=True):
        np.testing.assert_array_equal(image, same)
    for other in (make_phantom(4, modality=modality, level=0.4), make_phantom(3, modality=modality, level=0.41)):
        assert not np.array_equal(one[0], other[0])
        assert not np.array_equal(one[1], other[1])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 70), (120, 40)])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_any_size_and_level(modality: str, height: int, width: int, level: float) -> None:
    first, second = make_phantom(1, modality=modality, level=level, height=height, width=width)
    assert first.shape == (height, width)
    assert second.shape == ((height, width) if modality == "ct" else (height, width, 3))
    assert first.dtype == second.dtype == np.uint8
    assert np.ptp(first) > 100
    assert np.ptp(second) > 100


@pytest.mark.parametrize("level", [0.0, 0.3, 0.8])
def test_tissues_are_shares_of_the_head(level: float) -> None:
    for seed in SEEDS:
        brain = make_brain(np.random.default_rng(seed), level, 96, 96)
        for name in ("scalp", "skull", "marrow", "brain", "grey", "white", "fluid", "falx", "lesion", "swelling"):
            share = getattr(brain, name)
            assert -1e-6 <= share.min() <= share.max() <= 1 + 1e-6, name
        np.testing.assert_allclose(brain.grey + brain.white + brain.fluid, brain.brain, atol=1e-6)
        assert (brain.marrow <= brain.skull).all()
        assert (brain.scalp + brain.skull + brain.brain).max() <= 1 + 1e-6
        assert min(brain.grey.sum(), brain.white.sum()) > 0.15 * brain.brain.sum()


def anatomy(seed: int) -> Brain:
    rng = np.random.default_rng([5, seed])
    rng.random(), rng.integers(2**63)  # what make_phantom draws before the head
    return make_brain(rng, 0.3, 160, 176)


def test_bone_is_white_in_tomography_and_dark_in_resonance() -> None:
    for seed, (resonance, tomography) in enumerate(scans("ct")):
        head = anatomy(seed)
        bone, tissue = head.skull > 0.99, (head.white > 0.99) & (head.lesion + head.swelling == 0)
        assert np.median(tomography[bone]) == 255
        assert 60 < np.median(tomography[tissue]) < 160
        assert np.percentile(resonance[bone], 10) < 0.6 * np.median(resonance[tissue])
        # Grey and white matter differ in resonance, hardly in tomography.
        grey = (head.grey > 0.99) & (head.lesion + head.swelling == 0)
        parted = [abs(float(image[grey].mean()) - image[tissue].mean()) for image in (resonance, tomography)]
        assert parted[0] > 1.3 * parted[1]


@pytest.mark.parametrize("modality", ["pet", "spect"])
def test_emission_is_smooth_in_colour_and_high_in_grey_matter(modality: str) -> None:
    active = []
    for seed, (resonance, emission) in enumerate(scans(modality)):
        head = anatomy(seed)
        assert np.ptp(emission.astype(int), axis=2).max() > 150
        assert emission[:20, :20].max() < 10  # black outside
        assert roughness(luma(emission)) < roughness(resonance)
        healthy = head.lesion + head.swelling == 0
        warm = emission[..., 0].astype(float)  # red rises with the activity in both maps
        active.append(warm[(head.grey > 0.9) & healthy].mean() - warm[(head.fluid > 0.9) & healthy].mean())
    assert np.mean(active) > 25


@pytest.mark.parametrize("modality", MODALITIES)
def test_neighbouring_slices_look_alike(modality: str) -> None:
    def difference(first: np.ndarray, second: np.ndarray) -> float:
        return float(np.abs(first.astype(float) - second).mean())

    near, far = [], []
    for seed in SEEDS:
        one, next_to_it = (make_phantom(seed, modality=modality, level=level) for level in (0.3, 0.35))
        stranger = make_phantom(seed + 100, modality=modality, level=0.3)
        near.append([difference(a, b) for a, b in zip(one, next_to_it, strict=True)])
        far.append([difference(a, b) for a, b in zip(one, stranger, strict=True)])
    assert (np.mean(near, 0) < 0.75 * np.mean(far, 0)).all()
