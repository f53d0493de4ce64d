"""What all tests share: one thread, and the folder of real data where there is one."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from timfuse.downstream.registered import REGISTERED as TASK_NETWORKS
from timfuse.genotypes import OPERATOR_KINDS
from timfuse.operators.registration import REGISTERED

# Results of the numeric tests must not depend on a machine's speed or on chance.
settings.register_profile("timfuse", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("timfuse")
# Tensors as small as the tests' are slower on several threads, and much slower beside other work. The variable is for
# the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
# A shell lets what it runs in the background ignore Ctrl-C, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the files of slow tests, so that no process is left with one of them when all others have ended."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name}/ beside the checkout: real data and reference outputs are not tested")
    return folder


@pytest.fixture
def registrations():
    """Whatever operators and task networks a test registers are forgotten after it."""
    tables: tuple[dict[str, Any], ...] = (OPERATOR_KINDS, REGISTERED, TASK_NETWORKS)
    kept = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, kept, strict=True):
        table.clear()
        table.update(entries)
