"""What all tests share: few threads, and the folder of real data where there is one."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Results of the numeric tests must not depend on a machine's speed or on chance.
settings.register_profile("timfuse", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("timfuse")
torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name}/ beside the checkout: real data and reference outputs are not tested")
    return folder
