"""What these tests share: small image folders, and a meta-initialisation that ends in a second."""

import numpy as np
import pytest
import torch

from timfuse.data import write_pixels
from timfuse.genotypes import CellGenotype, Genotype, save_genotype
from timfuse.meta_init import MetaInitConfig, adaptation_curves, few_shot, meta_init_conclusion, meta_init_recipe
from timfuse.meta_init.meta_init_config import DataSection, TaskSection

EPISODES = meta_init_recipe.VALIDATION_EPISODES
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
NOTHING = {"intensity": 0.0, "gradient": 0.0, "ssim": 0.0}
TASKS = {  # quick losses, of which the first wants the brighter source and the second the middle of both
    "infrared-visible": {"loss": {**NOTHING, "brighter": 1.0}},
    "mri-ct": {"weight": 0.5, "loss": {**NOTHING, "intensity": 1.0}},
    "multi-focus": {"weight": 0.0, "loss": {**NOTHING, "gradient": 1.0}},
}


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


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Tensors as small as these are slower on several threads, and so are the processes that tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _short_end(monkeypatch):
    """The curves at the end, and drawing them, would take longer than the training."""
    monkeypatch.setattr(meta_init_conclusion, "STEPS", (0, 1, 2))
    monkeypatch.setattr(meta_init_conclusion, "EPISODES", 1)
    monkeypatch.setattr(meta_init_recipe, "VALIDATION_EPISODES", 1)
    for module, name in (
        (meta_init_conclusion, "draw_adaptation"),
        (meta_init_conclusion, "draw_training"),
        (few_shot, "draw_adaptation"),
    ):
        monkeypatch.setattr(module, name, lambda *arguments: [])


@pytest.fixture
def like_a_process(monkeypatch, _short_end):
    """For the tests that compare with processes of their own, in which nothing is changed."""
    monkeypatch.setattr(meta_init_recipe, "VALIDATION_EPISODES", EPISODES)


@pytest.fixture
def drawn(monkeypatch, _short_end):
    """For the tests that look at the adaptation_curves."""
    monkeypatch.setattr(meta_init_conclusion, "draw_adaptation", adaptation_curves.draw_adaptation)
    monkeypatch.setattr(meta_init_conclusion, "draw_training", adaptation_curves.draw_training)
    monkeypatch.setattr(few_shot, "draw_adaptation", adaptation_curves.draw_adaptation)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder with a small data set of each task in `NAMES`; that of `thermal` has its second images in colour."""
    root = tmp_path_factory.mktemp("data")
    for task, names in NAMES.items():
        write_pairs(root / task, names, FOLDERS[task], coloured=task == "thermal")
    return root


@pytest.fixture
def genotype(tmp_path):
    """The file of a small genotype with batch normalisation."""
    cell = CellGenotype("successive", ("residual_k3_d1",))
    save_genotype(Genotype("small", "infrared-visible", "fusion", 4, (cell,)), tmp_path / "small.yaml")
    return tmp_path / "small.yaml"


@pytest.fixture
def tiny(tmp_path, folders, genotype):
    """A function that makes a tiny config; keyword arguments override keys of its sections."""

    def make(run="run", *, data=None, inner=None, meta=None, **top):
        content = {
            "run": str(tmp_path / run),
            "device": "cpu",
            "genotype": str(genotype),
            "data": {"root": str(folders), "crop": 20, "support": 2, "query": 2, "validation": 0.2, **(data or {})},
            "tasks": TASKS,
            "inner": {"steps": 2, "learning_rate": 5e-3, **(inner or {})},
            "meta": {
                "pretrain": 2,
                "steps": 4,
                "warmup": 1,
                "pretrain_learning_rate": 5e-3,
                "learning_rate": 5e-3,
                "validate_every": 4,
                "checkpoint_every": 3,
                **(meta or {}),
            },
            **top,
        }
        return MetaInitConfig.model_validate(content, strict=False)

    return make


@pytest.fixture
def sections():
    """A function that makes the sections of tasks, as in a config."""
    return lambda **tasks: {
        name.replace("_", "-"): TaskSection.model_validate(content, strict=False) for name, content in tasks.items()
    }


@pytest.fixture
def small_data(folders):
    """The section of the data in `folders`."""
    return DataSection(root=folders, crop=20, support=2, query=2, validation=0.2)
