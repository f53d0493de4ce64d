"""What the tests of the finetuning for a task share: finetunings so small that they end in a second."""

import pytest

from timfuse.data import write_scenes
from timfuse.finetune import FinetuneConfig
from timfuse.genotypes import CellGenotype, Genotype, save_genotype

NAMES = tuple(f"scene_{index:05d}" for index in range(5))


@pytest.fixture(scope="session")
def configured(tmp_path_factory):
    """A function that makes the config of a tiny finetuning in a folder; keyword arguments override keys."""
    pytest.importorskip("faster_coco_eval")
    network = tmp_path_factory.mktemp("networks") / "small.yaml"
    cell = CellGenotype("successive", ("residual_k3_d1", "channel_attention_k3"))
    # With this head fresh weights fuse to about the maximum, so that neither loss is out of reach.
    save_genotype(Genotype("small", "infrared-visible", "fusion", 2, (cell,), head="envelope"), network)

    def make(run, *, data=None, downstream=(), guidance=None, train=None, loss=(), **top):
        content = {
            "run": str(run),
            "device": "cpu",
            "init": None,
            "genotype": str(network),
            "data": {"synthetic_pairs": 5, "crop": 64, "batch_size": 2, "validation": 0.4, **(data or {})},
            "downstream": None if downstream is None else {"width": 8, "learning_rate": 5e-3, **dict(downstream)},
            "guidance": {"strategy": "joint", "detector_steps": 2, **(guidance or {})},
            "train": {
                "steps": 4,
                "warmup": 1,
                "learning_rate": 5e-3,
                "ema": 0.5,
                "validate_every": 2,
                "checkpoint_every": 2,
                "images": 1,
                **(train or {}),
            },
            "loss": None if loss is None else dict(loss),
            **top,
        }
        return FinetuneConfig.model_validate(content, strict=False)

    return make


@pytest.fixture
def tiny(tmp_path, configured):
    """The same for a run of a test's own, by its name."""
    return lambda run="run", **sections: configured(tmp_path / run, **sections)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A data set of five labelled pairs, the last two for validation."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, len(NAMES), height=64, width=96, seed=0)
    (root / "train.txt").write_text("\n".join(NAMES[:3]))
    (root / "val.txt").write_text("\n".join(NAMES[3:]))
    return root
