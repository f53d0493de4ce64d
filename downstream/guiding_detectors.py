"""The two detectors of DetFusion, whose attention modulates a fusion network and whose losses train it."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.pair_batch import PairBatch
from ..runtime.errors import UserError
from ..runtime.run_files import DETECTORS_FOLDER
from .compact_detector import STRIDE, CompactDetector, padded
from .shared_attention import Attended, SharedAttention
from .specification import classes_and_width, keep_network, load_kept
from .task_network import Detections

_KIND = "guiding-detectors"


class GuidingDetectors(nn.Module):
    """Two compact detectors, one for each source, with shared attention between their pyramids.

    Source: Sun et al., "DetFusion: A Detection-driven Infrared and Visible Image Fusion Network", ACM MM 2022.

    Args:
        width: Width of each detector, >= 2; see `CompactDetector`.

    Example:
        >>> detectors = GuidingDetectors(["person"], width=8).eval()
        >>> detectors.attention(torch.rand(1, 1, 40, 50), torch.rand(1, 1, 40, 50)).shape
        torch.Size([1, 1, 40, 50])
    """

    multiple = 32  # in pixels; heights and widths are padded to multiples of it
    reach = 16  # in pixels, from a value of the attention to the farthest input that it depends on

    def __init__(self, classes: Sequence[str], width: int = 32) -> None:
        super().__init__()
        self.classes, self.width = tuple(classes), width
        self.first = CompactDetector(classes, width)
        self.second = CompactDetector(classes, width)
        self.shared = SharedAttention(self.first.features, len(self.first.stages))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(self, batch: PairBatch) -> Tensor:
        """Return the mean loss of both detectors on the sources, with and without shared attention, a scalar.

        The loss without attention trains the heads for `guidance`, which has none.
        """
        plain, attended = self._pyramids(batch.first, batch.second)
        losses = []
        for detector, levels, refined in zip(self._detectors(), plain, attended, strict=True):
            # One batch, so that the running statistics cover both kinds of pyramids.
            both = [torch.cat(kinds) for kinds in zip(levels, refined.levels, strict=True)]
            for maps in zip(*(each.chunk(2) for each in detector.maps(both)), strict=True):
                losses.append(detector.loss_of(maps, batch))
        return torch.stack(losses).mean()

    def guidance(self, fused: Tensor, batch: PairBatch) -> Tensor:
        """Return the mean loss of both detectors on a fused image, without shared attention, a scalar.

        It is differentiable with respect to the fused image. Freeze the detectors and set evaluation mode before, so
        that neither weights nor statistics adapt to the image.
        """
        return torch.stack([detector.loss(fused, batch) for detector in self._detectors()]).mean()

    def attention(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute a map that is high where the objects are, from sources (N, 1, H, W) in [0, 1].

        Returns:
            The larger attention of the two detectors at the finest level, in [0, 1], (N, 1, H, W).
        """
        _, (of_first, of_second) = self._pyramids(first, second)
        larger = torch.maximum(of_first.attention[0], of_second.attention[0])  # (N, 1, h, w)
        resized = F.interpolate(larger, scale_factor=STRIDE, mode="bilinear", align_corners=False)
        return resized[..., : first.shape[-2], : first.shape[-1]]

    def attention_alone(self) -> "GuidingDetectors":
        """Return a copy with the finest level only, for `attention` and nothing else."""
        alone = copy.deepcopy(self)
        for detector in alone._detectors():
            detector.stages, detector.laterals = detector.stages[:1], detector.laterals[:1]
            del detector.smooth, detector.heat, detector.sides
        shared = alone.shared
        shared.common, shared.first_gates, shared.second_gates = (
            levels[:1] for levels in (shared.common, shared.first_gates, shared.second_gates)
        )
        return alone

    @torch.no_grad()
    def predict(self, first: Tensor, second: Tensor) -> list[Detections]:
        """Find the objects in each pair of sources (N, 1, H, W), luma in [0, 1], with both detectors together."""
        _, attended = self._pyramids(first, second)
        (logits, sides), (second_logits, second_sides) = (
            detector.maps(refined.levels) for detector, refined in zip(self._detectors(), attended, strict=True)
        )
        maps = (logits + second_logits) / 2, (sides * second_sides).sqrt()  # the means of logits and of log distances
        return self.first.detections(maps, *first.shape[-2:])

    def specification(self) -> dict[str, Any]:
        """Return the architecture as plain data for `from_specification`."""
        return {"kind": _KIND, "classes": list(self.classes), "width": self.width}

    @staticmethod
    def from_specification(specification: Mapping[str, Any]) -> "GuidingDetectors":
        """Build detectors with fresh weights from the result of `specification`.

        Raises:
            UserError: If it is of another kind or not valid.
        """
        if specification.get("kind") != _KIND:
            raise UserError(f"kind must be {_KIND}, not {specification.get('kind')!r}")
        return GuidingDetectors(*classes_and_width(specification))

    def _detectors(self) -> tuple[CompactDetector, CompactDetector]:
        return self.first, self.second

    def _pyramids(self, first: Tensor, second: Tensor) -> tuple[list[list[Tensor]], tuple[Attended, Attended]]:
        plain = [
            detector.pyramid(padded(images))
            for detector, images in zip(self._detectors(), (first, second), strict=True)
        ]
        return plain, self.shared(*plain)


def keep_guiding_detectors(detectors: GuidingDetectors, run: Path) -> None:
    """Write guiding detectors into the folder `detectors` of a run folder.

    Raises:
        UserError: If a file cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> run = Path(mkdtemp())
        >>> keep_guiding_detectors(GuidingDetectors(["person"], width=8), run)
        >>> load_guiding_detectors(run).classes
        ('person',)
    """
    keep_network(detectors, detectors.specification(), run / DETECTORS_FOLDER)


def load_guiding_detectors(run: Path) -> GuidingDetectors:
    """Load the guiding detectors of a run folder onto the CPU, frozen and in evaluation mode.

    Raises:
        UserError: If the folder holds none, or its files are not whole or do not belong together.

    Example:
        >>> from tempfile import mkdtemp
        >>> run = Path(mkdtemp())
        >>> keep_guiding_detectors(GuidingDetectors(["person"], width=8), run)
        >>> any(parameter.requires_grad for parameter in load_guiding_detectors(run).parameters())
        False
    """
    detectors = load_kept(run / DETECTORS_FOLDER, "guiding detectors", GuidingDetectors.from_specification)
    return detectors.eval().requires_grad_(False)
