"""How luma images become what a published network takes: padded, repeated over its channels and normalised."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..runtime.errors import UserError
from .detector import padded

# Of ImageNet's red, green and blue: what networks are trained with that say nothing of it.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class LumaInput(nn.Module):
    """Gives luma images to a network that expects colour.

    Args:
        mean: Of each of the C channels that the network takes, for values in [0, 1].
        std: The same, standard deviations.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self._specification = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}
        # They belong to the specification of a task network, not to its weights.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Pad, repeat and normalise.

        Args:
            images: (N, 1, H, W) luma in [0, 1].

        Returns:
            (N, C, H', W') with H' and W' the next multiples of 32; differentiable by the images.
        """
        return (padded(images) - self.mean) / self.std

    @classmethod
    def read(cls, folder: Path, channels: int) -> "LumaInput":
        """Read what a saved network expects off its `preprocessor_config.json`, ImageNet's normalisation without one.

        Args:
            folder: Of the network.
            channels: C, how many the network takes.

        Returns:
            The normalisation, none where the file has none; its values' average where C is not their number.

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
        """Say what a `LumaInput` is made of, to make it anew."""
        return {name: list(values) for name, values in self._specification.items()}
