"""DetFusion's guide: two detectors whose attention modulates a fusion network and whose losses steer it."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.objects import LabelledBatch
from ..runtime.errors import UserError
from ..runtime.weights import load_into
from .detections import Detections
from .detector import STRIDE, CompactDetector, padded
from .shared_attention import Attended, SharedAttention
from .specification import SPECIFICATION_FILE, WEIGHTS_FILE, keep_network, read_specification

FOLDER = "detectors"
_KIND = "guiding-detectors"


class GuidingDetectors(nn.Module):
    """Two compact detectors, one on each source, with shared attention on their pyramids.

    Source: Sun et al., "DetFusion: A Detection-driven Infrared and Visible Image Fusion Network", ACM MM 2022.

    Args:
        classes: Names of the classes.
        width: Of each detector, at least 2.
    """

    multiple = 32  # pixels, to a multiple of which heights and widths are padded
    reach = 16  # pixels from one of the attention to the farthest that it looks at

    def __init__(self, classes: Sequence[str], width: int = 32) -> None:
        super().__init__()
        self.classes, self.width = tuple(classes), width
        self.first = CompactDetector(classes, width)
        self.second = CompactDetector(classes, width)
        self.shared = SharedAttention(self.first.channels, len(self.first.stages))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(self, batch: LabelledBatch) -> Tensor:
        """Score how well the detectors find the objects in the sources, with the shared attention and without.

        The plain pyramids count as well, so that the heads learn to read what `guidance` shows them.

        Args:
            batch: With its objects.

        Returns:
            The mean of both detectors' losses on both kinds of pyramids, a scalar.
        """
        plain, attended = self._pyramids(batch.first, batch.second)
        losses = []
        for detector, levels, refined in zip(self._detectors(), plain, attended, strict=True):
            # As one batch: the statistics that normalise both kinds afterwards are those that normalise them here.
            both = [torch.cat(kinds) for kinds in zip(levels, refined.levels, strict=True)]
            for maps in zip(*(each.chunk(2) for each in detector.maps(both)), strict=True):
                losses.append(detector.loss_of(maps, batch))
        return torch.stack(losses).mean()

    def guidance(self, fused: Tensor, batch: LabelledBatch) -> Tensor:
        """Score a fused image by how well both detectors find its objects, without the shared attention.

        Freeze the detectors and put them into evaluation mode: neither weights nor statistics are to follow the image.

        Args:
            fused: (N, 1, H, W) luma in [0, 1].
            batch: With its objects.

        Returns:
            The mean of both losses, a scalar, differentiable by the fused image.
        """
        return torch.stack([detector.loss(fused, batch) for detector in self._detectors()]).mean()

    def attention(self, first: Tensor, second: Tensor) -> Tensor:
        """Show where the objects are.

        Args:
            first: (N, 1, H, W) luma in [0, 1], any H and W.
            second: (N, 1, H, W) luma in [0, 1].

        Returns:
            (N, 1, H, W) in [0, 1], the larger attention of the two detectors at the finest level.
        """
        _, (of_first, of_second) = self._pyramids(first, second)
        larger = torch.maximum(of_first.attention[0], of_second.attention[0])  # (N, 1, h, w)
        resized = F.interpolate(larger, scale_factor=STRIDE, mode="bilinear", align_corners=False)
        return resized[..., : first.shape[-2], : first.shape[-1]]

    def attention_alone(self) -> "GuidingDetectors":
        """Leave out all that the attention does without.

        Returns:
            A copy that has the finest level only, and of which nothing but `attention` can be used.
        """
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
        """Find the objects in pairs of images, by both detectors together.

        Args:
            first: (N, 1, H, W) luma in [0, 1].
            second: (N, 1, H, W) luma in [0, 1].

        Returns:
            Of each pair its objects.
        """
        _, attended = self._pyramids(first, second)
        (logits, sides), (second_logits, second_sides) = (
            detector.maps(refined.levels) for detector, refined in zip(self._detectors(), attended, strict=True)
        )
        maps = (logits + second_logits) / 2, (sides * second_sides).sqrt()  # the means of logits and of log distances
        return self.first.detections(maps, *first.shape[-2:])

    def specification(self) -> dict[str, Any]:
        """Say in plain data what `from_specification` needs to make these detectors anew."""
        return {"kind": _KIND, "classes": list(self.classes), "width": self.width}

    @staticmethod
    def from_specification(specification: Any) -> "GuidingDetectors":
        """Make detectors with fresh weights.

        Args:
            specification: As `specification` returns it.

        Returns:
            The detectors.

        Raises:
            UserError: It specifies anything else.
        """
        if not isinstance(specification, dict) or set(specification) != {"kind", "classes", "width"}:
            raise UserError("the specification of guiding detectors must have the keys kind, classes and width")
        kind, classes, width = (specification[key] for key in ("kind", "classes", "width"))
        if kind != _KIND:
            raise UserError(f"kind must be {_KIND}, not {kind!r}")
        if not isinstance(classes, list) or not classes or not all(isinstance(name, str) and name for name in classes):
            raise UserError(f"classes must be a list of names, like [person, car], not {classes!r}")
        if type(width) is not int or width < 2:
            raise UserError(f"width must be a whole number from 2 on, like 32, not {width!r}")
        return GuidingDetectors(classes, width)

    def _detectors(self) -> tuple[CompactDetector, CompactDetector]:
        return self.first, self.second

    def _pyramids(self, first: Tensor, second: Tensor) -> tuple[list[list[Tensor]], tuple[Attended, Attended]]:
        plain = [
            detector.pyramid(padded(images))
            for detector, images in zip(self._detectors(), (first, second), strict=True)
        ]
        return plain, self.shared(*plain)


def keep_guiding_detectors(detectors: GuidingDetectors, run: Path) -> None:
    """Write detectors into a run folder; the specification comes last.

    Args:
        detectors: With their weights.
        run: The run folder; they go into its folder `detectors`.

    Raises:
        UserError: A file cannot be written.
    """
    keep_network(detectors, run / FOLDER)


def load_guiding_detectors(run: Path) -> GuidingDetectors:
    """Load the detectors of a run folder onto the CPU and freeze them.

    Args:
        run: A folder into which `keep_guiding_detectors` wrote.

    Returns:
        The detectors in evaluation mode without gradients.

    Raises:
        UserError: The folder holds none, or their files are not whole or do not belong together.
    """
    specification = read_specification(run / FOLDER, "guiding detectors")
    try:
        detectors = GuidingDetectors.from_specification(specification)
    except UserError as error:
        raise UserError(f"{run / FOLDER / SPECIFICATION_FILE}: {error}") from None
    load_into(detectors, run / FOLDER / WEIGHTS_FILE)
    return detectors.eval().requires_grad_(False)
