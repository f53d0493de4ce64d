"""Network weights as safetensors files, loaded strictly."""

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from .errors import UserError
from .files import write_atomically
from .run_files import WEIGHTS_FILE


def save_weights(path: Path, state_dict: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a state dict to a file.

    Args:
        state_dict: Tensors of any device and memory format, by name.
        metadata: Texts about the weights for the header of the file.

    Raises:
        UserError: If the file cannot be written.
    """
    # Each tensor is copied, because the format refuses views and tensors that share memory.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()
    }
    write_atomically(path, safetensors.torch.save(tensors, dict(metadata)))


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict onto the CPU.

    Args:
        path: A safetensors file, or a folder with a `weights.safetensors`.

    Raises:
        UserError: If the file is missing, damaged or of another format, or a value is not finite.
    """
    if path.is_dir():
        path = path / WEIGHTS_FILE
    try:
        weights = safetensors.torch.load_file(path, device="cpu")
    except FileNotFoundError:
        raise UserError(f"no weights file {path}; check the path") from None
    except safetensors.SafetensorError:
        raise UserError(f"{path} is damaged or not a safetensors file; get it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path} holds values that are not finite, in {name}; get the file again or train anew")
    return weights


def load_into(module: nn.Module, path: Path) -> None:
    """Load weights into a network that has exactly these parameters and buffers; another one stays unchanged.

    Args:
        path: A safetensors file, or a folder with a `weights.safetensors`.

    Raises:
        UserError: If the file cannot be read, or a name, a shape or a kind of number differs.
    """
    weights = load_weights(path)
    own = module.state_dict()
    missing = [name for name in own if name not in weights]
    unexpected = [name for name in weights if name not in own]
    reshaped = [
        f"{name} is {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the network"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    retyped = [
        f"{name} is {weights[name].dtype} in the file, {own[name].dtype} in the network"
        for name in own
        if name in weights and weights[name].is_floating_point() != own[name].is_floating_point()
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped, "of another type": retyped}
    problems = [f"{len(found)} {what} (first: {found[0]})" for what, found in kinds.items() if found]
    if problems:
        raise UserError(
            f"{path}: these weights belong to another architecture: {', '.join(problems)}; "
            "use the description that was saved with them"
        )
    module.load_state_dict(weights, strict=True)
