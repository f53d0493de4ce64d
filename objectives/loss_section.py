"""The fusion loss as a section of a config: one key for each field of `FusionLoss`, with its default."""

from dataclasses import fields
from typing import Any, Self

import torch
from pydantic import create_model, model_validator

from ..runtime.config import NonNegative, Section
from ..runtime.errors import UserError
from .fusion import FusionLoss

_KEYS: Any = {field.name: (NonNegative, field.default) for field in fields(FusionLoss)}
_Weights: Any = create_model("_Weights", __base__=Section, **_KEYS)


class LossSection(_Weights):
    """Weights of the terms of `FusionLoss`, by their names there."""

    @model_validator(mode="after")
    def _not_all_zero(self) -> Self:
        weights = self.model_dump()
        if not any(weights.values()):
            *names, last = weights
            raise ValueError(f"must have a weight above 0: {', '.join(names)} or {last}")
        return self


def fusion_loss(section: LossSection | None, default: FusionLoss, crop: int) -> FusionLoss:
    """Make a loss from a config and try it on a crop.

    Args:
        section: The section of the config; None for the default.
        default: The loss where the config has none.
        crop: Height and width of the training crops, in pixels.

    Raises:
        UserError: If the windows of one of its terms do not fit into the crops.
    """
    loss = default if section is None else FusionLoss(**section.model_dump())
    try:
        loss(*torch.zeros(3, 1, 1, crop, crop))
    except ValueError as error:
        raise UserError(f"data.crop = {crop} is too small for this loss ({error}); choose a larger one") from None
    return loss
