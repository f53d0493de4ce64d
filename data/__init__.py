"""Where pairs come from: image files, folders of pairs, synthetic scenes, splits and the training stream."""

from .images import Pixels, luma, read_luma, read_pixels, unit_range
from .pairs import INFRARED_VISIBLE, CheckedPairs, Pair, check_pairs, find_pairs, read_names
from .splits import Splits, make_splits
from .stream import CropStream, PairBatch, PairSource, Window, stream_batches
from .synthetic import Scene, SyntheticScenes, make_scene

__all__ = [
    "INFRARED_VISIBLE",
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
    "find_pairs",
    "luma",
    "make_scene",
    "make_splits",
    "read_luma",
    "read_names",
    "read_pixels",
    "stream_batches",
    "unit_range",
]
