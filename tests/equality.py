"""Equality to the bit."""

from typing import Any

import torch


def assert_same(first: Any, second: Any, where: str = "value") -> None:
    """Compare nested plain data and tensors to the bit, with the layout of tensors and the order of keys."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert (first.dtype, first.shape, first.stride()) == (second.dtype, second.shape, second.stride()), where
        # NaN and the sign of 0 included.
        assert first.detach().numpy().tobytes() == second.detach().numpy().tobytes(), where
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for key in first:
            assert_same(first[key], second[key], f"{where}[{key!r}]")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert first == second, where
