"""What the tests of the meta-initialisation share: small image folders, and a run that has ended."""

import numpy as np
import pytest
import torch

from timfuse.data import write_pixels
from timfuse.meta_init import meta_initialise

from ..tiny_runs import NOTHING, TASKS, tiny_meta_initialisation, write_networks

SIZE = 28  # pixels, of the images
NAMES = {
    "infrared-visible": [f"{index:05d}" for index in range(10)],
    "mri-ct": [f"{patient}{part:03d}" for patient in (12, 7, 31, 102) for part in (8, 9, 10)],
    "multi-focus": [f"set{index}" for index in range(8)],
    "thermal": ["alley", "bridge", "court", "dock", "estate", "farm", "garage", "hall"],
}
FOLDERS = {
    "infrared-visible": ("ir", "vis"),
    "mri-ct": ("mri", "ct"),
    "multi-focus": ("near", "far"),
    "thermal": ("xray", "neutron"),
}
ONE_TASK = {"infrared-visible": TASKS["infrared-visible"]}
HELD_OUT = {"weight": 0.0, "loss": {**NOTHING, "gradient": 1.0}}
THERMAL = {"sources": ["xray", "neutron"], "colour": "second", "loss": {**NOTHING, "brighter": 1.0}}


def blobs(seed, channels=1):
    """A smooth random image, (SIZE, SIZE) or in colour (SIZE, SIZE, 3), uint8."""
    coarse = torch.rand(1, channels, 5, 5, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1)[0]
    pixels = (255 * image).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0))


def write_pairs(root, names, folders, *, coloured=False):
    """Write a data set of small pairs; the second images are in colour where asked for."""
    for index, name in enumerate(names):
        for side, folder in enumerate(folders):
            write_pixels(root / folder / f"{name}.png", blobs(2 * index + side, 3 if side and coloured else 1))
    return root


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder with a small data set of each task in `NAMES`; that of `thermal` has its second images in colour."""
    root = tmp_path_factory.mktemp("data")
    for task, names in NAMES.items():
        write_pairs(root / task, names, FOLDERS[task], coloured=task == "thermal")
    return root


@pytest.fixture(scope="session")
def genotype(tmp_path_factory):
    """The file of a small genotype with batch normalisation."""
    return write_networks(tmp_path_factory.mktemp("networks")) / "fusion.yaml"


@pytest.fixture(scope="session")
def configured(folders, genotype):
    """A function that makes the config of a run folder; keyword arguments change keys of its sections."""

    def make(run, *, data=None, **sections):
        return tiny_meta_initialisation(run, genotype.parent, data={"root": str(folders), **(data or {})}, **sections)

    return make


@pytest.fixture
def tiny(tmp_path, configured):
    """The same for a run of a test's own, by its name."""
    return lambda run="run", **sections: configured(tmp_path / run, **sections)


@pytest.fixture(scope="session")
def finished(configured, tmp_path_factory):
    """The config and the result of one meta-initialisation, with a task that is held out and one of a user's own."""
    config = configured(
        tmp_path_factory.mktemp("runs") / "finished",
        seed=7,
        tasks={**TASKS, "multi-focus": HELD_OUT, "thermal": THERMAL},
        meta={"pretrain": 10, "steps": 15, "validate_every": 6, "rate_learning_rate": 0.1},
    )
    return config, meta_initialise(config)
