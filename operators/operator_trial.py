"""Tests a registered operator in every way in which search, training and fusion use it."""

import copy

import torch
from torch import Tensor, nn

from ..genotypes.operator_names import parse_operator
from ..runtime.errors import UserError, in_one_line
from .build import build_operator
from .normalisation import NORMS
from .pooling import GlobalMean
from .registration import REGISTERED

_SHAPE = (2, 4, 9, 11)


def try_operator(name: str) -> None:
    """Test a registered operator in evaluation, in training, on the meta device and on a part of an image.

    Raises:
        UserError: If it fails or changes its input, or its output has another shape or dtype, is not finite, has no
            gradient, or depends on pixels farther away than its radius.
    """
    registration = REGISTERED[parse_operator(name).kind]
    checks = {
        "in evaluation": _check_output,
        "in training": _check_gradient,
        "on the meta device, where operations are counted": _check_without_data,
        **({} if registration.radius is None else {"on a part of an image": _check_radius}),
    }
    with torch.random.fork_rng(devices=[]):  # so that a run draws the same numbers without it
        torch.manual_seed(0)
        for norm in NORMS if "norm" in registration.parameters else NORMS[:1]:
            operator = build_operator(name, _SHAPE[1], norm)
            for stage, check in checks.items():
                try:
                    check(operator, registration.radius or 0)
                except _WrongError as error:
                    raise UserError(f"the operator {name} {error}") from None
                except Exception as error:
                    raise UserError(f"the operator {name} fails {stage}: {in_one_line(error)}") from error


class _WrongError(Exception):
    """A fault of an operator, in words that follow its name."""


def _check_output(operator: nn.Module, radius: int) -> None:
    x = _features(_SHAPE)
    before = x.clone()
    with torch.no_grad():
        _check_kind(operator.eval()(x), before)
    if not torch.equal(x, before):
        raise _WrongError("changes its input, which other operators read too; do not compute in place on it")


def _check_gradient(operator: nn.Module, radius: int) -> None:
    x = _features(_SHAPE).requires_grad_()
    y = operator.train()(x)
    _check_kind(y, x)
    weights = [weight for weight in operator.parameters() if weight.requires_grad]
    if not y.requires_grad:
        raise _WrongError("returns an output without gradient; compute it from the input, without detach and no_grad")
    by_input, *by_weights = torch.autograd.grad((y * torch.randn_like(y)).sum(), [x, *weights], allow_unused=True)
    if by_input is None:
        raise _WrongError("returns an output that does not depend on its input; compute it from the input")
    if weights and all(gradient is None for gradient in by_weights):
        raise _WrongError("has parameters, but no gradient reaches them; use them in forward")
    if not all(gradient.isfinite().all() for gradient in (by_input, *by_weights) if gradient is not None):
        raise _WrongError("has a gradient that is not finite on random features; keep it finite")


def _check_without_data(operator: nn.Module, radius: int) -> None:
    copy.deepcopy(operator).eval().to("meta")(torch.empty(_SHAPE, device="meta"))


def _check_radius(operator: nn.Module, radius: int) -> None:
    """Compare a part of an image with the whole, as tiles do: away from the borders both must agree."""
    cut = 2 * radius + 33  # odd, to find operators that treat even and odd pixels differently
    side = 2 * (cut + radius) + 8
    x = _features((1, _SHAPE[1], side, side))
    means: list[Tensor] = []
    pools = [module for module in operator.eval().modules() if isinstance(module, GlobalMean)]
    with torch.no_grad():
        hooks = [pool.register_forward_hook(lambda module, maps, mean: means.append(mean)) for pool in pools]
        whole = operator(x)
        for hook in hooks:
            hook.remove()
        hooks = [pool.register_forward_hook(lambda module, maps, mean: means.pop(0)) for pool in pools]
        part = operator(x[..., cut:-cut, cut:-cut].contiguous(memory_format=torch.channels_last))
        for hook in hooks:
            hook.remove()
    inside, within = slice(cut + radius, -cut - radius), slice(radius, side - 2 * cut - radius)
    difference = (whole[..., inside, inside] - part[..., within, within]).abs().max()
    if difference > 1e-4 * whole.abs().max():
        raise _WrongError(
            f"reads pixels more than its radius={radius} away, or treats even and odd ones differently; "
            "correct the radius or leave it out"
        )


def _check_kind(y: object, x: Tensor) -> None:
    if not isinstance(y, Tensor):
        raise _WrongError(f"returns a {type(y).__name__}; its forward must return a tensor")
    if y.shape != x.shape:
        raise _WrongError(f"maps {tuple(x.shape)} to {tuple(y.shape)}; it must keep the shape (N, C, H, W)")
    if y.dtype != x.dtype:
        raise _WrongError(f"maps {x.dtype} to {y.dtype}; it must keep the dtype")
    if not y.isfinite().all():
        raise _WrongError("returns numbers that are not finite for random features; keep them finite")


def _features(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)
