"""What every network that does a task on fused images offers."""

from typing import Any

from torch import Tensor, nn

from ..data.pair_batch import PairBatch


class TaskNetwork(nn.Module):
    """A network that does a task on luma images.

    Attributes:
        task: "detection" or "segmentation".
        classes: Names of the classes.
    """

    task: str
    classes: tuple[str, ...]

    def loss(self, images: Tensor, batch: PairBatch) -> Tensor:
        """Score images by the labels of a batch.

        Args:
            images: (N, 1, H, W) in [0, 1]; what is learnt from, instead of the sources in `batch`.
            batch: With its objects or masks.

        Returns:
            A scalar, differentiable by the images and the weights.
        """
        raise NotImplementedError

    def predict(self, images: Tensor) -> Any:
        """Do the task.

        Args:
            images: (N, 1, H, W) in [0, 1].

        Returns:
            Of detection a list of `Detections`, of segmentation masks (N, H, W) int64.
        """
        raise NotImplementedError

    def specification(self) -> dict[str, Any]:
        """Return in plain data what the network can be made anew from."""
        raise NotImplementedError
