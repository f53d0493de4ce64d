import numpy as np
import pytest
import torch

from timfuse.data.corruptions import CORRUPTIONS, corrupt
from timfuse.data.synthetic.fields import field
from timfuse.runtime.errors import UserError

SEVERITIES = (1, 2, 3)
each_corruption = pytest.mark.parametrize("name", CORRUPTIONS)
each_severity = pytest.mark.parametrize("severity", SEVERITIES)


def corrupted(image, name, severity, seed=0):
    return corrupt(image, name, severity, torch.Generator().manual_seed(seed))


def random_images(*shape, dtype=torch.float32):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(7), dtype=dtype)


@pytest.fixture(scope="module")
def smooth():
    """Images that are far from flat, but do not change much from one pixel to the next."""
    rng = np.random.default_rng(0)
    return torch.stack([0.2 * torch.from_numpy(field(rng, (48, 64), 4, 5)) + 0.5 for _ in range(4)])[:, None].clamp(
        0, 1
    )


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.04), (2, 0.08), (3, 0.16)])
def test_noise_is_gaussian(severity, sigma):
    grey = torch.full((2, 1, 200, 200), 0.5, dtype=torch.float64)
    noise = (corrupted(grey, "noise", severity) - grey) / sigma
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, rel=0.02)
    assert (noise.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert abs((noise[0] * noise[1]).mean().item()) < 0.03


@pytest.mark.parametrize(("severity", "sigma"), [(1, 1), (2, 2), (3, 4)])
def test_blur_is_gaussian(severity, sigma):
    point = torch.zeros(1, 1, 61, 71, dtype=torch.float64)
    point[..., 30, 35] = 1
    blurred = corrupted(point, "blur", severity)[0, 0]
    assert blurred.sum().item() == pytest.approx(1)
    for axis, middle in ((0, 30), (1, 35)):
        line, places = blurred.sum(dim=1 - axis), torch.arange(blurred.shape[axis]) - middle
        assert (line * places).sum().item() == pytest.approx(0, abs=1e-9)
        assert (line * places**2).sum().sqrt().item() == pytest.approx(sigma, rel=0.01)


@each_severity
def test_blur_replicates_the_borders(severity):
    flat = torch.full((1, 1, 9, 5), 0.3, dtype=torch.float64)
    torch.testing.assert_close(corrupted(flat, "blur", severity), flat)
    image = random_images(2, 1, 20, 30, dtype=torch.float64)
    padded = torch.nn.functional.pad(image, (40, 40, 40, 40), mode="replicate")
    blurred = corrupted(padded, "blur", severity)[..., 40:-40, 40:-40]
    torch.testing.assert_close(corrupted(image, "blur", severity), blurred)


@pytest.mark.parametrize(("severity", "kept"), [(1, 0.7), (2, 0.5), (3, 0.3)])
def test_fog_mixes_with_a_smooth_veil(severity, kept):
    black = torch.zeros(3, 1, 40, 50, dtype=torch.float64)
    veil = corrupted(black, "fog", severity) / (1 - kept)
    assert veil.min() >= 0.6 - 1e-6
    assert veil.max() <= 0.95 + 1e-6
    assert veil.std(dim=(2, 3)).min() > 0.01
    assert max(veil.diff(dim=dim).abs().max() for dim in (2, 3)) < 0.02
    assert not torch.equal(veil[0], veil[1])
    image = random_images(3, 1, 40, 50, dtype=torch.float64)
    torch.testing.assert_close(corrupted(image, "fog", severity), kept * image + (1 - kept) * veil)


@pytest.mark.parametrize(("severity", "pixels"), [(1, 1), (2, 2), (3, 4)])
def test_shift_is_a_slice_with_replicated_borders(severity, pixels):
    image = random_images(1, 1, 12, 15)
    padded = torch.nn.functional.pad(image, (pixels,) * 4, mode="replicate")
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
    neighbours = [padded[..., pixels * (1 - down) :, pixels * (1 - right) :][..., :12, :15] for down, right in steps]
    moved = corrupted(image.expand(200, -1, -1, -1), "shift", severity)
    taken = [sum(torch.equal(each[None], neighbour) for each in moved) for neighbour in neighbours]
    assert sum(taken) == 200
    assert min(taken) > 5


@pytest.mark.parametrize(("severity", "rows"), [(1, 5), (2, 10), (3, 20)])
def test_missing_rows_have_the_mean_of_their_image(severity, rows):
    image = random_images(40, 1, 20, 6)
    result = corrupted(image, "missing", severity)
    tops = set()
    for before, after in zip(image[:, 0], result[:, 0], strict=True):
        gone = torch.isclose(after, before.mean(), atol=1e-5).all(dim=1)
        places = gone.nonzero()[:, 0].tolist()
        assert places == list(range(places[0], places[0] + rows))
        assert torch.equal(after[~gone], before[~gone])
        tops.add(places[0])
    assert len(tops) > 3 or rows == 20


@each_corruption
@each_severity
def test_images_stay_images(name, severity):
    image = random_images(2, 1, 7, 11).round()
    before = image.clone()
    result = corrupted(image, name, severity)
    assert result.shape == image.shape
    assert result.dtype == image.dtype
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(image, before)
    assert not torch.equal(result, image)


@each_corruption
def test_the_generator_determines_the_result(name):
    image = random_images(2, 1, 24, 16)
    assert torch.equal(corrupted(image, name, 1), corrupted(image, name, 1))
    others = [torch.equal(corrupted(image, name, 1), corrupted(image, name, 1, seed)) for seed in range(1, 5)]
    assert all(others) if name == "blur" else not all(others)


@each_corruption
def test_severities_grow(name, smooth):
    distances = [(corrupted(smooth, name, severity) - smooth).square().mean().item() for severity in SEVERITIES]
    assert 0 < 1.3 * distances[0] < distances[1] < distances[2] / 1.3


@each_corruption
@each_severity
def test_gradients_flow_to_the_image(name, severity):
    image = (0.3 + 0.2 * random_images(1, 1, 6, 5, dtype=torch.float64)).requires_grad_()
    # The gradient of the clamp jumps where noise leaves [0, 1].
    grown = corrupted(image, name, severity)
    weights = random_images(*image.shape, dtype=torch.float64) * ((grown > 0.01) & (grown < 0.99))
    assert torch.autograd.gradcheck(lambda each: (weights * corrupted(each, name, severity)).sum(), image)
    (gradient,) = torch.autograd.grad(corrupted(image, name, severity).sum(), image)
    assert gradient.abs().sum() > 0


def test_what_there_is_is_listed():
    image = torch.zeros(1, 1, 4, 4)
    with pytest.raises(UserError, match=r"^the corruption must be one of noise, blur, fog, shift, missing, not 'nois'"):
        corrupted(image, "nois", 1)
    for severity in (0, 4, "1"):
        with pytest.raises(UserError, match=rf"^the severity must be one of 1, 2, 3, not {severity!r}$"):
            corrupted(image, "noise", severity)
