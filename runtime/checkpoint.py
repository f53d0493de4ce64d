"""Training checkpoints, written atomically and read without running anything in them."""

import random
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .errors import UserError
from .files import write_atomically

# What torch.load(weights_only=True) reads back; exact types, because numpy's float64 is a subclass of float.
_PLAIN = (bool, int, float, str, bytes, type(None), torch.Size)
_CONTAINERS = (dict, OrderedDict, Counter, list, tuple, set)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; a kill at any moment leaves the old one or the new one.

    Args:
        state: Nested containers of tensors, numbers and text.

    Raises:
        TypeError: If the state holds an object that `load_checkpoint` would refuse.
        UserError: If the file cannot be written.
    """
    _check_plain(state, "state")

    def write(file: BinaryIO) -> None:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            # After a failed write torch closes its archive, which fails too and hides the reason.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None

    write_atomically(path, write)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read the state in a checkpoint onto the CPU.

    Raises:
        UserError: If the file is missing, damaged, or anything but a checkpoint of tensors and plain data.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch itself does not compare the checksums of what it reads.
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(damaged)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no checkpoint {path}; start the run without --resume") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:
        # A damaged or foreign file can make the reader fail in any way.
        raise UserError(f"{path} is damaged or not a checkpoint; start the run anew with --overwrite") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a checkpoint of a run; start the run anew with --overwrite")
    return state


@contextmanager
def restoring(run: Path) -> Iterator[None]:
    """Turn the errors of a state that does not accept a checkpoint into one line.

    Raises:
        UserError: If an entry is missing or of another kind or shape.
    """
    try:
        yield
    except (LookupError, AttributeError, ArithmeticError, RuntimeError, ValueError, TypeError):
        raise UserError(
            f"the checkpoint in {run} is of another architecture or program; start anew with --overwrite"
        ) from None


def check_alike(saved: Any, own: Any, where: str) -> None:
    """Compare a part of a checkpoint with what it will replace, since many parts of torch take whatever they are given.

    Args:
        own: The state before it is replaced; what is None or empty in it may hold more in a checkpoint. Moments of an
            optimiser are compared by `load_optimizer`.

    Raises:
        ValueError: If an entry is missing or of another kind, layout or shape, or holds NaN.
    """
    if own is None:
        return
    if isinstance(own, torch.Tensor):
        if not isinstance(saved, torch.Tensor) or saved.layout != own.layout:
            raise ValueError(f"{where} is no tensor of the layout {own.layout}")
        if saved.shape != own.shape or saved.dtype != own.dtype:
            raise ValueError(f"{where} is no tensor of the shape {tuple(own.shape)} and the type {own.dtype}")
        if saved.isnan().any():
            raise ValueError(f"{where} holds values that are not finite")
    elif not isinstance(saved, dict if isinstance(own, dict) else type(own)):
        raise ValueError(f"{where} is a {type(saved).__name__} instead of a {type(own).__name__}")
    elif isinstance(own, dict):
        for key, value in own.items():
            check_alike(saved[key], value, f"{where}[{key!r}]")
    elif isinstance(own, (list, tuple)) and len(own) == len(saved):
        for index, value in enumerate(own):
            check_alike(saved[index], value, f"{where}[{index}]")


def load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load the state of an optimiser if it is like its own after a step; torch takes any, and can crash later.

    Raises:
        ValueError: If a moment is of another kind or shape than its parameter needs, or a setting but the learning rate
            differs. What is missing raises its own error.
    """
    trial = deepcopy(optimizer)
    for parameter in (parameter for group in trial.param_groups for parameter in group["params"]):
        parameter.grad = torch.zeros_like(parameter)
    step = type(trial).step
    getattr(step, "__wrapped__", step)(trial)  # without the hooks on the steps of all optimisers
    own = trial.state_dict()
    for index, moments in saved["state"].items():  # parameters that no step has reached have none
        check_alike(moments, own["state"][index], f"state[{index}]")
        if not moments.get("step", 1) >= 1:  # Adam divides by a power of it
            raise ValueError(f"state[{index}] is of step {moments['step']}")
    for mine, theirs in zip(own["param_groups"], saved["param_groups"], strict=True):
        if mine | {"lr": 0} != theirs | {"lr": 0}:
            raise ValueError(f"the settings of the optimiser were {theirs} and are {mine}")
    optimizer.load_state_dict(saved)


def capture_rng() -> dict[str, Any]:
    """Return the state of every global random generator: Python, numpy, torch on the CPU and each CUDA device."""
    name, keys, position, has_gauss, cached_gaussian = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached_gaussian),
        "torch": torch.get_rng_state(),
        # Asking an unused GPU for its state would start it.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Set every global random generator to the result of `capture_rng`; missing CUDA devices are ignored.

    Raises:
        ValueError: If a state is of another kind. Anything else that does not fit raises its own error.
    """
    own = capture_rng()
    for name in ("numpy", "torch"):
        check_alike(state[name], own[name], name)
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    for index, device_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(device_state, index)


def _check_plain(value: Any, where: str) -> None:
    """Refuse, at saving, an object that could not be loaded again."""
    if isinstance(value, dict) and type(value) in _CONTAINERS:
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in _CONTAINERS:
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    elif not isinstance(value, torch.Tensor) and type(value) not in _PLAIN:
        raise TypeError(f"{where} is a {type(value).__qualname__}; a checkpoint holds tensors and plain data only")
