"""Image pairs, fused images of two methods and networks, small and made here."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from timfuse.data import match_pairs
from timfuse.downstream.guiding_detectors import GuidingDetectors, keep_guiding_detectors
from timfuse.genotypes import CellGenotype, Genotype, save_genotype
from timfuse.operators import build_network
from timfuse.runtime.weights import save_weights


@pytest.fixture
def folders(tmp_path):
    """Folders ir/ and vis/ with three pairs of different sizes, dark/ and bright/ with their fused images."""
    generator = np.random.default_rng(0)
    for index, (width, height) in enumerate([(64, 48), (50, 70), (90, 61)]):
        rows, columns = np.mgrid[:height, :width]
        disc = 200.0 * ((rows - 20) ** 2 + (columns - 30) ** 2 < 80)
        stripes = 100 + 60 * np.sin(columns / 3 + index)
        images = {"ir": disc, "vis": stripes, "dark": (disc + stripes) / 3, "bright": np.maximum(disc, stripes) + 10}
        for folder, image in images.items():
            noisy = np.clip(np.rint(image + generator.normal(0, 5, image.shape)), 0, 255).astype(np.uint8)
            colour = folder in ("vis", "bright")
            (tmp_path / folder).mkdir(exist_ok=True)
            saved = np.stack([noisy, noisy, noisy // 2], axis=-1) if colour else noisy
            Image.fromarray(saved).save(tmp_path / folder / f"scene_{index}.png")
    return tmp_path


@pytest.fixture
def pairs(folders):
    """The pairs of the folders."""
    return match_pairs(str(folders / "ir"), str(folders / "vis"))


@pytest.fixture
def methods(folders, pairs):
    """The fused images of the two methods."""
    return {name: [folders / name / f"{pair.name}.png" for pair in pairs] for name in ("dark", "bright")}


@pytest.fixture
def write_network():
    """A function that makes a network folder: the genotype, and weights that leave no part zero or the identity."""

    def write(folder, genotype, seed=0):
        network = build_network(genotype)
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2.0, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0.0, max(1, tensor[0].numel()) ** -0.5, generator=generator)
        save_weights(folder / "weights.safetensors", network.state_dict(), {})
        save_genotype(genotype, folder / "genotype.yaml")
        return folder

    return write


@pytest.fixture
def write_guiding_detectors():
    """A function that puts guiding detectors into a network folder, with an attention that differs over an image."""

    def write(folder):
        torch.manual_seed(0)
        detectors = GuidingDetectors(["person"], 4)
        norms = [module for module in detectors.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
            norm.bias.data.uniform_(-0.5, 0.5)
        with torch.no_grad():
            detectors.attention(*torch.rand(2, 4, 1, 64, 64))
        keep_guiding_detectors(detectors, folder)
        return detectors.eval()

    return write


@pytest.fixture
def fusion_genotype():
    """A function that makes a small genotype of some operators."""

    def make(*operators, kind="successive", channels=4, **options):
        cells = (CellGenotype(kind, operators or ("residual_k3_d1", "dilated_k3_d2")),)
        return Genotype("small", options.pop("task", "infrared-visible"), "fusion", channels, cells, **options)

    return make


@pytest.fixture
def network_folder(tmp_path, write_network, fusion_genotype):
    """A small network with random weights."""
    return write_network(tmp_path / "network", fusion_genotype())
