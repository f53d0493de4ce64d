"""What every estimator returns, and the one place where its numbers are checked and brought to the host."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..runtime.errors import check_finite
from .gradients import Gradients, flatten


@dataclass(frozen=True)
class Hypergradient:
    """The derivative of the outer loss along the inner solution, and what was seen on the way.

    Attributes:
        outer: G, one tensor per outer parameter, zeros where neither loss depends on it.
        inner: f_w, one raw tensor per inner parameter, where the estimator has it.
        diagnostics: ``outer_loss``, ``inner_loss``, ``cosine`` of F_w and f_w and ``ratio`` |G| / |F_a| where
            they are defined, ``fallback`` (1 where the correction was not finite and G is F_a), and the
            estimator's own.
    """

    outer: Gradients
    inner: Gradients | None
    diagnostics: dict[str, float]


def conclude(
    F: Tensor,
    F_a: Gradients,
    G: Gradients,
    *,
    F_w: Tensor | None = None,
    f: Tensor | None = None,
    f_w: Tensor | None = None,
    inner: Gradients | None = None,
    reported: Mapping[str, Tensor | float] | None = None,
) -> Hypergradient:
    """Check the numbers of one estimate and collect its diagnostics, with a single transfer from the device.

    Args:
        F: Outer loss.
        F_a: Direct part of the hypergradient, the fallback where ``G`` is not finite.
        G: Hypergradient.
        F_w: Outer gradient by the inner variables, flat.
        f: Inner loss.
        f_w: Inner gradient by the inner variables, flat.
        inner: ``f_w`` in the shapes of the inner variables.
        reported: The estimator's own diagnostics, as they are.

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
    measured |= {name: value for name, value in (reported or {}).items() if isinstance(value, Tensor)}

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
    diagnostics |= {name: values.get(name, value) for name, value in (reported or {}).items()}
    return Hypergradient(F_a if fallback else G, inner, diagnostics)
