"""What the tests of the search share: a search so small that it ends in a second, and a cache of its own."""

import pytest
import torch

from timfuse.search import SearchConfig


@pytest.fixture(autouse=True)
def _one_thread():
    """Tensors as small as these are slower on several threads, and much slower beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Latency tables of the tests stay out of the user's cache; the processes that tests start use one thread."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def tiny(tmp_path):
    """A function that makes the config of a tiny search; keyword arguments override keys of its sections."""

    def make(run="run", *, data=None, space=None, search=None, cost=None, **top):
        content = {
            "run": str(tmp_path / run),
            "device": "cpu",
            "data": {"synthetic_pairs": 6, "crop": 16, "batch_size": 2, **(data or {})},
            "space": {
                "channels": 2,
                "cells": ["successive"],
                "steps": 1,
                "operators": ["residual_k3_d1", "spatial_attention_k3", "channel_attention_k3"],
                **(space or {}),
            },
            "search": {
                "steps": 12,
                "warmup": 4,
                "checkpoint_every": 3,
                "validate_every": 6,
                "temperature": [1.0, 0.3],
                "weight_learning_rate": 2e-3,
                "weight_clip": 5.0,
                "architecture_learning_rate": 5e-3,
                "inner_loss": {"intensity": 1.0},
                "outer_loss": {"intensity": 0.5, "gradient": 0.4},
                **(search or {}),
            },
            "cost": {"height": 16, "width": 16, **(cost or {})},
            **top,
        }
        return SearchConfig.model_validate(content, strict=False)

    return make
