"""A compact detector that learns from hundreds of images in minutes: heat maps on a small feature pyramid."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.pair_batch import PairBatch
from ..operators.normalisation import build_norm
from .heatmaps import box_loss, find_peaks, focal_loss, make_targets
from .specification import classes_and_width, read_channels
from .task_network import MOST_DETECTIONS, Detections, TaskNetwork

STRIDE = 4  # width of a cell of the heat maps in pixels
_DEEPEST = 32  # width of a cell of the deepest maps in pixels
_BOX_WEIGHT = 5.0
_RARE = -4.6  # logit of 1 %: the bias of a fresh classifier, because few cells hold objects


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), build_norm("batch", outputs), nn.ReLU()
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            build_norm("batch", channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class CompactDetector(TaskNetwork):
    """A detector that finds objects by their centres, like CenterNet.

    Source: Zhou et al., "Objects as Points" (arXiv 1904.07850).

    Args:
        classes: Names of the classes that the detector finds.
        width: Width W >= 2. The backbone has W, 2W, 3W and 4W channels at strides 4, 8, 16 and 32, the pyramid 1.5 W.
        channels: Number of planes of the images; see `TaskNetwork`.

    Example:
        >>> detector = CompactDetector(["person", "car"], width=8).eval()
        >>> [found] = detector.predict(torch.rand(1, 1, 64, 96))
        >>> found.boxes.shape[1]
        4
    """

    task = "detection"
    kind = "compact-detector"
    class_weights = ("heat.1.weight", "heat.1.bias")  # with a row for each class
    first_weight = "stem.0.weight"  # with a column for each plane

    def __init__(self, classes: Sequence[str], width: int = 32, channels: int = 1) -> None:
        super().__init__()
        self.classes, self.width, self.channels = tuple(classes), width, channels
        self.features = width * 3 // 2
        self.stem = _convolution(channels, width // 2, stride=2)
        widths = [width // 2, width, 2 * width, 3 * width, 4 * width]
        blocks = [1, 2, 2, 1]
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(inputs, outputs, stride=2), *(_Residual(outputs) for _ in range(count)))
            for inputs, outputs, count in zip(widths, widths[1:], blocks, strict=False)
        )
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, self.features, 1) for inputs in widths[1:])
        self.smooth = nn.ModuleList(_convolution(self.features, self.features) for _ in widths[2:])
        classifier = nn.Conv2d(self.features, len(self.classes), 1)
        self.heat = nn.Sequential(_convolution(self.features, self.features), classifier)
        self.sides = nn.Sequential(_convolution(self.features, self.features), nn.Conv2d(self.features, 4, 1))
        assert classifier.bias is not None
        nn.init.constant_(classifier.bias, _RARE)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Compute features at four scales of images (N, C, H, W) in [0, 1], with H and W multiples of 32.

        Returns:
            (N, F, H / s, W / s) for s = 4, 8, 16, 32, with F = `features`.
        """
        x = self.stem((images - 0.5).contiguous(memory_format=torch.channels_last) * 4)
        levels = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        return levels

    def maps(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute heat and distance maps from the features that `pyramid` returns.

        Returns:
            Logits of the heat (N, classes, H / 4, W / 4), and distances in pixels to the sides (N, 4, H / 4, W / 4).
        """
        x = levels[-1]
        for level, smooth in zip(levels[-2::-1], self.smooth, strict=True):
            x = smooth(level + F.interpolate(x, size=level.shape[-2:], mode="nearest"))
        return self.heat(x), self.sides(x).clamp(-4, 4).exp() * (4 * STRIDE)

    def loss_of(self, maps: tuple[Tensor, Tensor], batch: PairBatch) -> Tensor:
        """Return the scalar loss of maps: focal loss of the heat + 5 x loss of the boxes."""
        logits, sides = maps
        assert batch.objects is not None
        height, width = logits.shape[-2:]
        targets = make_targets(batch.objects, len(self.classes), height, width, STRIDE)
        return focal_loss(logits, targets.heat, targets.number) + _BOX_WEIGHT * box_loss(sides, targets)

    def loss(self, images: Tensor, batch: PairBatch) -> Tensor:
        return self.loss_of(self.maps(self.pyramid(padded(images))), batch)

    @torch.no_grad()
    def predict(self, images: Tensor) -> list[Detections]:
        return self.detections(self.maps(self.pyramid(padded(images))), *images.shape[-2:])

    def detections(self, maps: tuple[Tensor, Tensor], height: int, width: int) -> list[Detections]:
        """Return the objects in images of `height` rows and `width` columns, as the peaks of their maps."""
        return find_peaks(*maps, STRIDE, height, width, MOST_DETECTIONS)

    def specification(self) -> dict[str, Any]:
        specification = {"kind": self.kind, "classes": list(self.classes), "width": self.width}
        return specification if self.channels == 1 else {**specification, "channels": self.channels}

    @classmethod
    def from_specification(cls, specification: Mapping[str, Any]) -> "CompactDetector":
        """Build a detector with fresh weights from the result of `specification`.

        Raises:
            UserError: If classes or width are missing, or a value is not valid.
        """
        return cls(*classes_and_width(specification), read_channels(specification))


def padded(images: Tensor) -> Tensor:
    """Pad images on the right and at the bottom to multiples of 32 pixels; repeat the last pixels."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % _DEEPEST, 0, -height % _DEEPEST), mode="replicate")
