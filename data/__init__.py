"""Where pairs and their labels come from: files, data sets, synthetic pairs, splits and training batches."""

from .alignment import Alignment, load_alignment, save_alignment
from .alignment_search import find_alignment
from .batch_stream import BatchStream
from .colour import chroma_source, colour_like, coloured_pixels, is_colour, luma_of, to_pixels
from .images import luma, read_pixels, unit_range, write_pixels
from .pair_batch import Objects, PairBatch
from .pair_source import PairSource
from .pairs import Pair, find_pairs, match_pairs
from .run_pairs import RunPairs, open_pairs
from .sources import open_source
from .stacks import Stack, find_stacks, match_stacks
from .synthetic import (
    Scene,
    SyntheticPairs,
    make_exposures,
    make_focus,
    make_phantom,
    make_scene,
    write_scenes,
)

__all__ = [
    "Alignment",
    "BatchStream",
    "Objects",
    "Pair",
    "PairBatch",
    "PairSource",
    "RunPairs",
    "Scene",
    "Stack",
    "SyntheticPairs",
    "chroma_source",
    "colour_like",
    "coloured_pixels",
    "find_alignment",
    "find_pairs",
    "find_stacks",
    "is_colour",
    "load_alignment",
    "luma",
    "luma_of",
    "make_exposures",
    "make_focus",
    "make_phantom",
    "make_scene",
    "match_pairs",
    "match_stacks",
    "open_pairs",
    "open_source",
    "read_pixels",
    "save_alignment",
    "to_pixels",
    "unit_range",
    "write_pixels",
    "write_scenes",
]
