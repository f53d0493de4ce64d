"""The metrics without reference values against their definitions, pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from timfuse.objectives.metrics import fusion_metrics


def value(name, images):
    return fusion_metrics(*images, [name])[name].item()


def entropy(p):
    p = p[p != 0]
    return -(p * np.log2(np.abs(p))).sum()


def shared_features(source, fused):
    """Normalised mutual information of two windows of nine features, by Fréchet's bounds of the joint distribution."""
    if (source == fused).all():
        return 1.0
    a, f = ((w - w.min()) / (w - w.min()).sum() if w.max() > w.min() else np.full(9, 1 / 9) for w in (source, fused))
    deviations = a - a.mean(), f - f.mean()
    scale = math.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum())
    correlation = (deviations[0] * deviations[1]).sum() / scale if scale > 1e-12 else 0.0
    below_a, below_f = a.cumsum(), f.cumsum()
    upper, lower = np.minimum.outer(below_f, below_a), np.maximum(np.add.outer(below_f, below_a) - 1, 0)
    bound = upper if correlation >= 0 else lower
    covariance = (bound - np.outer(below_f, below_a)).sum()
    places = np.arange(1, 10)
    spread = [math.sqrt(max((places**2 * p).sum() - (places * p).sum() ** 2, 0)) for p in (a, f)]
    weight = correlation * spread[0] * spread[1] / covariance if abs(covariance) > 1e-12 else 0.0
    density = np.diff(np.diff(np.pad(bound, ((1, 0), (1, 0))), axis=0), axis=1)
    joint = weight * density + (1 - weight) * np.outer(f, a)
    total = entropy(a) + entropy(f)
    return 2 * (total - entropy(joint.ravel())) / total if total > 0 else 0.0


@pytest.mark.parametrize("seed", [0, 1])
def test_feature_mutual_information(triple, seed):
    images = triple(24, 29, seed)
    fused, first, second = (np.gradient(image[0, 0].numpy().astype(float), axis=1) for image in images)
    values = []
    for i in range(22):
        for j in range(27):
            windows = [x[i : i + 3, j : j + 3].T.ravel() for x in (fused, first, second)]
            values += [shared_features(windows[1], windows[0]), shared_features(windows[2], windows[0])]
    assert value("FMI", images) == pytest.approx(np.mean(values), rel=1e-6)


def sobel(image):
    padded = np.pad(image, 1)
    height, width = image.shape
    weights = {(i, j): (1 + (i == 1)) * (j - 1) for i in range(3) for j in range(3)}
    across = sum(w * padded[i : i + height, j : j + width] for (i, j), w in weights.items())
    down = sum(w * padded[j : j + height, i : i + width] for (i, j), w in weights.items())
    return np.hypot(across, down)


@pytest.mark.parametrize("size", [(32, 48), (37, 51)])
def test_visible_difference(triple, size):
    images = triple(*size)
    fused, *sources = (image[0, 0].numpy().astype(float) for image in images)
    stretch = lambda x: np.round((x - x.min()) / (x.max() - x.min()) * 255)  # noqa: E731
    # Frequencies in cycles per picture, centred; four degrees of visual angle.
    down, across = (np.arange(n) - n // 2 for n in size)
    frequency = np.hypot(*np.meshgrid(across, down)) / 4
    sensitivity = 2.6 * (0.0192 + 0.144 * frequency) * np.exp(-((0.144 * frequency) ** 1.1))
    weighted = weights = 0.0
    for source in sources:
        spectrum = np.fft.fftshift(np.fft.fft2(stretch(source) - stretch(fused))) * sensitivity
        visible = np.fft.ifft2(np.fft.ifftshift(spectrum)).real ** 2
        saliency = sobel(stretch(source)) ** 5
        for i in range(0, size[0], 16):
            for j in range(0, size[1], 16):
                weight = saliency[i : i + 16, j : j + 16].sum()
                weighted += weight * visible[i : i + 16, j : j + 16].sum() / 256
                weights += weight
    assert value("Qcv", images) == pytest.approx(weighted / weights, rel=1e-9)


@pytest.mark.parametrize("size", [(176, 180), (191, 177)])
def test_multiscale_similarity(triple, size):
    images = triple(*size)
    offsets = torch.arange(-5, 6).double()
    taps = torch.exp(-offsets.square() / 4.5)
    kernel = (torch.outer(taps, taps) / taps.sum() ** 2)[None, None]
    expected = 0.0
    for source in images[1:]:
        x, y, product = images[0].double(), source.double(), 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            mean_x, mean_y, xx, yy, xy = (F.conv2d(z, kernel) for z in (x, y, x * x, y * y, x * y))
            factor = (2 * (xy - mean_x * mean_y) + 7.65**2) / (xx - mean_x**2 + yy - mean_y**2 + 7.65**2)
            if scale == 4:
                factor = factor * (2 * mean_x * mean_y + 2.55**2) / (mean_x**2 + mean_y**2 + 2.55**2)
            product *= factor.mean().item() ** weight
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        expected += product / 2
    assert value("MS-SSIM", images) == pytest.approx(expected, rel=1e-6)


def test_normalised_information(triple):
    images = triple(30, 40)
    fused, *sources = (image[0, 0].numpy().ravel().astype(int) for image in images)
    of_fused = entropy(np.bincount(fused) / fused.size)
    expected = 0.0
    for source in sources:
        joint = np.bincount(256 * source + fused) / fused.size
        total = of_fused + entropy(np.bincount(source) / fused.size)
        expected += 2 * (total - entropy(joint)) / total
    assert value("NMI", images) == pytest.approx(expected, rel=1e-12)
