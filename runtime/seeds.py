"""Random seeds: one for the run, and independent ones that are derived from it by name."""

import hashlib
import json
import os
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed every global random generator and make CUDA choose deterministic kernels.

    The CPU kernels in use are deterministic. Where CUDA has no deterministic kernel, torch gives a warning and goes on.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)
    # cuBLAS reads this when it starts; without it torch cannot make matrix products deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory that is about to be overwritten costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive a seed for an independent stream of random numbers.

    Args:
        seed: Seed of the run, any integer >= 0.
        *names: Purpose of the stream, such as `"data", epoch`.

    Returns:
        A seed in [0, 2**63), the same on every machine and in every process.

    Example:
        >>> derive_seed(0, "data") == derive_seed(0, "data")
        True
        >>> derive_seed(0, "data") == derive_seed(0, "augmentation")
        False
    """
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
