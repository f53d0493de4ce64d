"""The unsupervised losses of image fusion and their weighted sum."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .correlation import correlation_of_differences
from .edges import edge_transfer
from .fidelity import visual_fidelity
from .gradients import gradient_magnitude
from .information import mutual_information
from .saliency import saliency_weights
from .similarity import structural_similarity
from .targets import exposed_target, functional_target, sharper_target

_FLAT = 0.01  # bits, so that a flat image has a logarithm
_TARGETS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brighter": torch.maximum,
    "exposed": exposed_target,
    "sharper": sharper_target,
    "functional": functional_target,
}


def intensity_loss(fused: Tensor, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Weighted distance to the grey levels of both sources: mean over pixels of Σ_k w_k |F − I_k|.

    The l1 distance draws each pixel to the source of larger weight; a squared one would average them and dim
    hot targets. (TIM, arXiv 2305.15862, with `saliency_weights`.)

    Args:
        fused: (N, 1, H, W) in [0, 1].
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].
        weights: Broadcastable to (2, N, 1, H, W), for the first and the second source.

    Returns:
        Scalar, at least 0.
    """
    return (weights * (fused - torch.stack([first, second])).abs()).sum(0).mean()


def gradient_loss(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Distance to the stronger of the sources' edges: mean of | |∇F| − max(|∇I_1|, |∇I_2|) |.

    ∇ is the Sobel gradient. (DetFusion, ACM MM 2022.)

    Args:
        fused: (N, 1, H, W) in [0, 1].
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].

    Returns:
        Scalar, at least 0.
    """
    strongest = torch.maximum(gradient_magnitude(first), gradient_magnitude(second))
    return (gradient_magnitude(fused) - strongest).abs().mean()


def ssim_loss(fused: Tensor, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Weighted structural dissimilarity to both sources: mean over pixels of Σ_k w_k (1 − SSIM(F, I_k)).

    Args:
        fused: (N, 1, H, W) in [0, 1], H and W at least 6.
        first: (N, 1, H, W) in [0, 1].
        second: (N, 1, H, W) in [0, 1].
        weights: Broadcastable to (2, N, 1, H, W), for the first and the second source.

    Returns:
        Scalar in [0, 2] for weights that sum to 1.
    """
    dissimilarity = 1 - structural_similarity(fused, torch.stack([first, second]))
    return (weights * dissimilarity).sum(0).mean()


@dataclass(frozen=True)
class FusionLoss:
    """Weighted sum of what a fused image should keep of its sources.

    The first three terms are TIM's and DetFusion's. By default they pull about equally hard at the average of the
    sources: measured there on street scenes, the norms of their unweighted gradients stand as 1 : 6 : 20.

    The next four draw the image to one that is made of the sources without a network, each for tasks of which that much
    is known: bones are white in CT, one source is better exposed, in focus, or shows activity.

    The others are what fusion is judged by, made differentiable; some are negative, and so may the sum be. They pull
    against each other: copying one source has the most information and fidelity, averaging the best structure, adding
    both the best correlation of differences. Linear in the last two, training falls to one side or the other; with the
    square and the logarithm, what is poor in an image counts more, and it settles between. They see the image as it
    will be saved, clipped to [0, 1]; `range` is what leads back into it.

    Attributes:
        intensity: Weight of `intensity_loss`, at least 0.
        gradient: Weight of `gradient_loss`, at least 0.
        ssim: Weight of `ssim_loss`, at least 0. A term of weight 0 is not computed.
        brighter: Weight of the mean distance to the brighter source at each pixel.
        exposed: Weight of the mean distance to `exposed_target`.
        sharper: Weight of the mean distance to `sharper_target`.
        functional: Weight of the mean distance to `functional_target`.
        structure: Weight of 1 minus the mean of both sources' `structural_similarity`, neither weighted by saliency.
        fidelity: Weight of minus the sum of both sources' `visual_fidelity`.
        edges: Weight of minus the `edge_transfer`.
        differences: Weight of (2 − SCD)², with SCD the `correlation_of_differences`.
        information: Weight of minus the logarithm of both sources' summed `mutual_information`.
        range: Weight of the mean distance to [0, 1].

    Example:
        >>> pair = torch.rand(2, 1, 1, 16, 16)
        >>> sorted(FusionLoss(ssim=0.0).terms(pair.mean(0), *pair))
        ['gradient', 'intensity']
    """

    intensity: float = 1.0
    gradient: float = 0.2
    ssim: float = 0.05
    brighter: float = 0.0
    exposed: float = 0.0
    sharper: float = 0.0
    functional: float = 0.0
    structure: float = 0.0
    fidelity: float = 0.0
    edges: float = 0.0
    differences: float = 0.0
    information: float = 0.0
    range: float = 0.0

    def __call__(self, fused: Tensor, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the weighted sum, a scalar; the arguments are those of `terms`."""
        terms = self.terms(fused, first, second, weights)
        return sum((getattr(self, name) * value for name, value in terms.items()), start=fused.new_zeros(()))

    def terms(self, fused: Tensor, first: Tensor, second: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the terms whose weight is not 0.

        Args:
            fused: (N, 1, H, W), H and W at least 41 for `fidelity`, 17 for `sharper`, 6 for `ssim`
                and `structure`.
            first: (N, 1, H, W) in [0, 1].
            second: (N, 1, H, W) in [0, 1].
            weights: Of the two sources in `intensity` and `ssim`, broadcastable to (2, N, 1, H, W); None for
                `saliency_weights`.

        Returns:
            Each term by the name of its weight, before weighting.
        """
        terms = {}
        if self.intensity or self.ssim:
            of_sources = saliency_weights(first, second) if weights is None else weights
        if self.intensity:
            terms["intensity"] = intensity_loss(fused, first, second, of_sources)
        if self.gradient:
            terms["gradient"] = gradient_loss(fused, first, second)
        if self.ssim:
            terms["ssim"] = ssim_loss(fused, first, second, of_sources)
        for name, target in _TARGETS.items():
            if getattr(self, name):
                with torch.no_grad():
                    wanted = target(first, second)
                terms[name] = (fused - wanted).abs().mean()
        saved, sources = fused.clamp(0, 1), torch.stack([first, second])
        if self.structure:
            terms["structure"] = 1 - structural_similarity(saved, sources).mean()
        if self.fidelity:
            terms["fidelity"] = -visual_fidelity(saved, sources).sum(0).mean()
        if self.edges:
            terms["edges"] = -edge_transfer(saved, first, second).mean()
        if self.differences:
            terms["differences"] = (2 - correlation_of_differences(saved, first, second)).square().mean()
        if self.information:
            terms["information"] = -torch.log(mutual_information(saved, sources).sum(0) + _FLAT).mean()
        if self.range:
            terms["range"] = (fused - saved).abs().mean()
        return terms
