"""Aligns image files by the transform of a rig or of each pair, and writes the transforms and a picture, too."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import Alignment, Pair, find_alignment, load_alignment, save_alignment, write_pixels
from ..data.images import Pixels, read_size
from ..data.splits import spread
from ..runtime.errors import UserError
from ..runtime.interruption import deferred_interrupt
from ..runtime.progress import Progress
from .alignment_sheet import alignment_sheet
from .comparison_rows import choose_pairs

TRANSFORM_FILE = "transform.yaml"
PICTURE_FILE = "alignment.png"
TRANSFORMS_FOLDER = "transforms"  # with a file for each pair
_RIG_PAIRS = 8  # from which the transform of a rig is estimated
_SHOWN = 3  # pairs in the picture


class AlignedFiles(NamedTuple):
    """The result of aligning files.

    Attributes:
        aligned: The transform of each pair that was written, by its name.
        failed: For each other pair, its name and the reason in one line.
    """

    aligned: dict[str, Alignment]
    failed: tuple[str, ...]


def find_rig_alignment(pairs: Sequence[Pair], model: str = "homography") -> Alignment:
    """Estimate the transform of a rig of two fixed cameras from up to eight pairs that are spread over a list.

    Args:
        pairs: Files of pairs that the same two cameras took.
        model: The kind of transform, a key of `data.alignment.MODELS`.

    Raises:
        UserError: If none of these pairs can be read, or `find_alignment` refuses them.
    """
    read, failed = [], None
    for index in spread(range(len(pairs)), _RIG_PAIRS):
        try:
            read.append(pairs[index].read())
        except UserError as error:
            failed = error
    if failed and not read:
        raise failed
    return find_alignment(read, model)


def load_rig_alignment(path: Path, pairs: Sequence[Pair]) -> Alignment:
    """Load a transform from a YAML file, and check that pairs have the sizes that it is for.

    Args:
        pairs: Files of pairs; those that cannot be read are left out.

    Raises:
        UserError: If the file cannot be read or holds no transform, or a pair has other sizes.
    """
    alignment = load_alignment(path)
    for pair in pairs:
        try:
            sizes = read_size(pair.first, pair.channels[0]), read_size(pair.second, pair.channels[1])
        except UserError:  # which is reported when the pair is read
            continue
        try:
            alignment.check_sizes(*sizes)
        except UserError as error:
            raise UserError(f"{path}, the pair {pair.name}: {error}") from None
    return alignment


def align_files(
    pairs: Sequence[Pair],
    output: Path,
    folders: tuple[str, str],
    *,
    model: str = "homography",
    each: bool = False,
    overwrite: bool = False,
) -> AlignedFiles:
    """Estimate the transform of a rig, or of each pair, and write the pairs warped by it to their common part.

    Args:
        pairs: The image files, as `data.find_pairs` or `data.match_pairs` returns them.
        output: Gets FIRST/NAME.png and SECOND/NAME.png of each pair (.tif for colour of 16 bits), `transform.yaml` or
            transforms/NAME.yaml, and `alignment.png`, a checkerboard of some pairs before and after.
        folders: Names of the two folders of aligned images.
        model: The kind of transform, a key of `data.alignment.MODELS`.
        each: Whether each pair gets a transform of its own; one that cannot be aligned does not stop the others.
        overwrite: Whether to replace files of an earlier alignment.

    Raises:
        UserError: If no pair can be aligned, the pairs of a rig differ in size, a file cannot be written, or there is
            an alignment already.

    Example:
        >>> import tempfile
        >>> from timfuse.data import match_pairs, write_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pairs = match_pairs(*write_scenes(Path(folder), 2, height=120, width=160, seed=0))
        ...     done = align_files(pairs, Path(folder, "aligned"), ("ir", "vis"), model="translation")
        >>> done.aligned["scene_00001"].confidence > 0.3
        True
    """
    _check_output(output, folders, pairs, overwrite)
    aligned: dict[str, Alignment] = {}
    failed: list[str] = []
    rig = None if each else find_rig_alignment(pairs, model)
    _remove_earlier(output, folders)
    if rig is not None:
        save_alignment(rig, output / TRANSFORM_FILE)
    with Progress(len(pairs), "aligning", unit="pairs") as progress, deferred_interrupt() as interrupted:
        for pair in pairs:
            try:
                images = pair.read()
                alignment = rig or find_alignment([images], model)
                results = alignment.apply(*images)
            except UserError as error:
                failed.append(f"the pair {pair.name}: {error}")
                progress.advance(f"{pair.name} failed")
                continue
            for folder, pixels in zip(folders, results, strict=True):
                write_pixels(output / folder / f"{pair.name}{_suffix(pixels)}", pixels)
            if each:
                save_alignment(alignment, output / TRANSFORMS_FOLDER / f"{pair.name}.yaml")
            aligned[pair.name] = alignment
            progress.advance(pair.name)
            if interrupted():
                raise UserError(
                    f"stopped after {progress.completed} of {len(pairs)} pairs; start again with --overwrite"
                )
    if not aligned:
        raise UserError(failed[0])
    shown = choose_pairs([pair for pair in pairs if pair.name in aligned], limit=_SHOWN)
    sheet = alignment_sheet((pair, aligned[pair.name]) for pair in shown)
    write_pixels(output / PICTURE_FILE, np.asarray(sheet))
    return AlignedFiles(aligned, tuple(failed))


def _check_output(output: Path, folders: tuple[str, str], pairs: Sequence[Pair], overwrite: bool) -> None:
    """Refuse to replace an earlier alignment, or to put aligned images among the sources."""
    sources = dict.fromkeys(path.parent for pair in pairs for path in (pair.first, pair.second))
    for folder in (output, *(output / name for name in folders)):
        if folder.is_dir() and any(source.samefile(folder) for source in sources):
            raise UserError(f"{folder} holds the sources; choose another output")
    transforms = [output / name for name in (TRANSFORM_FILE, TRANSFORMS_FOLDER) if (output / name).exists()]
    images = [output / name for name in folders if (output / name).exists()]
    if images and not transforms:
        raise UserError(f"{images[0]} is not from an earlier alignment; choose another output")
    if transforms and not overwrite:
        raise UserError(f"{transforms[0]} is there already; replace it with --overwrite, or choose another output")


def _remove_earlier(output: Path, folders: tuple[str, str]) -> None:
    """Remove the files of an earlier alignment, which may have had other pairs."""
    files = [output / TRANSFORM_FILE, *(output / TRANSFORMS_FOLDER).glob("*.yaml")]
    files += [file for name in folders for suffix in (".png", ".tif") for file in (output / name).glob(f"*{suffix}")]
    for file in files:
        file.unlink(missing_ok=True)


def _suffix(pixels: Pixels) -> str:
    return ".tif" if pixels.dtype == np.uint16 and pixels.ndim == 3 else ".png"  # which pillow cannot write
