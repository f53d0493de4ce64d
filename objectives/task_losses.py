"""The fusion loss of each task, for stages that train on several of them: what its fused image should be made of."""

from .fusion import FusionLoss

TASK_LOSSES: dict[str, FusionLoss] = {
    # Edges and structure of both; the correlation of differences keeps it from falling to the brighter one.
    "infrared-visible": FusionLoss(intensity=0, ssim=0, brighter=0.3, gradient=0.5, structure=0.5, differences=0.05),
    # White bones of CT and soft tissue of MRI.
    "mri-ct": FusionLoss(intensity=0, ssim=0, brighter=1.0, gradient=0.5, structure=0.1),
    # The grey levels of the activity where there is any, and the outlines of the anatomy.
    "mri-pet": FusionLoss(intensity=0, ssim=0, functional=1.0, gradient=0.5, structure=0.1),
    "mri-spect": FusionLoss(intensity=0, ssim=0, functional=1.0, gradient=0.5, structure=0.1),
    # Neither the brighter nor the darker source, with the local contrast of the better one.
    "multi-exposure": FusionLoss(intensity=0, ssim=0, exposed=1.0, gradient=0.5, structure=0.1),
    # A choice between the sources, so nothing is asked of both.
    "multi-focus": FusionLoss(intensity=0, ssim=0, sharper=1.0, gradient=0.5),
}
"""By a key of `genotypes.TASKS`. Their weights keep to terms whose second derivatives are moderate, as `maml` needs."""
