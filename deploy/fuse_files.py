"""Fuses image files; while one pair or stack is fused, the next is read and the one before is written."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from ..data import Alignment, Pair, Stack, is_colour, to_pixels, write_pixels
from ..data.images import WRITTEN, Pixels
from ..data.misalignment import LOOKED_AT, misalignment
from ..genotypes.choices import check_choice
from ..runtime.errors import UserError
from ..runtime.files import make_folder, remove_leftovers
from ..runtime.interruption import deferred_interrupt
from ..runtime.progress import Progress
from .fuser import Fuser
from .labeller import Found, Labeller

_SUFFIXES = (".png", ".tif")  # of fused images in a folder; .tif for 16-bit colour, which pillow cannot write as PNG

_ENOUGH = 20  # images for percentiles of their times

A = TypeVar("A")
B = TypeVar("B")


class FusedFiles(NamedTuple):
    """The result of fusing files.

    Attributes:
        rate: Images per second over the last hundred, with reading and writing.
        milliseconds: Median and 99th percentile of the time of one image in the network; None for fewer than 20.
        failed: For each pair that could not be read or fused, its name and the reason in one line.
        hints: Sentences about sources whose colours are unusual for the task of the network.
    """

    fused: int
    skipped: int
    rate: float
    milliseconds: tuple[float, float] | None = None
    failed: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def fuse_files(
    fuser: Fuser,
    pairs: Sequence[Pair | Stack],
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    resize: str | None = None,
    alignment: Alignment | None = None,
    labels: Labeller | None = None,
) -> FusedFiles:
    """Fuse image files, pair by pair; one that cannot be read or fused does not stop the others.

    Without an alignment, a warning is printed if the first pairs look misaligned; see `data.misalignment`.

    Args:
        pairs: The image files, as `data.find_pairs`, `data.match_pairs`, `data.find_stacks` or `data.match_stacks`
            returns them.
        output: A folder, for NAME.png of every pair (NAME.tif for colour of 16 bits); or, for one pair, an image file.
        resume: Whether to skip pairs that have a fused image already, and labels if `labels` is given. A pair with only
            one of them is fused again.
        overwrite: Whether to replace fused images and labels.
        resize: With "second", second images are resampled to the size of the first; default: all sizes must agree.
            Not for stacks, like `alignment`.
        alignment: Transform by which pairs are warped to their common part, instead of `resize`; default: they are
            aligned.
        labels: Task network that also labels each fused image; default: none.

    Raises:
        UserError: If the only pair cannot be read or fused, a file cannot be written, there are fused images or labels
            already, or the user presses Ctrl-C. Files that were written before it are complete.

    Example:
        >>> import tempfile
        >>> from timfuse.data import match_pairs, write_scenes
        >>> from timfuse.deploy import load
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pairs = match_pairs(*write_scenes(Path(folder), 2, height=48, width=64, seed=0))
        ...     fuse_files(load("ivif-fast", "cpu"), pairs, Path(folder, "fused")).fused
        2
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; choose one")
    if resize is not None:
        check_choice("--resize", resize, ("second",))
    _check_output(output, pairs, labels)
    written = [
        (output, "fused images", {pair for pair in pairs if any(path.exists() for path in _targets(output, pair))})
    ]
    if labels is not None:
        written.append((labels.folder, "labels", {pair for pair in pairs if labels.label(pair.name).exists()}))
    for folder, kind, present in written:
        if present and not (resume or overwrite):
            raise UserError(
                f"{folder} holds {len(present)} of {len(pairs)} {kind} already; go on with --resume, replace them with"
                " --overwrite"
            )
    done = set() if overwrite else set.intersection(*(present for *_, present in written))
    left = [pair for pair in pairs if pair not in done]
    make_folder(output.parent if _is_file(output) else output)
    files = [path for pair in pairs for path in (*_targets(output, pair), *_label_files(labels, pair))]
    for folder in {path.parent for path in files} | ({labels.folder} if labels else set()):
        remove_leftovers(folder)
    if labels is not None:
        labels.write_classes(overwrite=overwrite)
    with (
        Progress(len(pairs), "fusing", start=len(done), unit="images") as progress,
        deferred_interrupt() as interrupted,
        ThreadPoolExecutor(1) as writer,
    ):
        writing: Future[None] | None = None
        failed: list[str] = []
        coloured: Counter[tuple[bool, bool]] = Counter()
        judged: list[tuple[Pixels, Pixels]] = []
        seconds: list[float] = []
        for pair, images in zip(left, _ahead(lambda pair: _read(pair, resize, alignment), left), strict=True):
            try:
                if isinstance(images, UserError):
                    raise images
                start = time.perf_counter()
                fused = fuser(*images)
                seconds.append(time.perf_counter() - start)
                fused = plain(fused)
                if len(images) == 2:
                    coloured[images[0].ndim == 3, images[1].ndim == 3] += 1
                found = None if labels is None else labels.find(fused)
            except UserError as error:
                failed.append(f"the {'pair' if len(pair.files) == 2 else 'stack'} {pair.name}: {error}")
                if len(pairs) == 1:
                    raise UserError(failed[0]) from None
                progress.advance(f"{pair.name} failed")
                continue
            if writing is not None:
                writing.result()
            writing = writer.submit(_write, output, pair, fused, labels, found)
            progress.advance(pair.name)
            if alignment is None and len(judged) < LOOKED_AT:
                judged.append((images[0], images[1]))
                if len(judged) == LOOKED_AT and (warning := misalignment(judged)):
                    progress.print(f"warning: {warning}")
            if interrupted():
                break
        if writing is not None:
            writing.result()
        if 0 < len(judged) < LOOKED_AT and (warning := misalignment(judged)):
            progress.print(f"warning: {warning}")
        if progress.completed < len(pairs):
            raise UserError(f"stopped after {progress.completed} of {len(pairs)} pairs; go on with --resume")
        hints = tuple(_hints(fuser, coloured))
        return FusedFiles(
            len(left) - len(failed), len(done), progress.rate, _percentiles(seconds), tuple(failed), hints
        )


def _percentiles(seconds: Sequence[float]) -> tuple[float, float] | None:
    """Compute the median and the 99th percentile in milliseconds, if there are enough values."""
    if len(seconds) < _ENOUGH:
        return None
    median, high = 1e3 * np.percentile(seconds, (50, 99))
    return float(median), float(high)


def _is_file(output: Path) -> bool:
    return output.suffix.lower() in WRITTEN and not output.is_dir()


def _targets(output: Path, pair: Pair | Stack) -> list[Path]:
    """List the files that a fused image can have; the last one is for colour of 16 bits."""
    return [output] if _is_file(output) else [output / f"{pair.name}{suffix}" for suffix in _SUFFIXES]


def _label_files(labels: Labeller | None, pair: Pair | Stack) -> list[Path]:
    return [] if labels is None else [labels.label(pair.name), labels.picture(pair.name)]


def _check_output(output: Path, pairs: Sequence[Pair | Stack], labels: Labeller | None) -> None:
    """Refuse to write two images to the same file, to replace a source, or to put fused images among the sources."""
    if _is_file(output) and len(pairs) > 1:
        raise UserError(f"{output} is one file for {len(pairs)} pairs; name a folder")
    folders = dict.fromkeys(path.parent for pair in pairs for path in pair.files)
    if output.is_dir() and any(folder.samefile(output) for folder in folders):
        raise UserError(f"{output} holds the sources, where fused images would pass for them; choose another folder")
    sources = {path.resolve() for pair in pairs for path in pair.files}
    for pair in pairs:
        images = _targets(output, pair)
        of_labels = _label_files(labels, pair)
        for target in [*images, *of_labels]:
            if target.resolve() in sources:
                raise UserError(f"{target} is a source, and would be replaced; choose another output")
        for target in of_labels:
            if target.resolve() in [image.resolve() for image in images]:
                raise UserError(f"{target} would be the fused image and a file of its labels; choose another output")


def _read(pair: Pair | Stack, resize: str | None, alignment: Alignment | None) -> tuple[Pixels, ...] | UserError:
    """Read a pair or a stack; an error is returned, so that it reaches its turn in the other thread."""
    try:
        first, *others = map(plain, pair.read())
        if alignment is not None:
            return alignment.apply(first, *others)
    except UserError as error:
        return error
    height, width = first.shape[:2]
    if resize is not None:
        others = [image if image.shape[:2] == (height, width) else _resampled(image, height, width) for image in others]
    for file, image in zip(pair.files[1:], others, strict=True):
        if image.shape[:2] != (height, width):
            remedy = "if both show the same section, resample the second with --resize second"
            return UserError(
                f"two sizes: {pair.files[0]} is {width}x{height}, {file} is {image.shape[1]}x{image.shape[0]}; "
                + (remedy if len(pair.files) == 2 else "bring all images to one size")
            )
    return first, *others


def _write(output: Path, pair: Pair | Stack, fused: Pixels, labels: Labeller | None, found: Found | None) -> None:
    deep_colour = fused.dtype == np.uint16 and fused.ndim == 3
    write_pixels(_targets(output, pair)[-1 if deep_colour else 0], fused)
    if labels is not None and found is not None:
        labels.write(pair.name, fused, found)


def _hints(fuser: Fuser, coloured: Mapping[tuple[bool, bool], int]) -> Iterator[str]:
    """Tell of colours that the task does not expect, by how many pairs have a coloured first and second source."""
    for index, colour in enumerate(("first", "second")):
        count = coloured.get((index == 0, index == 1), 0)
        if count and fuser.colour not in ("both", colour):
            words = fuser.network.genotype.source_words
            yield (
                f"{count} {colour} images ({words[index]}) have colour and the other sources ({words[1 - index]}) are "
                f"grey: if they are swapped, exchange --first and --second; --colour {colour} keeps their colour"
            )
    both = coloured.get((True, True), 0)
    if both and fuser.task == "infrared-visible":
        yield (
            f"{both} infrared images have colour, which is not kept; if these pairs are exposures or focal planes, use "
            "a network of that task, as `timfuse adapt --task multi-exposure` makes"
        )


def plain(pixels: Pixels) -> Pixels:
    """Reduce a grey image that was saved in colour to one channel, so that it is saved in grey."""
    return pixels if pixels.ndim == 2 or is_colour(pixels) else pixels[..., 0]


def _resampled(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resample an image by bilinear interpolation without aliasing."""
    planes = torch.from_numpy(pixels.astype(np.float32)).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
    resized = F.interpolate(planes[None], (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    full = int(np.iinfo(pixels.dtype).max)
    return to_pixels(resized.div(full).reshape(height, width, *pixels.shape[2:]), pixels.dtype)


def _ahead(function: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
    """Apply a function to items in a thread that is one item ahead."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = [thread.submit(function, item) for item in items[:1]]
        for item in items[1:]:
            upcoming.append(thread.submit(function, item))
            yield upcoming.pop(0).result()
        for future in upcoming:
            yield future.result()
