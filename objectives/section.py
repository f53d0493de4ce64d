"""The fusion loss as a section of a config: one key for each field of `FusionLoss`, with its default."""

from dataclasses import fields
from typing import Any, Self

from pydantic import create_model, model_validator

from ..runtime.config import NonNegative, Section
from .fusion import FusionLoss

_KEYS: Any = {field.name: (NonNegative, field.default) for field in fields(FusionLoss)}
_Weights: Any = create_model("_Weights", __base__=Section, **_KEYS)


class LossSection(_Weights):
    """Weights of the terms of `FusionLoss`, by their names there; `FusionLoss(**section.model_dump())` is the loss."""

    @model_validator(mode="after")
    def _not_all_zero(self) -> Self:
        weights = self.model_dump()
        if not any(weights.values()):
            *names, last = weights
            raise ValueError(f"must have a weight above 0: {', '.join(names)} or {last}")
        return self
