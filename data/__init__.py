"""Where pairs come from: image files, folders of pairs, synthetic pairs, splits and the training stream."""

from .checking import CheckedPairs, check_pairs
from .colour import chroma_source, colour_like, is_colour, luma_of, to_pixels
from .images import SUFFIXES, Pixels, luma, read_luma, read_pixels, unit_range, write_pixels
from .layouts import LAYOUTS
from .pairs import Pair, find_pairs, match_fused, match_pairs, read_names
from .sources import open_source
from .splits import Splits, hold_out, make_splits, scene_blocks, spread
from .stream import CropStream, JoinedPairs, PairBatch, PairSource, Window, cut_crops, stream_batches
from .synthetic import (
    Scene,
    SyntheticPairs,
    SyntheticScenes,
    make_exposures,
    make_focus,
    make_phantom,
    make_scene,
    write_scenes,
)

__all__ = [
    "LAYOUTS",
    "SUFFIXES",
    "CheckedPairs",
    "CropStream",
    "JoinedPairs",
    "Pair",
    "PairBatch",
    "PairSource",
    "Pixels",
    "Scene",
    "Splits",
    "SyntheticPairs",
    "SyntheticScenes",
    "Window",
    "check_pairs",
    "chroma_source",
    "colour_like",
    "cut_crops",
    "find_pairs",
    "hold_out",
    "is_colour",
    "luma",
    "luma_of",
    "make_exposures",
    "make_focus",
    "make_phantom",
    "make_scene",
    "make_splits",
    "match_fused",
    "match_pairs",
    "open_source",
    "read_luma",
    "read_names",
    "read_pixels",
    "scene_blocks",
    "spread",
    "stream_batches",
    "to_pixels",
    "unit_range",
    "write_pixels",
    "write_scenes",
]
