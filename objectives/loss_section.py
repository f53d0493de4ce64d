"""The fusion loss as a section of a config: a name, weights, or a name with weights that override it."""

from dataclasses import asdict, fields
from typing import Any, Self

import torch
from pydantic import Field, create_model, model_validator

from ..genotypes.choices import nearest
from ..runtime.config import NonNegative, Section
from ..runtime.config_text import attribute_meanings
from ..runtime.errors import UserError
from .fusion import FusionLoss
from .named_losses import NAMED_LOSSES

_LARGEST_WINDOW = 64  # pixels; no term looks further
_MEANINGS = attribute_meanings(FusionLoss)
_KEYS: Any = {
    field.name: (NonNegative, Field(field.default, description=_MEANINGS[field.name])) for field in fields(FusionLoss)
}
_Weights: Any = create_model("_Weights", __base__=Section, **_KEYS)


class LossSection(_Weights):
    """Weights of the terms of `FusionLoss`, by their names there.

    A config writes them out (`{intensity: 1, edges: 2}`, the others keep their defaults), names one of `NAMED_LOSSES`
    (`quality`), or changes weights of a named loss (`{base: quality, edges: 4}`). The section holds the weights
    alone, so that a resolved config does not depend on the names.

    Example:
        >>> section = LossSection(base="quality", edges=4)
        >>> section.edges, section.structure
        (4.0, 3.0)
    """

    @model_validator(mode="before")
    @classmethod
    def _start_from_base(cls, content: Any) -> Any:
        if isinstance(content, str):
            content = {"base": content}
        if not isinstance(content, dict | cls):
            raise ValueError("must be the name of a loss or a mapping of weights")
        if not isinstance(content, dict) or "base" not in content:
            return content
        weights = dict(content)
        base = weights.pop("base")
        if not isinstance(base, str) or base not in NAMED_LOSSES:
            suggestion = nearest(str(base), NAMED_LOSSES)
            raise ValueError(f"must name one of the losses {', '.join(NAMED_LOSSES)}{suggestion}")
        return asdict(NAMED_LOSSES[base]) | weights

    @model_validator(mode="after")
    def _not_all_zero(self) -> Self:
        weights = self.model_dump()
        if not any(weights.values()):
            *names, last = weights
            raise ValueError(f"must have a weight above 0: {', '.join(names)} or {last}")
        return self


def fusion_loss(section: LossSection | None, default: FusionLoss, crop: int) -> FusionLoss:
    """Build the fusion loss of a config and try it on a crop.

    Args:
        crop: Height and width of the training crops in pixels.

    Raises:
        UserError: If the window of one of the terms does not fit into the crops.
    """
    loss = default if section is None else FusionLoss(**section.model_dump())
    side = min(crop, _LARGEST_WINDOW)
    try:
        loss(*torch.zeros(3, 1, 1, side, side))
    except ValueError as error:
        raise UserError(f"data.crop = {crop} is too small for this loss ({error}); choose a larger one") from None
    return loss
