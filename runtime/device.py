"""Devices: choosing one by its name, and describing it in reports."""

import platform
from pathlib import Path

import torch

from .errors import UserError


def select_device(name: str, number: int = 0) -> torch.device:
    """Choose a device.

    Args:
        name: Name of the device: `auto` (a CUDA device, or else the CPU), `cpu`, `cuda`, `cuda:1`, ... or `mps`.
        number: Index of the CUDA device if the name has none, >= 0.

    Raises:
        UserError: If the name is unknown or there is no such device.

    Example:
        >>> select_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (kind != "cuda" and index) or (":" in name and not index.isdecimal()):
        raise UserError(f"unknown device {name}; use auto, cpu, cuda, cuda:1 or mps")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                f"device {name} is not available: torch finds no CUDA device; use --set device=cpu or --device cpu"
            )
        number = int(index or number)
        if number >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise UserError(f"device cuda:{number} is not available; the last one is cuda:{last}")
        return torch.device("cuda", number)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps is not available on this machine; use --set device=cpu or --device cpu")
    return torch.device(kind)


def device_name(device: torch.device) -> str:
    """Name a GPU by its model, or the CPU by its model and the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    model = _cpu_model()
    return f"{model} (mps)" if device.type == "mps" else f"{model}, {threads} thread{'s' if threads > 1 else ''}"


def _cpu_model() -> str:
    """Read the model from Linux's list of processors, or else from Python."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()
