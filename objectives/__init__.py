"""What good means: fusion losses and the saliency weights of the sources."""

from .content import object_content_loss
from .correlation import correlation_of_differences
from .edges import edge_transfer
from .fidelity import visual_fidelity
from .fusion import FusionLoss, gradient_loss, intensity_loss, ssim_loss
from .gradients import gradient_magnitude, sobel
from .information import mutual_information
from .saliency import histogram_saliency, saliency_weights
from .similarity import structural_similarity
from .targets import exposed_target, functional_target, sharper_target
from .task_losses import TASK_LOSSES, search_losses, training_loss

__all__ = [
    "TASK_LOSSES",
    "FusionLoss",
    "correlation_of_differences",
    "edge_transfer",
    "exposed_target",
    "functional_target",
    "gradient_loss",
    "gradient_magnitude",
    "histogram_saliency",
    "intensity_loss",
    "mutual_information",
    "object_content_loss",
    "saliency_weights",
    "search_losses",
    "sharper_target",
    "sobel",
    "ssim_loss",
    "structural_similarity",
    "training_loss",
    "visual_fidelity",
]
