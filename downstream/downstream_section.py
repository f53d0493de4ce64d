"""The config section of a task network, the same for every stage that has one."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..data import Labels
from ..runtime.config import NonNegative, Positive, Section


class DownstreamSection(Section):
    """The task of the fused images, and the network for it.

    Attributes:
        kind: "detection", which learns from boxes, or "segmentation", which learns from class masks.
        network: "compact" (default for detection), "segformer-tiny" (default for segmentation), or the name or folder
            of a network of transformers.
        width: Of the compact detector: feature maps at a quarter of the image's size.
        init: Run folder of a task network to start from, or "street", a compact detector of persons, bicycles and cars
            that comes with timfuse; None for fresh weights, or those of the named network.
        learning_rate: Of the task network, at its highest.
        weight_decay: Of the kernels of the task network; biases and norms do not decay.
    """

    kind: Literal["detection", "segmentation"] = "detection"
    network: str = "compact"
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 24
    init: str | None = None
    learning_rate: Positive = 2e-3
    weight_decay: NonNegative = 0.05

    @property
    def labels(self) -> Labels:
        """The labels that the task network learns from."""
        return "boxes" if self.kind == "detection" else "masks"

    @model_validator(mode="before")
    @classmethod
    def _network_follows_kind(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("kind") == "segmentation":
            return {"network": "segformer-tiny", **content}
        return content
