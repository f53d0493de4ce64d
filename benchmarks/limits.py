"""Draws where each network does worst on rendered pairs, the picture of its card.

    python -m benchmarks.limits [NAME ...]     # from the root of the repository, with timfuse installed

Of 48 rendered pairs of the task, none of which a network was trained on, the one is shown on which the loss of the task
is highest compared with the best fusion without a network: both sources, that fusion and the network, with the regions
enlarged where they differ most. It is written beside the network's card. Without names: all networks that come with
timfuse.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import timfuse
from timfuse.data import chroma_source, coloured_pixels, luma, match_pairs, unit_range, write_pixels
from timfuse.data.synthetic.tasks import make_pair
from timfuse.deploy import Fuser, shipped_names
from timfuse.deploy.comparison_sheet import comparison_sheet
from timfuse.objectives import training_loss
from timfuse.objectives.trivial_fusion import TRIVIAL
from timfuse.operators.network_folders import find_network
from timfuse.runtime.progress import Progress

PAIRS, SIZE, SEED = 48, 224, 77
WIDTH = 900  # pixels of the picture


@torch.inference_mode()
def worst(fuser: Fuser, progress: Progress) -> tuple[float, int, str]:
    """Return by how much the network is behind on its worst pair, this pair, and the best method without a network."""
    loss, found = training_loss(fuser.task), []
    for index in range(PAIRS):
        pair = make_pair(fuser.task, SEED, index, height=SIZE, width=SIZE)
        first, second = (torch.from_numpy(unit_range(luma(pixels)))[None, None] for pixels in pair)
        trivial = {name: float(loss(fuse(first, second), first, second)) for name, fuse in TRIVIAL.items()}
        best = min(trivial, key=lambda name: trivial[name])
        found.append((float(loss(fuser(first, second), first, second)) - trivial[best], index, best))
        progress.advance(fuser.name)
    return max(found)


def draw(fuser: Fuser, index: int, best: str, output: Path) -> None:
    """Draw sources, the best method without a network, and the network."""
    first, second = make_pair(fuser.task, SEED, index, height=SIZE, width=SIZE)
    grey = [torch.from_numpy(unit_range(luma(pixels)))[None, None] for pixels in (first, second)]
    chroma = chroma_source(fuser.colour, first, second)
    trivial = coloured_pixels(TRIVIAL[best](*grey)[0, 0].clamp(0, 1), first, second, chroma, np.uint8)
    words = fuser.network.genotype.source_words
    images = {words[0]: first, words[1]: second, best: trivial, fuser.name: fuser(first, second)}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for name, pixels in images.items():
            (folder / name).mkdir()
            write_pixels(folder / name / "rendered.png", pixels)
        pairs = match_pairs(folder / words[0], folder / words[1])
        methods = {name: [folder / name / "rendered.png"] for name in (best, fuser.name)}
        sheet = comparison_sheet(pairs, methods)
    sheet = sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.Resampling.LANCZOS)
    sheet.quantize(64).save(output, optimize=True)


def main() -> None:
    """Draw for the networks that the command line names."""
    names = sys.argv[1:] or [*shipped_names()]
    with Progress(PAIRS * len(names), "rendered pairs", unit="pairs") as progress:
        for name in names:
            fuser = timfuse.load(name, "cpu")
            behind, index, best = worst(fuser, progress)
            draw(fuser, index, best, find_network(name) / "limits.png")
            print(f"{name}: pair {index}, loss {behind:+.3f} above that of {best}")


if __name__ == "__main__":
    main()
