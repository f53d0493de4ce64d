"""What every task network offers, what a detector returns, and how the training of a task network is set up."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data.pair_batch import PairBatch
from ..runtime.distribution import Ranks

MOST_DETECTIONS = 100
"""Detections per image: COCO scores the best 100, so detectors return no more."""


class Detections(NamedTuple):
    """The objects that a detector finds in one image, best first.

    Attributes:
        boxes: (K, 4) float32, left, top, right, bottom in pixels, inside the image.
        scores: (K,) float32 in [0, 1].
        classes: (K,) int64, positions in the detector's class names.

    Example:
        >>> found = Detections(torch.tensor([[4.0, 8, 30, 40]]), torch.tensor([0.5]), torch.tensor([2]))
        >>> found.boxes.shape, found.classes.tolist()
        (torch.Size([1, 4]), [2])
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class TaskNetwork(nn.Module):
    """A network that detects or segments in luma images.

    Attributes:
        task: "detection" or "segmentation".
        kind: Name of the architecture in a specification.
        classes: Names of the classes; in segmentation the background comes first.

    Example:
        >>> from timfuse.downstream import build_task_network
        >>> network = build_task_network("detection", "compact", ["person", "car"], width=8)
        >>> isinstance(network, TaskNetwork), network.task, network.classes
        (True, 'detection', ('person', 'car'))
    """

    task: str
    kind: str
    classes: tuple[str, ...]

    def loss(self, images: Tensor, batch: PairBatch) -> Tensor:
        """Compare what the network finds in images with the labels of a batch.

        Args:
            images: (N, 1, H, W) in [0, 1], used in place of the sources in `batch`.
            batch: Objects for detection, masks for segmentation.

        Returns:
            A scalar, differentiable with respect to the images and the weights.
        """
        raise NotImplementedError

    def predict(self, images: Tensor) -> Any:
        """Detect or segment.

        Args:
            images: (N, 1, H, W) in [0, 1].

        Returns:
            A list of N `Detections`, or masks (N, H, W) int64.
        """
        raise NotImplementedError

    def specification(self) -> dict[str, Any]:
        """Describe the architecture in plain data, from which the network can be built again."""
        raise NotImplementedError


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Sort the trained parameters into groups for an optimiser, with weight decay on kernels only.

    Biases and the scales of normalisation do not decay: they have one dimension.

    Args:
        network: The task network.
        weight_decay: Of the kernels.

    Returns:
        The kernels, then the other parameters.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def average_statistics(network: nn.Module, ranks: Ranks) -> None:
    """Replace the running statistics of a network by their means over the processes.

    In training each process normalises by its own part of the batch. A joint normalisation would not make the gradient
    that of the whole batch, because the loss of a detector is divided by the number of objects in a part.

    Args:
        network: With the same buffers in every process.
        ranks: The processes.
    """
    statistics = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    for buffer, mean in zip(statistics, ranks.average(statistics), strict=True):
        buffer.copy_(mean)
