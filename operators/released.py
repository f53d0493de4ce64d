"""Converts the weights that the authors of TIM published, whose code has other names for the parts of a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import UserError
from .cells import Chain, DecompositionCell, MultiScaleCell, SuccessiveCell
from .networks import FusionNetwork, RefineNetwork
from .primitives import ChannelAttention, Dense, Dilated, NonLocal, Residual, Separable, SpatialAttention
from .sampling import BlurPool, ResidualDown, ResidualUp, SelectiveKernelFusion

# For each module: name of a part -> its name in the published code.
RELEASED_NAMES: dict[type[nn.Module], dict[str, str]] = {
    Dense: {"first": "conv1.conv", "second": "conv2.conv", "third": "conv3.conv", "activation": "lrelu"},
    Residual: {"convolutions.0": "op.0.conv", "convolutions": "op", "norm": "op.3", "activation": "op.4"},
    Dilated: {"convolutions.1": "op.1.conv", "convolutions": "op", "norm": "op.3"},
    Separable: {"convolutions": "op", "norm": "op.7"},
    ChannelAttention: {"gate": "se.conv", "convolution": "conv1", "activation": "relu"},
    SpatialAttention: {"gate": "se.spatial.conv"},
    NonLocal: {
        "entry": "conv1",
        "exit": "conv2.conv",
        "query": "se.theta",
        "key": "se.phi",
        "value": "se.g",
        "output": "se.W",
        "activation": "relu",
    },
    SuccessiveCell: {"preprocess": "preprocess1.op", "operators": "_ops"},
    MultiScaleCell: {
        "preprocess": "preprocess1.op",
        "down_half": "down_2.body.0",
        "down_quarter": "down_4.body",
        "operators": "_ops",
        "operators_half": "_ops_1",
        "operators_quarter": "_ops_2",
        "up_half": "upsample_2.body.0",
        "up_quarter": "upsample_4.body",
        "merge": "SKFF",
    },
    DecompositionCell: {
        "low_projection": "conv1x1_lf",
        "high_projection": "conv1x1_hf",
        "low_operators": "_ops_1",
        "high_operators": "_ops_2",
        "merge": "conv1x1_concat",
        "residual": "enchance_concat.op",
    },
    ResidualDown: {"convolved": "top", "plain": "bot"},
    ResidualUp: {"convolved": "top", "plain": "bot.1"},
    SelectiveKernelFusion: {"squeeze": "conv_du", "excite": "fcs"},
    FusionNetwork: {
        **{f"stem.{i}": f"stem.{i}.conv2d" for i in (0, 2)},
        **{f"head.{i}": f"stem_out.{i}.conv2d" for i in (0, 2, 3)},
        "head": "stem_out",
    },
    # The published second stage has cells2 on the branch of stem3 and cells3 on the branch of stem2.
    RefineNetwork: {
        **{f"first_stem.{i}": f"stem2.{i}.conv2d" for i in (0, 2)},
        **{f"second_stem.{i}": f"stem3.{i}.conv2d" for i in (0, 2)},
        **{f"first_head.{i}": f"stem_out2.{i}.conv2d" for i in (0, 2, 3)},
        **{f"second_head.{i}": f"stem_out3.{i}.conv2d" for i in (0, 2, 3)},
        **{f"head.{i}": f"stem_out4.{i}.conv2d" for i in (0, 1, 2)},
        "first_stem": "stem2",
        "second_stem": "stem3",
        "first_cells": "cells3",
        "second_cells": "cells2",
        "first_head": "stem_out2",
        "second_head": "stem_out3",
        "gate": "spa.spatial.conv",
    },
}


def released_name(module: nn.Module, key: str) -> str:
    """Translate the name of a parameter or buffer of a module into that of the published code."""
    names = RELEASED_NAMES.get(type(module), {})
    head, _, rest = key.partition(".")
    longest = ".".join(key.split(".")[:2])
    for part in (longest, head):
        if part in names and part != key:
            remainder = key[len(part) + 1 :]
            return f"{names[part]}.{released_name(module.get_submodule(part), remainder)}"
    if not rest:
        return key
    renamed = f"{head}._op" if isinstance(module, Chain) else head
    return f"{renamed}.{released_name(module.get_submodule(head), rest)}"


def read_released(path: Path) -> dict[str, Tensor]:
    """Read a state dict of the published code, without running code in the file.

    Args:
        path: A file of `torch.save` with the state dict, or a mapping with the state dict at "state_dict" or "model".

    Raises:
        UserError: If the file is missing, damaged or holds anything but tensors by name, or a value is not finite.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path") from None
    except Exception:
        # torch raises errors of many kinds for damaged and foreign files.
        raise UserError(f"{path} is damaged or holds more than tensors; name a state dict saved by torch") from None
    for key in ("state_dict", "model"):
        content = content.get(key, content) if isinstance(content, dict) else None
    if not isinstance(content, dict) or not content or not all(map(_is_weight, content, content.values())):
        raise UserError(f"{path} holds no state dict; save model.state_dict() with torch.save")
    for name, tensor in content.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path} holds values that are not finite, in {name}; get the file again")
    return dict(content)


def _is_weight(name: object, tensor: object) -> bool:
    if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.is_meta:  # a meta tensor has no values
        return False
    return tensor.layout == torch.strided and not (tensor.is_complex() or tensor.is_quantized)


def convert_released(module: nn.Module, released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a state dict of the published code into one that a module loads strictly.

    Args:
        released: The published tensors by name; names may start with "module.", as `DataParallel` saves them.

    Raises:
        UserError: If a tensor is missing, left over or of another shape, because the genotype is another.

    Example:
        >>> from timfuse.operators import build_operator
        >>> published = {"conv1.weight": torch.ones(4, 4, 3, 3), "relu.weight": torch.ones(1)}
        >>> published["se.conv.weight"] = torch.ones(1, 1, 3)
        >>> list(convert_released(build_operator("channel_attention_k3", 4), published))
        ['gate.weight', 'convolution.weight', 'activation.weight']
    """
    remaining = {key.removeprefix("module."): tensor for key, tensor in released.items()}
    binomial = BlurPool(1).kernel
    for key in [key for key in remaining if key.endswith(".filt")]:  # constants of the published blur pooling
        constant = remaining.pop(key)
        if constant.shape[1:] != binomial.shape[1:] or not (constant == binomial).all():
            raise UserError(f"{key} is not the binomial 3x3 filter of the published networks; it cannot be imported")
    converted = {}
    for key, tensor in module.state_dict().items():
        name = released_name(module, key)
        if name not in remaining:
            raise UserError(f"the weights have no {name} {tuple(tensor.shape)}; they belong to another genotype")
        value = remaining.pop(name)
        if value.shape != tensor.shape:
            raise UserError(
                f"{name} has shape {tuple(value.shape)}, the genotype needs {tuple(tensor.shape)};"
                " check the genotype and its number of channels"
            )
        converted[key] = value.to(tensor.dtype)
    if remaining:
        raise UserError(
            f"the genotype has no place for {len(remaining)} weights, first {next(iter(remaining))};"
            " they belong to another genotype"
        )
    return converted
