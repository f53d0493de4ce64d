"""The unsupervised losses of image fusion and their weighted sum."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .correlation import correlation_of_differences
from .edge_transfer import edge_transfer
from .mef_structure import mef_structure
from .mutual_information import mutual_information
from .saliency import saliency_weights
from .smear import smear_excess
from .sobel import gradient_magnitude
from .structural_similarity import structural_similarity
from .targets import exposed_target, functional_target, sharper_target
from .visual_fidelity import visual_fidelity

_FLAT = 0.01  # bits that are added, so that the logarithm is finite for a flat image
_TARGETS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brighter": torch.maximum,
    "exposed": exposed_target,
    "sharper": sharper_target,
    "functional": functional_target,
}


def intensity_loss(fused: Tensor, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Measure the weighted l1 distance to both sources: the mean over pixels of Σ_k w_k |F - I_k|.

    The l1 distance pulls each pixel towards the source of larger weight. A squared distance would average the sources
    and dim hot targets.

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1], like both sources I_k.
        weights: Weights w of the first and the second source, broadcastable to (2, N, 1, H, W).

    Returns:
        Scalar, at least 0.

    References:
        Liu et al., "A Task-guided, Implicitly-searched and Meta-initialized Deep Model for Image Fusion" (arXiv
        2305.15862), with `saliency_weights`.

    Example:
        >>> dark, bright = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
        >>> intensity_loss(bright, dark, bright, saliency_weights(dark, bright))
        tensor(0.5000)
    """
    return (weights * (fused - torch.stack([first, second])).abs()).sum(0).mean()


def gradient_loss(fused: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Measure the distance to the stronger edge of both sources: the mean of | |∇F| - max(|∇I_1|, |∇I_2|) |.

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1], like both sources I_k.

    Returns:
        Scalar, at least 0.

    References:
        Sun et al., "DetFusion: A Detection-driven Infrared and Visible Image Fusion Network" (ACM MM 2022); ∇ is the
        Sobel gradient.

    Example:
        >>> edges, flat = torch.eye(8)[None, None], torch.zeros(1, 1, 8, 8)
        >>> gradient_loss(edges, edges, flat)
        tensor(0.)
    """
    strongest = torch.maximum(gradient_magnitude(first), gradient_magnitude(second))
    return (gradient_magnitude(fused) - strongest).abs().mean()


def ssim_loss(fused: Tensor, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Measure the weighted dissimilarity to both sources: the mean over pixels of Σ_k w_k (1 - SSIM(F, I_k)).

    Args:
        fused: Fused images F, (N, 1, H, W), in [0, 1], like both sources I_k; H and W are at least 6.
        weights: Weights w of the first and the second source, broadcastable to (2, N, 1, H, W).

    Returns:
        Scalar, in [0, 2] for weights with sum 1.

    Example:
        >>> edges, flat = torch.eye(8)[None, None], torch.zeros(1, 1, 8, 8)
        >>> print(f"{ssim_loss(edges, edges, flat, torch.tensor(0.5)):.1f}")  # (0 + 1 - SSIM(F, flat)) / 2
        0.5
    """
    dissimilarity = 1 - structural_similarity(fused, torch.stack([first, second]))
    return (weights * dissimilarity).sum(0).mean()


@dataclass(frozen=True)
class FusionLoss:
    """A weighted sum of terms that say what a fused image should keep of its sources.

    The first three terms are from TIM and DetFusion. With the default weights they pull about equally hard at the
    average of the sources: there, on street scenes, the norms of their unweighted gradients have the ratio 1 : 6 : 20.

    The next four terms pull the image towards a simple fusion of the sources. Each is for tasks with known needs: bones
    are white in CT, or one source is better exposed, in focus, or shows activity.

    The terms after them are quality measures of the field in differentiable form. Some are negative, and so may the sum
    be. They conflict: a copy of one source has the most information and fidelity, the average the best structure, the
    sum the best correlation of differences. If the loss were linear in the last two, training would end at one extreme;
    the square and the logarithm give poor values more weight, so that it ends in between. These terms see the image as
    it is saved, clipped to [0, 1]; `range` pulls values back into that interval. `NAMED_LOSSES` holds useful weights.

    Attributes:
        intensity: Weight of `intensity_loss`, >= 0. A term with weight 0 is not computed.
        gradient: Weight of `gradient_loss`, >= 0.
        ssim: Weight of `ssim_loss`, >= 0.
        brighter: Weight of the mean distance to the brighter source at each pixel.
        exposed: Weight of the mean distance to `exposed_target`.
        sharper: Weight of the mean distance to `sharper_target`.
        functional: Weight of the mean distance to `functional_target`.
        structure: Weight of 1 - the mean `structural_similarity` to both sources, without weights of the sources.
        fidelity: Weight of -Σ_k `visual_fidelity` of both sources.
        edges: Weight of -Q, with Q the `edge_transfer`.
        differences: Weight of (2 - SCD)², with SCD the `correlation_of_differences`.
        information: Weight of -log Σ_k MI_k, with MI_k the `mutual_information` of source k.
        mef_structure: Weight of 1 - `mef_structure`.
        correlations: Weight of -SCD, linear where `differences` is a square.
        smear: Weight of `smear_excess`, the slow slopes that neither source has.
        range: Weight of the mean distance to the interval [0, 1].

    Example:
        >>> loss, (first, second) = FusionLoss(ssim=0.0), torch.eye(16).view(1, 1, 1, 16, 16).repeat(2, 1, 1, 1, 1)
        >>> sorted(loss.terms(first, first, second)), loss(first, first, second)
        (['gradient', 'intensity'], tensor(0.))
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
    mef_structure: float = 0.0
    correlations: float = 0.0
    smear: float = 0.0
    range: float = 0.0

    def __call__(self, fused: Tensor, first: Tensor, second: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the weighted sum of `terms`, a scalar."""
        terms = self.terms(fused, first, second, weights)
        return sum((getattr(self, name) * value for name, value in terms.items()), start=fused.new_zeros(()))

    def terms(self, fused: Tensor, first: Tensor, second: Tensor, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the terms whose weight is not 0.

        Args:
            fused: Fused image, (N, 1, H, W); H and W are at least 17 for `fidelity`, `smear` and `sharper`, 11 for
                `mef_structure`, 6 for `ssim` and `structure`.
            first: First source, (N, 1, H, W), in [0, 1].
            second: Second source, (N, 1, H, W), in [0, 1].
            weights: Weights of the two sources in `intensity` and `ssim`, broadcastable to (2, N, 1, H, W). Default:
                `saliency_weights`.

        Returns:
            The unweighted value of each term, by the name of its weight.
        """
        terms = {}
        if self.intensity or self.ssim:
            source_weights = saliency_weights(first, second) if weights is None else weights
        if self.intensity:
            terms["intensity"] = intensity_loss(fused, first, second, source_weights)
        if self.gradient:
            terms["gradient"] = gradient_loss(fused, first, second)
        if self.ssim:
            terms["ssim"] = ssim_loss(fused, first, second, source_weights)
        for name, target in _TARGETS.items():
            if getattr(self, name):
                with torch.no_grad():
                    target_image = target(first, second)
                terms[name] = (fused - target_image).abs().mean()
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
        if self.mef_structure:
            terms["mef_structure"] = 1 - mef_structure(saved, first, second).mean()
        if self.correlations:
            terms["correlations"] = -correlation_of_differences(saved, first, second).mean()
        if self.smear:
            terms["smear"] = smear_excess(saved, first, second).mean()
        if self.range:
            terms["range"] = (fused - saved).abs().mean()
        return terms
