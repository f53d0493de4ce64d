"""Preparation of images for a published network: padding, repetition of luma over its channels and normalisation."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..runtime.errors import UserError
from .compact_detector import padded

# Red, green and blue of ImageNet, for networks that declare no normalisation.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LumaInput(nn.Module):
    """Prepare images for a network whose C channels have this mean and deviation, for values in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self._specification = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}
        # Not persistent, because they belong to the specification of a task network, not to its weights.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Pad images (N, 1 or C, H, W) in [0, 1] to multiples of 32, repeat luma and normalise: (N, C, H', W')."""
        return (padded(images) - self.mean) / self.std

    @classmethod
    def read(cls, folder: Path, channels: int) -> "LumaInput":
        """Read the normalisation of a saved network from its `preprocessor_config.json`.

        Without the file, ImageNet's is used. If the number of values is not C, each channel gets their average.

        Raises:
            UserError: If the file is damaged.
        """
        path = folder / "preprocessor_config.json"
        mean: tuple[float, ...] = _MEAN
        std: tuple[float, ...] = _STD
        if path.is_file():
            try:
                saved = json.loads(path.read_text(encoding="utf-8"))
                mean, std = (tuple(map(float, saved.get(key) or ())) for key in ("image_mean", "image_std"))
                if not (saved.get("do_normalize", True) and mean and std):
                    mean, std = (0.0,), (1.0,)
            except (OSError, ValueError, TypeError, AttributeError):
                raise UserError(f"cannot read {path}; get the network again") from None
        mean, std = (
            values if len(values) == channels else (sum(values) / len(values),) * channels for values in (mean, std)
        )
        return cls(mean, std)

    def specification(self) -> dict[str, list[float]]:
        """Return the arguments of `LumaInput` as plain data."""
        return {name: list(values) for name, values in self._specification.items()}
