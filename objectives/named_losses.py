"""Fusion losses by name, as a config can ask for them."""

from dataclasses import replace

from .fusion import FusionLoss

TASK_LOSSES: dict[str, FusionLoss] = {
    # Edges and structure of both sources; the correlation of differences keeps the image from copying the brighter one.
    "infrared-visible": FusionLoss(intensity=0, ssim=0, brighter=0.3, gradient=0.5, structure=0.5, differences=0.05),
    # White bones of CT and soft tissue of MRI.
    "mri-ct": FusionLoss(intensity=0, ssim=0, brighter=1.0, gradient=0.5, structure=0.1),
    # The grey levels of the activity where there is some, and the outlines of the anatomy.
    "mri-pet": FusionLoss(intensity=0, ssim=0, functional=1.0, gradient=0.5, structure=0.1),
    "mri-spect": FusionLoss(intensity=0, ssim=0, functional=1.0, gradient=0.5, structure=0.1),
    # Neither the brighter nor the darker source, with the local contrast of the better one.
    "multi-exposure": FusionLoss(intensity=0, ssim=0, exposed=1.0, gradient=0.5, structure=0.1),
    # A choice between the sources, so no term compares the image with both.
    "multi-focus": FusionLoss(intensity=0, ssim=0, sharper=1.0, gradient=0.5),
}
"""The loss of each fusion task, a key of `genotypes.TASKS`. All second derivatives are moderate, as `maml` needs."""

_QUALITY = FusionLoss(
    intensity=0,
    gradient=0,
    ssim=0,
    structure=3,
    fidelity=1,
    edges=2,
    mef_structure=3,
    correlations=0.7,
    smear=4,
    range=5,
)

NAMED_LOSSES: dict[str, FusionLoss] = {
    **TASK_LOSSES,
    # The quality measures of the field, for final networks. Mutual information is not among them: it pays for copying
    # the brighter source, where training would start and stay.
    "quality": _QUALITY,
    # More weight on what each source shows, and so much on smears that this does not bring them back.
    "quality-fidelity": replace(_QUALITY, fidelity=2, edges=5, mef_structure=4, correlations=0.9, smear=100),
    # Structure first, for sources that are both right in places.
    "quality-exposure": replace(_QUALITY, fidelity=2, edges=4, mef_structure=80, smear=30),
    # The edges and structure of the sharper source; the correlation would drive the contrast too far.
    "quality-focus": replace(_QUALITY, edges=20, mef_structure=10, structure=1, correlations=0),
    # The same measures for a search: the outer loss scores the architecture, the inner loss trains the weights.
    "search-outer": FusionLoss(
        intensity=0, gradient=0, ssim=0, structure=8, edges=8, differences=0.7, information=0.6, range=5
    ),
    "search-inner": FusionLoss(
        intensity=1, gradient=1, ssim=0, structure=8, edges=8, differences=0.7, information=0.6, range=5
    ),
    # The terms of TIM and DetFusion, also for tasks of one's own; and the outer loss of a search with them.
    "saliency": FusionLoss(),
    "saliency-outer": FusionLoss(intensity=0.5, gradient=0.4, ssim=0.1),
}
"""All named losses: one for each task, and those for a purpose."""

_TRAINING = {
    "infrared-visible": "quality-fidelity",
    "multi-exposure": "quality-exposure",
    "multi-focus": "quality-focus",
}


def training_loss(task: str) -> FusionLoss:
    """Return the default loss for training a network for a task, which may be the user's own.

    Example:
        >>> training_loss("mri-ct") == NAMED_LOSSES["quality"], training_loss("mine") == FusionLoss()
        (True, True)
    """
    if task not in TASK_LOSSES:
        return NAMED_LOSSES["saliency"]
    return NAMED_LOSSES[_TRAINING.get(task, "quality")]
