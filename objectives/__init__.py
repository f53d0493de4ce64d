"""What good means: fusion losses and the saliency weights of the sources."""

from .fusion import FusionLoss, gradient_loss, intensity_loss, ssim_loss
from .gradients import gradient_magnitude
from .saliency import histogram_saliency, saliency_weights
from .similarity import structural_similarity

__all__ = [
    "FusionLoss",
    "gradient_loss",
    "gradient_magnitude",
    "histogram_saliency",
    "intensity_loss",
    "saliency_weights",
    "ssim_loss",
    "structural_similarity",
]
