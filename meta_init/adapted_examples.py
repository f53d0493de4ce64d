"""The picture of an adaptation: validation pairs as the network fuses them before and after it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data import chroma_source, coloured_pixels, luma_of, write_pixels
from ..data.images import luma, with_8_bits
from ..data.splits import spread
from ..deploy import Fuser
from ..deploy.comparison_rows import Row
from ..deploy.comparison_sheet import sheet_of_rows
from ..deploy.trained_network import TrainedNetwork
from ..deploy.zoom_regions import choose_regions
from ..genotypes import Genotype
from .meta_tasks import Task

_SHOWN = 3  # pairs


def draw_fused(
    task: Task, genotype: Genotype, networks: Mapping[str, nn.Module], folder: Path, device: torch.device
) -> Path:
    """Draw both sources and what each network makes of them, for three validation pairs, into examples.png.

    Args:
        genotype: What the networks have in common, with the task and the colour of the pairs.
        networks: The networks by what is written above their images.

    Raises:
        UserError: If a pair cannot be read or the file cannot be written.
    """
    fusers = [Fuser(TrainedNetwork(genotype, network.eval()), device) for network in networks.values()]
    rows = []
    for index in spread(task.validation, _SHOWN):
        first, second = task.source.read(index)
        lumas, chroma = (luma_of(first), luma_of(second)), chroma_source(genotype.colour_source, first, second)
        fused = [coloured_pixels(fuser(*lumas), first, second, chroma, np.uint8) for fuser in fusers]
        images = tuple(with_8_bits(image) for image in (first, second, *fused))
        grey = [luma(image).astype(np.uint8, copy=False) for image in images]
        rows.append(Row(task.source.names[index], images, tuple(choose_regions(grey[:2], grey[2:]))))
    path = folder / "examples.png"
    write_pixels(path, np.asarray(sheet_of_rows([*genotype.source_words, *networks], rows)))
    return path
