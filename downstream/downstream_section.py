"""The task network as a section of a config file, the same for every stage that has one."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ..data.pair_source import Labels
from ..runtime.config import NonNegative, Positive, Section


class DownstreamSection(Section):
    """The downstream task of the fused images, and its network.

    Attributes:
        kind: Kind of the task: "detection", which learns from boxes, or "segmentation", which learns from class masks.
        network: Task network: "compact" (detection), "segformer-tiny" (segmentation), or a detector or segmenter of
            transformers by name or folder. The default follows `kind`.
        width: Feature maps of the compact detector at a quarter of the image's size.
        init: Run folder whose task network to start from, or "street", a shipped compact detector of persons, bicycles
            and cars; null for random weights, or those of the named network.
        learning_rate: Largest learning rate of the task network.
        weight_decay: Decoupled weight decay of the kernels of the task network.
    """

    kind: Literal["detection", "segmentation"] = "detection"
    network: str = "compact"
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 24
    init: str | None = None
    learning_rate: Positive = 2e-3
    weight_decay: NonNegative = 0.05

    @property
    def labels(self) -> Labels:
        """The kind of labels that the task network learns from."""
        return "boxes" if self.kind == "detection" else "masks"

    def provenance(self, classes: Sequence[str]) -> dict[str, object]:
        """Return the entry of a genotype's provenance that describes a task network with these classes."""
        return {"kind": self.kind, "network": self.network, "init": self.init, "classes": list(classes)}

    @model_validator(mode="before")
    @classmethod
    def _network_follows_kind(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("kind") == "segmentation":
            return {"network": "segformer-tiny", **content}
        return content
