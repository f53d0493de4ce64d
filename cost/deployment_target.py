"""Where networks are to fuse images, and what a single network costs there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from ..data import luma_of, make_scene
from ..operators import RefineNetwork, count_flops, count_parameters, for_inference
from ..runtime.progress import Progress
from .budget import CostKind
from .latency import ForwardPass, measure


@dataclass(frozen=True)
class DeploymentTarget:
    """A device, and the size in pixels of the images that networks are to fuse on it.

    Example:
        >>> DeploymentTarget(480, 640, torch.device("cpu")).cost("params", nn.Linear(3, 1))
        4
    """

    height: int
    width: int
    device: torch.device

    def cost(self, kind: CostKind, network: nn.Module) -> float:
        """Measure the milliseconds that a network takes for a pair of images, or count its operations or parameters."""
        if kind == "ms":
            return self.measure([self.forward_pass(network)])[0]
        if kind == "FLOPs":
            return count_flops(network, self.height, self.width, len(self.images_for(network)))
        return count_parameters(network)

    def measure(self, passes: Sequence[ForwardPass], progress: Progress | None = None) -> list[float]:
        """Measure forward passes, in milliseconds."""
        return measure(passes, self.device, progress)

    def forward_pass(self, network: nn.Module) -> ForwardPass:
        """Return a call of a prepared copy of a network on a synthetic pair of images."""
        return partial(self.prepare(network), *self.images_for(network))

    def images_for(self, network: nn.Module) -> tuple[Tensor, ...]:
        """Return the images that a network takes: the pair, and for a refine network their average, too."""
        first, second = self.pair
        return (first, second, (first + second) / 2) if isinstance(network, RefineNetwork) else (first, second)

    def prepare(self, network: nn.Module) -> nn.Module:
        """Return a copy of a network that is rewritten and laid out for use, as `Fuser` does it."""
        return for_inference(network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Two images, (1, 1, H, W) each, with content: on noise some operators take longer."""
        first, second = _render(self.height, self.width)
        return first.to(self.device), second.to(self.device)


@lru_cache(maxsize=1)
def _render(height: int, width: int) -> tuple[Tensor, Tensor]:
    scene = make_scene(0, height=height, width=width)
    return luma_of(scene.first)[None, None], luma_of(scene.second)[None, None]
