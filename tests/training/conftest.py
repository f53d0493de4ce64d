"""What the tests of the training share: a training so small that it ends in a second."""

import pytest
import torch

from timfuse.genotypes import CellGenotype, Genotype, save_genotype
from timfuse.training import TrainConfig, train, train_conclusion, train_curves


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Tensors as small as these are slower on several threads, and so are the processes that tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """Drawing the curves would take longer than the training."""
    monkeypatch.setattr(train_conclusion, "draw_curves", lambda *arguments: None)


@pytest.fixture
def curves(monkeypatch, _no_curves):
    """For the tests that look at the curves."""
    monkeypatch.setattr(train_conclusion, "draw_curves", train_curves.draw_curves)


@pytest.fixture
def genotypes(tmp_path):
    """Two small genotypes as files: `fusion.yaml` and `refine.yaml`."""
    operators = ("residual_k3_d1", "channel_attention_k3")
    fusion = Genotype("small", "infrared-visible", "fusion", 4, (CellGenotype("successive", operators),))
    cells = tuple(CellGenotype("successive", ("spatial_attention_k3",), source) for source in ("first", "second"))
    refine = Genotype("fine", "infrared-visible", "refine", 4, cells, merge="gated")
    for name, genotype in (("fusion", fusion), ("refine", refine)):
        save_genotype(genotype, tmp_path / f"{name}.yaml")
    return tmp_path


@pytest.fixture
def tiny(tmp_path, genotypes):
    """A function that makes the config of a tiny training; keyword arguments override keys of its sections."""

    def make(run="run", *, data=None, train=None, loss=None, **top):
        content = {
            "run": str(tmp_path / run),
            "device": "cpu",
            "genotype": str(genotypes / "fusion.yaml"),
            "data": {"synthetic_pairs": 5, "crop": 16, "batch_size": 2, "validation": 0.3, **(data or {})},
            "train": {
                "steps": 12,
                "warmup": 3,
                "learning_rate": 5e-3,
                "ema": 0.8,
                "checkpoint_every": 3,
                "validate_every": 4,
                "images": 1,
                **(train or {}),
            },
            "loss": loss or {},
            **top,
        }
        return TrainConfig.model_validate(content, strict=False)

    return make


@pytest.fixture
def first_stage(tiny):
    """The folder of a trained network that a refine network can refine."""
    config = tiny("first", train={"steps": 2, "warmup": 1})
    train(config)
    return config.run
