"""Objectives of image fusion: losses that train networks, and in `metrics` the scores of fused images.

`TASK_LOSSES` holds the fusion loss of each task, `NAMED_LOSSES` also those for other purposes:

>>> list(TASK_LOSSES)
['infrared-visible', 'mri-ct', 'mri-pet', 'mri-spect', 'multi-exposure', 'multi-focus']
>>> [name for name in NAMED_LOSSES if name.startswith("quality")]
['quality', 'quality-fidelity', 'quality-exposure', 'quality-focus']
"""

from .content import object_content_loss
from .correlation import correlation_of_differences
from .edge_transfer import edge_transfer
from .fusion import FusionLoss, gradient_loss, intensity_loss, ssim_loss
from .mutual_information import mutual_information
from .named_losses import NAMED_LOSSES, TASK_LOSSES, training_loss
from .saliency import histogram_saliency, saliency_weights
from .sobel import gradient_magnitude, sobel
from .structural_similarity import structural_similarity
from .targets import exposed_target, functional_target, sharper_target
from .visual_fidelity import visual_fidelity

__all__ = [
    "NAMED_LOSSES",
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
    "sharper_target",
    "sobel",
    "ssim_loss",
    "structural_similarity",
    "training_loss",
    "visual_fidelity",
]
