"""Fuses images in memory, two or a stack of more: arrays, pillow images or tensors of any size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data import chroma_source, coloured_pixels, luma_of
from ..genotypes.choices import check_choice
from ..genotypes.genotype import COLOURS
from ..operators import count_memory
from ..runtime.device import select_device
from ..runtime.errors import UserError
from ..runtime.memory import keep_freed_memory
from .stack_fusion import fuse_stack
from .tiling import Area, Tile, plan_tiles, run_tiles
from .trained_network import TrainedNetwork, load_network

PASS_BYTES = 64 * 2**20  # of the feature maps of a network at a time
PASS_PIXELS = 640 * 480  # images up to this size are fused as a whole
_PROBE = 64  # height and width in pixels of the image on which the bytes per pixel are counted
_ROUNDING = 1e-3  # largest distance of floating-point values from [0, 1]

_WHOLE: Area = slice(None), slice(None)

A = TypeVar("A")
Source = TypeVar("Source", NDArray, Image.Image, Tensor)


class Fuser:
    """A trained network that fuses aligned images of any kind and size.

    Args:
        pass_bytes: Memory of the feature maps at a time, in bytes; larger images are fused in tiles.
        pass_pixels: Number of pixels up to which images are fused as a whole, with any memory.
        colour: The source whose colour the fused image takes, "first", "second" or "both"; default: that of the task.

    Example:
        >>> fuser = Fuser(load_network("ivif-fast"), torch.device("cpu"))
        >>> fuser(torch.zeros(30, 40), torch.ones(30, 40)).shape
        torch.Size([30, 40])
    """

    def __init__(
        self,
        network: TrainedNetwork,
        device: torch.device,
        pass_bytes: int = PASS_BYTES,
        pass_pixels: int = PASS_PIXELS,
        colour: str | None = None,
    ) -> None:
        if colour is not None:
            check_choice("colour", colour, COLOURS)
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.name, self.task = network.genotype.name, network.genotype.task
        self.colour = colour or network.genotype.colour_source
        probe = torch.zeros(1, 1, _PROBE, _PROBE, device=device)
        self._pixels = max(pass_pixels, pass_bytes * _PROBE**2 // count_memory(self.network, probe, probe))

    def __call__(self, first: Source, second: Source, *further: Source) -> Source:
        """Fuse two aligned images of the same kind and size, or a stack of more.

        A stack is fused by `fuse_stack`; the order of its images does not matter.

        Args:
            first: First source of the task of the network, such as the infrared image; one of

                - a numpy array (H, W) or (H, W, 3), uint8, uint16 or floating-point in [0, 1];
                - a pillow image, grey or in colour;
                - a tensor of luma, (N, 1, H, W), (1, H, W) or (H, W), floating-point in [0, 1].
            second: Second source of the task, such as the visible image.
            further: Further exposures or focal planes.

        Returns:
            The fused image, of the kind of the sources. An array or pillow image has the colour of the source that the
            task names, and is grey if that one is grey: (H, W, 3) if one source has this shape. It has the smallest
            depth of the sources. A tensor has the shape, dtype and device of the first source.

        Raises:
            UserError: If the sources differ in kind or size, are empty, are not finite or are of another kind, or there
                are more than two for a network whose sources are of two kinds.
        """
        sources: tuple[Any, ...] = first, second, *further
        self.check_count(len(sources))

        def are(kind: type) -> bool:
            return all(isinstance(source, kind) for source in sources)

        if isinstance(first, np.ndarray) and are(np.ndarray):
            return self._fuse_arrays(sources)
        if isinstance(first, Image.Image) and are(Image.Image):
            return Image.fromarray(self._fuse_arrays([_pixels(name, source) for name, source in _named(sources)]))
        if isinstance(first, Tensor) and are(Tensor):
            return self._fuse_tensors(sources)
        kinds = [f"{name}{' is' * (name == 'first')} a {type(source).__name__}" for name, source in _named(sources)]
        raise UserError(f"{', '.join(kinds)}; give {_all(sources)} as numpy arrays, pillow images or tensors")

    def check_count(self, count: int) -> None:
        """Check whether the network fuses so many sources.

        Raises:
            UserError: If there are more than two, and the sources of the network are of two kinds.
        """
        if count > 2 and self.network.genotype.colour_source != "both":
            first, second = self.network.genotype.source_words
            raise UserError(
                f"{self.name} fuses two sources, {first} and {second}, not {count}; networks for multi-exposure and "
                "multi-focus fuse more, as with --task multi-exposure"
            )

    def _fuse_arrays(self, sources: Sequence[NDArray]) -> NDArray:
        for name, array in _named(sources):
            if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
                raise UserError(f"{name} has the shape {array.shape}; give (H, W) or (H, W, 3)")
            _check_not_empty(name, array.shape)
            if array.dtype.kind == "f":
                _check_range(name, array)
            elif array.dtype not in (np.uint8, np.uint16):
                raise UserError(f"{name} holds {array.dtype}; give uint8, uint16, or floating-point in [0, 1]")
        first, *others = sources
        for name, array in _named(sources)[1:]:
            if (first.dtype.kind == "f") != (array.dtype.kind == "f"):
                raise UserError(
                    f"first holds {first.dtype}, {name} {array.dtype}; give {_all(sources)} as integers or as floats"
                )
            _check_sizes(first.shape[:2], array.shape[:2], name)
        dtype = min((source.dtype for source in sources), key=lambda dtype: dtype.itemsize)
        channels = (3,) if any(source.ndim == 3 for source in sources) else ()
        fused = np.empty((*first.shape[:2], *channels), dtype)
        chroma = chroma_source(self.colour, first, *others)

        def read(area: Area) -> tuple[Tensor, ...]:
            return tuple(luma_of(source[area])[None, None].to(self.device) for source in sources)

        def write(area: Area, luma: Tensor) -> None:
            one, other, *further = (source[area] for source in sources)
            clipped = luma[0, 0].clamp(0, 1).cpu()
            pixels = coloured_pixels(clipped, one, other, chroma, dtype, further=further)
            fused[area] = pixels if pixels.ndim == fused.ndim else pixels[..., None]

        if others[1:]:
            write(_WHOLE, self._fuse_stack(read(_WHOLE)))
        else:
            run_tiles(self.network, self._tiles(*first.shape[:2]), read, write)
        return fused

    def _fuse_tensors(self, given: Sequence[Tensor]) -> Tensor:
        for name, tensor in _named(given):
            if tensor.ndim not in (2, 3, 4) or any(size != 1 for size in tensor.shape[-3:-2]):
                raise UserError(
                    f"{name} has the shape {tuple(tensor.shape)}; give luma: (N, 1, H, W), (1, H, W) or (H, W)"
                )
            if not tensor.is_floating_point():
                raise UserError(f"{name} holds {tensor.dtype}; give floating-point in [0, 1]")
            _check_not_empty(name, tensor.shape)
            _check_range(name, tensor.detach())
        first = given[0]
        for name, tensor in _named(given)[1:]:
            _check_sizes(first.shape, tensor.shape, name)
        sources = [tensor.detach().reshape(-1, 1, *first.shape[-2:]) for tensor in given]
        if len(sources) > 2:
            samples = zip(*(source.to(self.device, torch.float32).split(1) for source in sources), strict=True)
            return torch.cat([self._fuse_stack(stack) for stack in samples]).clamp(0, 1).to(first).view(first.shape)
        fused = torch.empty_like(sources[0])

        def read(area: Area) -> tuple[Tensor, ...]:
            return tuple(source[..., area[0], area[1]].to(self.device, torch.float32) for source in sources)

        def write(area: Area, luma: Tensor) -> None:
            fused[..., area[0], area[1]] = luma.clamp(0, 1).to(fused)

        tiles = self._tiles(first.shape[-2], first.shape[-1], samples=len(fused))
        run_tiles(self.network, tiles, read, write)
        return fused.view(first.shape)

    def _fuse_stack(self, sources: Sequence[Tensor]) -> Tensor:
        """Fuse the luma of more than two sources, (1, 1, H, W) each; not clipped."""
        return fuse_stack(lambda *pair: self._fuse_tensors(pair), sources, ordered=self.task == "multi-exposure")

    def _tiles(self, height: int, width: int, samples: int = 1) -> list[Tile]:
        pixels, reach = max(1, self._pixels // samples), self.network.reach
        if reach is None and height * width > pixels:
            raise UserError(
                f"{self.network.genotype.name} has a non-local operator, which compares every pixel with every other"
                f" one, and can fuse at most {pixels:,} pixels, not {width}x{height}; reduce the images"
            )
        return plan_tiles(height, width, margin=reach or 0, multiple=self.network.multiple, pixels=pixels)


def load(name_or_path: str | Path, device: str = "auto", colour: str | None = None) -> Fuser:
    """Load a trained network that fuses images.

    On a CPU, the process keeps the memory that it frees for the next images; see `keep_freed_memory`.

    Args:
        name_or_path: Name of a network that comes with timfuse, a folder with `genotype.yaml` and
            `weights.safetensors`, such as a run folder, or a name on the hub, "hub:user/name" or
            "hub:user/name@revision".
        device: Name of a device: "auto" (the first CUDA device, or else the CPU), "cpu", "cuda", "cuda:1" or "mps".
        colour: The source whose colour fused images take, "first", "second" or "both"; default: that of the task, such
            as the visible image.

    Raises:
        UserError: If there is no such network, device or choice of colour, or a file of the network is missing or
            damaged.

    Example:
        >>> fuser = load("ivif", "cpu")
        >>> infrared, visible = np.zeros((30, 40), np.uint8), np.full((30, 40, 3), 200, np.uint8)
        >>> fuser(infrared, visible).shape
        (30, 40, 3)
    """
    selected = select_device(device)
    if selected.type == "cpu":
        keep_freed_memory()
    return Fuser(load_network(name_or_path), selected, colour=colour)


def _named(sources: Sequence[A]) -> list[tuple[str, A]]:
    """Name the sources for messages: first, second, source 3, ..."""
    names = ("first", "second", *(f"source {place + 1}" for place in range(2, len(sources))))
    return list(zip(names, sources, strict=True))


def _all(sources: Sequence[object]) -> str:
    return "both" if len(sources) == 2 else "all"


def _pixels(name: str, image: Image.Image) -> NDArray[Any]:
    """Return the pixels of a pillow image in its bit depth, without palette and alpha."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise UserError(f"{name} has the mode {image.mode} of 32 bits; convert it to L, RGB or I;16")
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))


def _check_not_empty(name: str, shape: tuple[int, ...]) -> None:
    if 0 in shape:
        raise UserError(f"{name} is empty: its shape is {tuple(shape)}")


def _check_range(name: str, values: NDArray[Any] | Tensor) -> None:
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name} holds values that are not finite (NaN or infinite); repair or omit the image")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise UserError(f"{name} ranges from {low:.4g} to {high:.4g}; scale floating-point images to [0, 1]")


def _check_sizes(first: tuple[int, ...], other: tuple[int, ...], name: str) -> None:
    if first != other:
        sizes = ["x".join(map(str, shape[:-3:-1])) for shape in (first, other)]
        if sizes[0] == sizes[1]:
            raise UserError(f"first has the shape {tuple(first)}, {name} {tuple(other)}; give both the same shape")
        raise UserError(f"first is {sizes[0]}, {name} {sizes[1]} (width x height); bring both to one size")
