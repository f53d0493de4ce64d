"""From architecture logits to the probabilities of a mixture: softmax or straight-through Gumbel, with temperature."""

import torch
from torch import Tensor

from ..cost import Decisions, SearchSpace
from ..runtime.seeds import derive_seed


def relax(logits: Tensor, temperature: float, noise: Tensor | None = None) -> Tensor:
    """Turn logits into probabilities over the last dimension.

    Without noise, p = softmax(logits / temperature) (DARTS, Liu et al., ICLR 2019, eq. 2). With Gumbel noise, p is the
    one-hot argmax of logits + noise, and its gradient is that of softmax((logits + noise) / temperature): the
    straight-through estimator (Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017).

    Args:
        logits: Architecture logits, (..., candidates).
        temperature: Temperature above 0; towards 0 the softmax becomes one-hot.
        noise: Standard Gumbel noise in the shape of the logits, or None.

    Returns:
        (..., candidates), summing to 1 over the last dimension.

    Example:
        >>> logits = torch.tensor([1.0, 2.0, 3.0]).log()
        >>> relax(logits, 1.0), relax(logits, 1.0, noise=torch.tensor([2.0, 0.0, 0.0]))
        (tensor([0.1667, 0.3333, 0.5000]), tensor([1., 0., 0.]))
    """
    if noise is None:
        return (logits / temperature).softmax(-1)
    soft = ((logits + noise) / temperature).softmax(-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0)
    # In this order the value is exactly one-hot: soft - soft is 0.
    return hard + (soft - soft.detach())


def relax_all(logits: Decisions, temperature: float, noise: Decisions | None = None) -> Decisions:
    """Turn the logits of all decisions into probabilities, with noise for each or without.

    Example:
        >>> relax_all(Decisions(torch.zeros(1, 1, 2), torch.zeros(1, 4)), 1.0).widths
        tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    noises = (None, None) if noise is None else noise
    relaxed = [
        None if of_kind is None else relax(of_kind, temperature, of_noise)
        for of_kind, of_noise in zip(logits, noises, strict=True)
    ]
    return Decisions(*relaxed)  # type: ignore[arg-type]


def noise_of(logits: Decisions, seed: int, step: int) -> Decisions:
    """Draw standard Gumbel noise for all decisions."""
    widths = None if logits.widths is None else gumbel_noise(logits.widths, seed, step, "gumbel-widths")
    return Decisions(gumbel_noise(logits.operators, seed, step), widths)


def gumbel_noise(logits: Tensor, seed: int, step: int, name: str = "gumbel") -> Tensor:
    """Draw standard Gumbel noise like logits, as a function of seed, step and name alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, name, step))
    exponential = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=generator)
    return -exponential.log().to(logits)


def temperature_at(step: int, steps: int, start: float, end: float) -> float:
    """Interpolate the temperature geometrically from `start` at step 0 to `end` at step `steps` - 1."""
    return start * (end / start) ** (step / max(1, steps - 1))


def entropy(probabilities: Decisions) -> Tensor:
    """Return the mean entropy over all decisions as a fraction of its largest value: 1 for uniform, 0 for one-hot."""
    fractions = [
        torch.special.entr(of_kind).sum(-1).flatten() / torch.tensor(float(of_kind.shape[-1])).log()
        for of_kind in probabilities.tensors
    ]
    return torch.cat(fractions).mean()


def named_probabilities(probabilities: Decisions, space: SearchSpace) -> dict[str, dict[str, float]]:
    """Name probabilities by decision and candidate, for the history."""
    named = {
        f"cell {cell + 1} step {step + 1}": dict(zip(space.operators, row, strict=True))
        for cell, rows in enumerate(probabilities.operators.tolist())
        for step, row in enumerate(rows)
    }
    widths = [] if probabilities.widths is None else probabilities.widths.tolist()
    for level, (options, row) in enumerate(zip(space.width_options, widths, strict=True)):
        named[f"level {level} width"] = dict(zip(map(str, options), row, strict=True))
    return named
