"""Where pairs and their labels come from: files, folders of pairs, synthetic pairs, splits and the training streams."""

from .checking import CheckedPairs, check_pairs
from .colour import chroma_source, colour_like, is_colour, luma_of, to_pixels
from .fingerprint import fingerprint, fingerprint_files
from .images import SUFFIXES, Pixels, luma, read_luma, read_pixels, unit_range, write_pixels
from .labelled import LabelledPairs, LabelledScenes, LabelledSource, Labels, open_labelled, split_labelled
from .labelled_stream import LabelledStream, ZoomedWindow, labelled_batch
from .layouts import LAYOUTS
from .objects import IGNORED, LabelledBatch, Objects
from .pairs import Pair, find_fused, find_pairs, match_pairs, named_folders, read_names
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
    "IGNORED",
    "LAYOUTS",
    "SUFFIXES",
    "CheckedPairs",
    "CropStream",
    "JoinedPairs",
    "LabelledBatch",
    "LabelledPairs",
    "LabelledScenes",
    "LabelledSource",
    "LabelledStream",
    "Labels",
    "Objects",
    "Pair",
    "PairBatch",
    "PairSource",
    "Pixels",
    "Scene",
    "Splits",
    "SyntheticPairs",
    "SyntheticScenes",
    "Window",
    "ZoomedWindow",
    "check_pairs",
    "chroma_source",
    "colour_like",
    "cut_crops",
    "find_fused",
    "find_pairs",
    "fingerprint",
    "fingerprint_files",
    "hold_out",
    "is_colour",
    "labelled_batch",
    "luma",
    "luma_of",
    "make_exposures",
    "make_focus",
    "make_phantom",
    "make_scene",
    "make_splits",
    "match_pairs",
    "named_folders",
    "open_labelled",
    "open_source",
    "read_luma",
    "read_names",
    "read_pixels",
    "scene_blocks",
    "split_labelled",
    "spread",
    "stream_batches",
    "to_pixels",
    "unit_range",
    "write_pixels",
    "write_scenes",
]
