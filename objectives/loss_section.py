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

    def loss(self, crop: int) -> FusionLoss:
        """Make the loss and try it on a crop.

        Args:
            crop: Height and width of the crops that it is for, in pixels.

        Returns:
            The loss.

        Raises:
            UserError: The windows of one of its terms do not fit into the crops.
        """
        loss = FusionLoss(**self.model_dump())
        try:
            loss(*torch.zeros(3, 1, 1, crop, crop))
        except ValueError as error:
            raise UserError(f"data.crop = {crop} is too small for this loss ({error}); choose a larger one") from None
        return loss

    @model_validator(mode="after")
    def _not_all_zero(self) -> Self:
        weights = self.model_dump()
        if not any(weights.values()):
            *names, last = weights
            raise ValueError(f"must have a weight above 0: {', '.join(names)} or {last}")
        return self
