"""Where pairs come from: image files, folders of pairs, synthetic scenes, splits and the training stream."""

from .checking import CheckedPairs, check_pairs
from .colour import chroma_source, colour_like, is_colour, luma_of, to_pixels
from .images import SUFFIXES, Pixels, luma, read_luma, read_pixels, unit_range, write_pixels
from .layouts import LAYOUTS
from .pairs import Pair, find_pairs, match_fused, match_pairs, read_names
from .sources import open_source
from .splits import Splits, hold_out, make_splits
from .stream import CropStream, PairBatch, PairSource, Window, stream_batches
from .synthetic import Scene, SyntheticScenes, make_scene, write_scenes

__all__ = [
    "LAYOUTS",
    "SUFFIXES",
    "CheckedPairs",
    "CropStream",
    "Pair",
    "PairBatch",
    "PairSource",
    "Pixels",
    "Scene",
    "Splits",
    "SyntheticScenes",
    "Window",
    "check_pairs",
    "chroma_source",
    "colour_like",
    "find_pairs",
    "hold_out",
    "is_colour",
    "luma",
    "luma_of",
    "make_scene",
    "make_splits",
    "match_fused",
    "match_pairs",
    "open_source",
    "read_luma",
    "read_names",
    "read_pixels",
    "stream_batches",
    "to_pixels",
    "unit_range",
    "write_pixels",
    "write_scenes",
]
