"""What the tests of costs share: a cache of their own, and a target whose clock counts."""

from dataclasses import dataclass, field

import pytest
import torch

from timfuse.cost import DeploymentTarget


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Latency tables of the tests stay out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@dataclass(frozen=True)
class CountingTarget(DeploymentTarget):
    """The n-th forward pass that is measured on it takes n milliseconds."""

    measured: list = field(default_factory=list)

    def measure(self, passes, progress=None):
        times = []
        for forward in passes:
            self.measured.append(forward)
            forward()
            times.append(float(len(self.measured)))
        return times


@pytest.fixture
def counting():
    """A function that makes such a target for images of a height and a width."""
    return lambda height, width: CountingTarget(height, width, torch.device("cpu"))
