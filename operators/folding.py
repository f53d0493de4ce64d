"""Folds batch normalisations into the convolutions before them."""

import copy
from typing import TypeVar

import torch
from torch import nn

from .normalisation import BatchNorm, NoNorm
from .primitives import Dilated, Inverted, Plain, Residual, Separable
from .registration import without_registered

M = TypeVar("M", bound=nn.Module)


def fold_batch_norm(network: M) -> M:
    """Fold every batch normalisation into the convolution before it, except inside registered operators.

    Returns:
        A copy in evaluation mode, with the same output up to rounding.

    Example:
        >>> from timfuse.operators import build_operator
        >>> type(fold_batch_norm(build_operator("dilated_k3_d1", 4)).norm).__name__
        'NoNorm'
    """
    network = copy.deepcopy(network).eval()
    for module in list(without_registered(network)):
        if isinstance(module, nn.Sequential):
            for index in range(1, len(module)):
                module[index] = _folded(module[index - 1], module[index])
        elif isinstance(module, Residual | Dilated | Separable | Plain | Inverted):
            module.norm = _folded(module.convolutions[-1], module.norm)
    return network


@torch.no_grad()
def _folded(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    """Fold a normalisation into the convolution before it, and return the module that replaces it."""
    if not (isinstance(norm, BatchNorm) and isinstance(convolution, nn.Conv2d)):
        return norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - scale * norm.running_mean.double()
    if convolution.bias is not None:
        shift += scale * convolution.bias.double()
    weight = convolution.weight
    convolution.bias = nn.Parameter(shift.to(weight.dtype))
    weight.copy_(weight.double() * scale.view(-1, 1, 1, 1))
    return NoNorm()
