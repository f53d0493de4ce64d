"""From architecture logits to the probabilities of a mixture: softmax or straight-through Gumbel, with temperature."""

import torch
from torch import Tensor

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


def gumbel_noise(logits: Tensor, seed: int, step: int) -> Tensor:
    """Draw standard Gumbel noise of the shape, type and device of logits, as a function of seed and step alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "gumbel", step))
    exponential = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=generator)
    return -exponential.log().to(logits)


def temperature_at(step: int, steps: int, start: float, end: float) -> float:
    """Interpolate the temperature geometrically from `start` at step 0 to `end` at step `steps` - 1."""
    return start * (end / start) ** (step / max(1, steps - 1))


def entropy(probabilities: Tensor) -> Tensor:
    """Return the mean entropy over all edges as a fraction of its largest value: 1 for uniform, 0 for one-hot."""
    count = probabilities.shape[-1]
    return torch.special.entr(probabilities).sum(-1).mean() / torch.tensor(float(count)).log()
