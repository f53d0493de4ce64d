"""Configs of runs so small that they end in a second, one function for each stage, and networks for them."""

from pathlib import Path
from typing import Any, TypeVar

from timfuse.finetune import FinetuneConfig
from timfuse.genotypes import CellGenotype, Genotype, save_genotype
from timfuse.meta_init import MetaInitConfig
from timfuse.runtime.config import Section, config_to_yaml
from timfuse.search import SearchConfig
from timfuse.training import TrainConfig

T = TypeVar("T", bound=Section)

ONE_CELL = (CellGenotype("successive", ("residual_k3_d1", "channel_attention_k3")),)
TWO_SIDES = tuple(CellGenotype("successive", ("spatial_attention_k3",), side) for side in ("first", "second"))
NETWORKS = {
    "fusion": Genotype("small", "infrared-visible", "fusion", 4, ONE_CELL),
    "refine": Genotype("fine", "infrared-visible", "refine", 4, TWO_SIDES, merge="gated"),
    # With this head fresh weights fuse to about the maximum, so that no loss is out of reach.
    "envelope": Genotype("small", "infrared-visible", "fusion", 2, ONE_CELL, head="envelope"),
}
NOTHING = {"intensity": 0.0, "gradient": 0.0, "ssim": 0.0}
TASKS = {  # quick losses, of which the first wants the brighter source and the second the middle of both
    "infrared-visible": {"loss": {**NOTHING, "brighter": 1.0}},
    "mri-ct": {"weight": 0.5, "loss": {**NOTHING, "intensity": 1.0}},
}
DETECTION = {"kind": "detection", "width": 8, "learning_rate": 5e-3}


def write_networks(folder: Path) -> Path:
    """Write the file of each of `NETWORKS`, such as fusion.yaml, into a folder."""
    for name, genotype in NETWORKS.items():
        save_genotype(genotype, folder / f"{name}.yaml")
    return folder


def write_config(config: Section) -> str:
    """Write a config beside its run folder, and return the file's name."""
    path = config.run.with_suffix(".yaml")
    path.write_text(config_to_yaml(config), encoding="utf-8")
    return str(path)


def tiny_training(run: Path, networks: Path, **changes: Any) -> TrainConfig:
    """Make the config of a training of the network of `NETWORKS` in a folder; keyword arguments change its keys."""
    return _config(
        TrainConfig,
        run,
        changes,
        genotype=str(networks / "fusion.yaml"),
        data={"synthetic_pairs": 5, "crop": 16, "batch_size": 2, "validation": 0.3},
        train={
            "steps": 12,
            "warmup": 3,
            "learning_rate": 5e-3,
            "ema": 0.8,
            "checkpoint_every": 3,
            "validate_every": 4,
            "images": 1,
        },
        loss={},
    )


def tiny_search(run: Path, **changes: Any) -> SearchConfig:
    """Make the config of a search; keyword arguments change its keys."""
    return _config(
        SearchConfig,
        run,
        changes,
        data={"synthetic_pairs": 6, "crop": 16, "batch_size": 2},
        space={
            "preset": "tim",
            "channels": 2,
            "cells": ["successive"],
            "steps": 1,
            "operators": ["residual_k3_d1", "spatial_attention_k3", "channel_attention_k3"],
        },
        search={
            "steps": 12,
            "warmup": 4,
            "checkpoint_every": 3,
            "validate_every": 6,
            "estimator": "gauss_newton",
            "mixture": "softmax",
            "temperature": [1.0, 0.3],
            "weight_learning_rate": 2e-3,
            "weight_clip": 5.0,
            "architecture_learning_rate": 5e-3,
            "inner_loss": {"intensity": 1.0},
            "outer_loss": {"intensity": 0.5, "gradient": 0.4},
        },
        cost={"height": 16, "width": 16},
        verify={"candidates": 0},
    )


def tiny_meta_initialisation(run: Path, networks: Path, **changes: Any) -> MetaInitConfig:
    """Make the config of a meta-initialisation; keyword arguments change its keys."""
    return _config(
        MetaInitConfig,
        run,
        changes,
        genotype=str(networks / "fusion.yaml"),
        data={"synthetic_pairs": 8, "crop": 20, "support": 2, "query": 2, "validation": 0.2},
        tasks=TASKS,
        inner={"steps": 2, "learning_rate": 5e-3},
        meta={
            "algorithm": "fomaml",
            "pretrain": 2,
            "steps": 4,
            "warmup": 1,
            "pretrain_learning_rate": 5e-3,
            "learning_rate": 5e-3,
            "validate_every": 4,
            "checkpoint_every": 3,
        },
    )


def tiny_finetuning(run: Path, networks: Path, **changes: Any) -> FinetuneConfig:
    """Make the config of a finetuning for detection; keyword arguments change its keys."""
    return _config(
        FinetuneConfig,
        run,
        changes,
        init=None,
        genotype=str(networks / "envelope.yaml"),
        data={"synthetic_pairs": 5, "crop": 64, "batch_size": 2, "validation": 0.4},
        downstream=DETECTION,
        guidance={"strategy": "joint", "detector_steps": 2},
        train={
            "steps": 4,
            "warmup": 1,
            "learning_rate": 5e-3,
            "ema": 0.5,
            "validate_every": 2,
            "checkpoint_every": 2,
            "images": 1,
        },
        loss={},
    )


def _config(kind: type[T], run: Path, changes: dict[str, Any], **defaults: Any) -> T:
    """Make a config; a section that is changed keeps the keys that the change leaves out, but for the tasks."""
    content = {"run": str(run), "device": "cpu", **defaults, **changes}
    for name, section in changes.items():
        if isinstance(section, dict) and isinstance(defaults.get(name), dict) and name != "tasks":
            content[name] = defaults[name] | section
    return kind.model_validate(content, strict=False)
