"""The fusion loss of each task, for stages that train on several of them: what its fused image should be made of."""

from dataclasses import replace

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

_QUALITY = FusionLoss(
    intensity=0, gradient=0, ssim=0, structure=9.5, edges=6.5, differences=0.8, information=1.55, range=5
)


def training_loss(task: str) -> FusionLoss:
    """Return the loss by which a network for a task is trained.

    Args:
        task: A key of `genotypes.TASKS`, or a task of the user's own.
    """
    return _QUALITY if task == "infrared-visible" else TASK_LOSSES.get(task, FusionLoss())


def search_losses(task: str) -> tuple[FusionLoss, FusionLoss]:
    """Return the outer and the inner loss by which an architecture for a task is searched.

    They differ, because equal losses let the hypergradient nearly cancel: the inner one weighs edges more.

    Args:
        task: A key of `genotypes.TASKS`, or a task of the user's own.
    """
    if task == "infrared-visible":
        return FusionLoss(intensity=0.5, gradient=0.4, ssim=0.1), FusionLoss()
    loss = TASK_LOSSES.get(task, FusionLoss())
    return loss, replace(loss, gradient=2 * loss.gradient)
