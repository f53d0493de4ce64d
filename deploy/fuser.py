"""Fuses a pair of images in memory: arrays, pillow images or tensors of any size."""

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
from .tiling import Area, Tile, plan_tiles, run_tiles
from .trained_network import TrainedNetwork, load_network

PASS_BYTES = 64 * 2**20  # of the feature maps of a network at a time
PASS_PIXELS = 640 * 480  # images up to this size are fused as a whole
_PROBE = 64  # height and width in pixels of the image on which the bytes per pixel are counted
_ROUNDING = 1e-3  # largest distance of floating-point values from [0, 1]

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

    def __call__(self, first: Source, second: Source) -> Source:
        """Fuse two aligned images of the same kind and size.

        Args:
            first: First source of the task of the network, such as the infrared image; one of

                - a numpy array (H, W) or (H, W, 3), uint8, uint16 or floating-point in [0, 1];
                - a pillow image, grey or in colour;
                - a tensor of luma, (N, 1, H, W), (1, H, W) or (H, W), floating-point in [0, 1].
            second: Second source of the task, such as the visible image.

        Returns:
            The fused image, of the kind of the sources. An array or pillow image has the colour of the source that the
            task names, and is grey if that one is grey: (H, W, 3) if one source has this shape. It has the smaller
            depth of the two sources. A tensor has the shape, dtype and device of the first source.

        Raises:
            UserError: If the sources differ in kind or size, are empty, are not finite or are of another kind.
        """
        if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
            return self._fuse_arrays(first, second)
        if isinstance(first, Image.Image) and isinstance(second, Image.Image):
            return Image.fromarray(self._fuse_arrays(_pixels("first", first), _pixels("second", second)))
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            return self._fuse_tensors(first, second)
        kinds = [type(source).__name__ for source in (first, second)]
        raise UserError(
            f"first is a {kinds[0]}, second a {kinds[1]}; give both as numpy arrays, pillow images or tensors"
        )

    def _fuse_arrays(self, first: NDArray, second: NDArray) -> NDArray:
        for name, array in (("first", first), ("second", second)):
            if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
                raise UserError(f"{name} has the shape {array.shape}; give (H, W) or (H, W, 3)")
            _check_not_empty(name, array.shape)
            if array.dtype.kind == "f":
                _check_range(name, array)
            elif array.dtype not in (np.uint8, np.uint16):
                raise UserError(f"{name} holds {array.dtype}; give uint8, uint16, or floating-point in [0, 1]")
        if (first.dtype.kind == "f") != (second.dtype.kind == "f"):
            raise UserError(f"first holds {first.dtype}, second {second.dtype}; give both as integers or as floats")
        _check_sizes(first.shape[:2], second.shape[:2])
        dtype = min(first.dtype, second.dtype, key=lambda dtype: dtype.itemsize)
        channels = (3,) if 3 in (first.ndim, second.ndim) else ()
        fused = np.empty((*first.shape[:2], *channels), dtype)
        chroma = chroma_source(self.colour, first, second)

        def read(area: Area) -> tuple[Tensor, ...]:
            return tuple(luma_of(source[area])[None, None].to(self.device) for source in (first, second))

        def write(area: Area, luma: Tensor) -> None:
            pixels = coloured_pixels(luma[0, 0].clamp(0, 1).cpu(), first[area], second[area], chroma, dtype)
            fused[area] = pixels if pixels.ndim == fused.ndim else pixels[..., None]

        run_tiles(self.network, self._tiles(*first.shape[:2]), read, write)
        return fused

    def _fuse_tensors(self, first: Tensor, second: Tensor) -> Tensor:
        for name, tensor in (("first", first), ("second", second)):
            if tensor.ndim not in (2, 3, 4) or any(size != 1 for size in tensor.shape[-3:-2]):
                raise UserError(
                    f"{name} has the shape {tuple(tensor.shape)}; give luma: (N, 1, H, W), (1, H, W) or (H, W)"
                )
            if not tensor.is_floating_point():
                raise UserError(f"{name} holds {tensor.dtype}; give floating-point in [0, 1]")
            _check_not_empty(name, tensor.shape)
            _check_range(name, tensor.detach())
        _check_sizes(first.shape, second.shape)
        sources = [tensor.detach().reshape(-1, 1, *first.shape[-2:]) for tensor in (first, second)]
        fused = torch.empty_like(sources[0])

        def read(area: Area) -> tuple[Tensor, ...]:
            return tuple(source[..., area[0], area[1]].to(self.device, torch.float32) for source in sources)

        def write(area: Area, luma: Tensor) -> None:
            fused[..., area[0], area[1]] = luma.clamp(0, 1).to(fused)

        tiles = self._tiles(first.shape[-2], first.shape[-1], samples=len(fused))
        run_tiles(self.network, tiles, read, write)
        return fused.view(first.shape)

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
        name_or_path: Name of a network that comes with timfuse, or a folder with `genotype.yaml` and
            `weights.safetensors`, such as a run folder.
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


def _check_sizes(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    if first != second:
        sizes = ["x".join(map(str, shape[:-3:-1])) for shape in (first, second)]
        if sizes[0] == sizes[1]:
            raise UserError(f"first has the shape {tuple(first)}, second {tuple(second)}; give both the same shape")
        raise UserError(f"first is {sizes[0]}, second {sizes[1]} (width x height); bring both to one size")
