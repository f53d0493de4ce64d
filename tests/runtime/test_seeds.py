import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timfuse.runtime.checkpoint import capture_rng, restore_rng
from timfuse.runtime.seeds import derive_seed, seed_everything


@pytest.fixture(autouse=True)
def _leave_the_process_as_it_was():
    rng = capture_rng()
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield
    restore_rng(rng)
    torch.use_deterministic_algorithms(deterministic)


@pytest.mark.parametrize("seed", [0, 7, 2**40, 2**63 - 1])
def test_the_same_seed_gives_the_same_numbers(seed):
    def draw():
        seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first = draw()
    assert draw() == first
    seed_everything(seed - 1 if seed else 1)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) != first


@given(seed=st.integers(0, 2**64), names=st.lists(st.text() | st.integers(), min_size=1, max_size=3))
def test_a_derived_seed_suits_every_generator(seed, names):
    derived = derive_seed(seed, *names)
    assert 0 <= derived < 2**63
    torch.Generator().manual_seed(derived)
    np.random.default_rng(derived)


def test_derived_seeds_are_apart():
    names = [(), ("a",), ("a", "b"), ("ab",), ("b", "a"), (1,), ("1",), ("a", 0), ("a", 1)]
    seeds = {derive_seed(seed, *name) for seed in range(100) for name in names}
    assert len(seeds) == 100 * len(names)


def test_derived_seeds_are_the_same_in_every_process():
    program = "from timfuse.runtime.seeds import derive_seed; print(derive_seed(3, 'data', 1))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {str(derive_seed(3, "data", 1))}
