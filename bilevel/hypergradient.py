"""The result of an estimator, and the function that checks its numbers and moves them to the host."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..runtime.errors import check_finite
from .gradients import Gradients, flatten


@dataclass(frozen=True)
class Hypergradient:
    """An estimate of the derivative of F(a, w*(a)) by a, with its diagnostics.

    Attributes:
        outer: Hypergradient G, one tensor for each outer parameter, zeros where neither loss depends on it.
        inner: Gradient f_w, one tensor for each inner parameter; None if the estimator does not compute it.
        diagnostics: Numbers to log: ``outer_loss``; ``inner_loss``, the ``cosine`` of F_w and f_w, and the ``ratio``
            |G| / |F_a|, each where it is defined; ``fallback`` (1 if the correction was not finite and G is F_a, else
            0); and those of the estimator.

    Example:
        >>> from timfuse.bilevel import BilevelProblem, first_order
        >>> a, module = torch.tensor(2.0, requires_grad=True), torch.nn.Linear(1, 1)
        >>> first_order(BilevelProblem(module, [a], lambda *_: a**2, lambda *_: a), None, None)
        Hypergradient(outer=(tensor(4.),), inner=None, diagnostics={'outer_loss': 4.0, 'ratio': 1.0, 'fallback': 0.0})
    """

    outer: Gradients
    inner: Gradients | None
    diagnostics: dict[str, float]


def make_hypergradient(
    F: Tensor,
    F_a: Gradients,
    G: Gradients,
    *,
    F_w: Tensor | None = None,
    f: Tensor | None = None,
    f_w: Tensor | None = None,
    inner: Gradients | None = None,
    extra: Mapping[str, Tensor | float] | None = None,
) -> Hypergradient:
    """Check the numbers of one estimate and collect its diagnostics, with a single transfer from the device.

    Args:
        F_a: Direct part of the hypergradient, the fallback where ``G`` is not finite.
        G: Hypergradient, one tensor for each outer parameter.

    Raises:
        NonFiniteError: If a loss or one of F_a, F_w, f_w is not finite; names the first such quantity.
    """
    required = {"outer loss F": F, "outer gradient F_a": torch.linalg.vector_norm(flatten(F_a))}
    if f is not None:
        required["inner loss f"] = f
    if F_w is not None:
        required["outer gradient F_w"] = torch.linalg.vector_norm(F_w)
    if f_w is not None:
        required["inner gradient f_w"] = torch.linalg.vector_norm(f_w)
    measured = {"G": torch.linalg.vector_norm(flatten(G))}
    if F_w is not None and f_w is not None:
        measured["dot"] = torch.dot(F_w, f_w)
    measured |= {name: value for name, value in (extra or {}).items() if isinstance(value, Tensor)}

    tensors = (required | measured).values()
    dtype = measured["G"].dtype
    packed = torch.stack([tensor.detach().reshape(()).to(dtype) for tensor in tensors])
    values = dict(zip(required | measured, packed.tolist(), strict=True))

    check_finite({name: values[name] for name in required})
    fallback = not math.isfinite(values["G"])
    direct = values["outer gradient F_a"]

    diagnostics = {"outer_loss": values["outer loss F"]}
    if f is not None:
        diagnostics["inner_loss"] = values["inner loss f"]
    if direct > 0:
        diagnostics["ratio"] = 1.0 if fallback else values["G"] / direct
    if "dot" in values and (product := values["outer gradient F_w"] * values["inner gradient f_w"]) > 0:
        diagnostics["cosine"] = values["dot"] / product
    diagnostics["fallback"] = float(fallback)
    diagnostics |= {name: values.get(name, value) for name, value in (extra or {}).items()}
    return Hypergradient(F_a if fallback else G, inner, diagnostics)
