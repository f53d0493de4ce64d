"""How well methods choose the sharper source: on rendered stacks against the sharp picture, on real ones by place.

    python -m benchmarks.focus --network multi-focus --data DATA/mff   # from the root of the repository

The rendered scenes, photographed with the focus near, far and everywhere, are those of `make_focus_with_truth`; no
network was trained on these seeds. On the validation pairs of DATA/mff, a pixel counts where the gradient energy of one
source, in a Gaussian of 4 pixels, is more than twice that of the other and more than 4 grey levels squared; the figure
is the share of these pixels where the fused image is nearer to that source, by the mean difference in the same
Gaussian. With the command of OpenFocus on the path, its methods are compared too. Intervals are by bootstrap over
scenes.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import timfuse
from timfuse.data import find_pairs, luma, read_pixels, unit_range, write_pixels
from timfuse.data.synthetic import make_focus_with_truth
from timfuse.objectives.metrics import fusion_metrics
from timfuse.objectives.window import gaussian_filter
from timfuse.runtime.progress import Progress

from .headroom import interval, untrained
from .peers import OPENFOCUS, open_focus
from .ruler import TRIVIAL

Fuse = Callable[[Tensor, Tensor], Tensor]

SIZE = 256
SEED = 10_000  # of the first scene
TAPS, SIGMA = 25, 4.0


def unit(pixels: np.ndarray) -> Tensor:
    """Compute luma, (1, 1, H, W) in [0, 1]."""
    return torch.from_numpy(unit_range(luma(pixels)))[None, None]


def by_open_focus(method: str) -> Fuse:
    """Fuse luma by a method of OpenFocus, through files."""

    def fuse(first: Tensor, second: Tensor) -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{name}.png" for name in ("1", "2", "fused")]
            for path, image in zip(paths, (first, second), strict=False):
                write_pixels(path, bytes_of(image)[0, 0].numpy())
            open_focus(method, *paths)
            return unit(read_pixels(paths[2]))

    return fuse


def bytes_of(image: Tensor) -> Tensor:
    """Round to 8 bits."""
    return (255 * image.clamp(0, 1)).round().to(torch.uint8)


def smooth(image: Tensor) -> Tensor:
    """Average in a Gaussian."""
    return gaussian_filter(image, TAPS, SIGMA, "replicate")


def sharpness(image: Tensor) -> Tensor:
    """Compute the mean squared gradient in a Gaussian, in grey levels squared."""
    down, across = torch.gradient(255 * image, dim=(-2, -1))
    return smooth(down.square() + across.square())


def share_of_sharper(fused: Tensor, first: Tensor, second: Tensor) -> float:
    """Return the share of the clearly sharper places where the fused image is nearer to the sharper source."""
    sharp = sharpness(first), sharpness(second)
    of_first, of_second = (one > 2 * other.clamp_min(2) for one, other in (sharp, sharp[::-1]))
    nearer = smooth((fused - first).abs()) < smooth((fused - second).abs())
    right = (of_first & nearer) | (of_second & ~nearer)
    return float(right.sum() / (of_first | of_second).sum())


@torch.inference_mode()
def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--network", nargs="*", default=[], help="shipped names or run folders")
    parser.add_argument("--data", type=Path, help="the data set mff, for the share of the sharper source")
    parser.add_argument("--scenes", type=int, default=32, help="number of rendered scenes")
    given = parser.parse_args()
    methods: dict[str, Fuse] = dict(TRIVIAL)
    if shutil.which("openfocus"):
        methods |= {name: by_open_focus(name) for name in OPENFOCUS}
    for name in given.network:
        methods[f"{Path(name).name} untrained"] = untrained(name)
        methods[Path(name).name] = timfuse.load(name, "cpu")
    pairs = find_pairs(given.data, "multi-focus", "val") if given.data else []
    scores = {name: np.zeros((given.scenes, 2)) for name in methods}
    shares: dict[str, list[float]] = {name: [] for name in methods}
    with Progress((given.scenes + len(pairs)) * len(methods), "fusing") as progress:
        for scene in range(given.scenes):
            near, far, sharp = map(unit, make_focus_with_truth(SEED + scene, height=SIZE, width=SIZE))
            for name, fuse in methods.items():
                truth = bytes_of(sharp)
                values = fusion_metrics(bytes_of(fuse(near, far)), truth, truth, ("PSNR", "SSIM"))
                scores[name][scene] = [value.item() for value in values.values()]
                progress.advance(name)
        for pair in pairs:
            first, second = map(unit, pair.read())
            for name, fuse in methods.items():
                shares[name].append(share_of_sharper(fuse(first, second).clamp(0, 1), first, second))
                progress.advance(name)
    print(f"{given.scenes} rendered scenes of {SIZE}x{SIZE}, {len(pairs)} real pairs")
    print(f"{'method':<24}{'PSNR':>7}{'SSIM':>8}  {'PSNR above gff':>24}{'sharper source':>16}")
    for name, values in scores.items():
        difference = values[:, 0] - scores["gff"][:, 0]
        low, high = interval(lambda rows, values=difference: float(values[rows].mean()), given.scenes)
        above = f"{difference.mean():+.2f} ({low:+.2f} to {high:+.2f})"
        share = f"{100 * np.nanmean(shares[name]):.1f} %" if pairs else ""
        print(f"{name:<24}{values[:, 0].mean():7.2f}{values[:, 1].mean():8.4f}  {above:>24}{share:>16}")


if __name__ == "__main__":
    main()
