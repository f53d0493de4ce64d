"""Fuses two videos or cameras; while one frame is fused, the next one is read and the one before is written.

Fused frames go to closed parts of a few seconds, which are joined at the end without another loss of quality. So a stop
costs little of what was fused, and the output appears when it is whole.
"""

import io
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from ..data import Alignment, find_alignment, is_colour
from ..data.images import Pixels
from ..data.misalignment import LOOKED_AT, misalignment
from ..data.video import FramePair, Video, import_av, pair_by_time, pair_latest, sample_pairs
from ..genotypes.choices import check_choice
from ..runtime.errors import UserError, printable
from ..runtime.files import cannot_write, make_folder, remove_leftovers, write_atomically
from ..runtime.interruption import deferred_interrupt
from ..runtime.progress import Progress
from ..runtime.yaml_text import dump_yaml, read_mapping
from .fuser import Fuser

_FORMATS = {".mp4": "mp4", ".mov": "mov"}  # of fused videos, by their suffix
_ENCODER = "libx264"
# Slower presets save a tenth of the size, and take longer than the fusion. Without B-frames parts join at any frame.
_OPTIONS = {"crf": "18", "preset": "veryfast", "bf": "0"}
_PART_FRAMES = 250  # the encoder's usual distance of key frames
_PART_FORMAT = "nut"  # which keeps times as they are
_ORIGIN_FILE = "origin.yaml"  # what the parts are fused from
_TICK = Fraction(1, 90_000)  # seconds; frames of the usual rates last whole ticks
_ALIGNED_BY = 8  # pairs
# Where the frames of a whole file end at the earliest, before its duration; headers are not exact.
_SHORT_SECONDS, _SHORT_PART, _SHORT_FRAMES = Fraction(1), Fraction(2, 100), 2
_RGB, _UNTAGGED = 0, 2  # codes for the matrix of colours: there is none, and it is not told

A = TypeVar("A")


class FusedVideo(NamedTuple):
    """The result of fusing videos.

    Attributes:
        fused: Number of frames that this process has fused.
        before: Number of frames that an earlier process has fused.
        rate: Frames per second over the last hundred, with reading and writing.
    """

    fused: int
    before: int
    rate: float


def find_video_alignment(first: Video, second: Video) -> Alignment:
    """Estimate the transform between two cameras from up to eight pairs of frames.

    Raises:
        UserError: If a video cannot be read, or `find_alignment` refuses the pairs.
    """
    return find_alignment([(pair.first, pair.second) for pair in sample_pairs(first, second, _ALIGNED_BY)])


def fuse_video(
    fuser: Fuser,
    first: Video,
    second: Video,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    resize: str | None = None,
    alignment: Alignment | None = None,
) -> FusedVideo | None:
    """Fuse two video files, or two live videos until one of them ends or the user presses Ctrl-C.

    The fused video has the frames of the slower file, each fused with the frame of the other one that is nearest in
    time; see `pair_by_time` and `pair_latest`. It has the colours that fused images have, no sound, and an even width
    and height. A warning is printed if frames look misaligned.

    Args:
        output: An .mp4 or .mov file. Until it is whole, a folder with the suffix .parts holds what was fused.
        resume: Whether to go on with an earlier fusion of the same files, by the same network and in the same way.
        overwrite: Whether to replace an earlier fusion.
        resize: With "second", second frames are resampled to the size of the first; default: both sizes must agree.
        alignment: Transform by which frames are warped to their common part, instead of `resize`; default: they are
            aligned.

    Returns:
        The result; None if `resume` finds the output whole.

    Raises:
        UserError: If a video cannot be read, the sizes differ, the output cannot be written or is there already, its
            folder holds other files or the parts of another fusion, or the user presses Ctrl-C while files are fused.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; choose one")
    if resize is not None:
        check_choice("--resize", resize, ("second",))
    _check_sources(first, second, output, resume)
    width, height = first.size
    if alignment is not None:
        alignment.check_sizes(first.size[::-1], second.size[::-1])
        left, top, right, bottom = alignment.common
        width, height = right - left, bottom - top
    elif first.size != second.size and resize is None:
        sizes = ", ".join(f"{video.name} is {video.size[0]}x{video.size[1]}" for video in (first, second))
        raise UserError(f"two sizes: {sizes}; if both show the same section, resample the second with --resize second")
    if min(width, height) < 2:
        raise UserError(f"frames of {width}x{height} are too small for a video, which has two pixels a side or more")
    recording = _Recording(output, (width, height), min(first.rate, second.rate), _colours(fuser, first, second))
    if not recording.open(_origin(fuser, first, second, resize, alignment), resume=resume, overwrite=overwrite):
        return None
    before, size = recording.count, first.size if resize else None
    with closing(recording):
        pairs = pair_latest(first, second, size) if first.live else pair_by_time(first, second, recording.end, size)
        notes = list(_notes(fuser, first, second, alignment))
        with (
            Progress(_count(first, second), "fusing", start=before, unit="frames") as progress,
            deferred_interrupt() as interrupted,
            ThreadPoolExecutor(1) as writer,
            closing(pairs),
            closing(_ahead(_prepared(pairs, alignment))) as prepared,
        ):
            for note in notes:
                progress.print(note)
            writing: Future[None] | None = None
            try:
                for time, *images in prepared:
                    fused = fuser(*images)
                    if writing is not None:
                        writing.result()
                    writing = writer.submit(recording.add, time, fused)
                    progress.advance()
                    if interrupted():
                        break
            finally:
                if writing is not None:
                    writing.result()
                recording.close_part()
            for note in _damages(first, second):
                progress.print(note)
            if interrupted() and not first.live:
                raise UserError(f"stopped after {recording.count} frames; go on with --resume")
        if recording.count == 0:
            raise UserError(f"{first.name} and {second.name} have no two frames at the same time; nothing was fused")
        recording.join()
    return FusedVideo(recording.count - before, before, progress.rate)


class _Recording:
    """A fused video that grows by closed parts.

    Attributes:
        count: Number of frames in closed parts.
        end: Time in seconds before which there are all frames.
    """

    def __init__(self, output: Path, size: tuple[int, int], rate: Fraction, colours: tuple[int, int, int]) -> None:
        self.count, self.end = 0, Fraction(0)
        self._output, self._folder = output, output.with_name(f"{output.name}.parts")
        self._size = size[0] // 2 * 2, size[1] // 2 * 2  # the colours have one value for 2x2 pixels
        self._rate, self._colours = rate, colours
        self._buffer: io.BytesIO | None = None  # of the part that is open
        self._container: Any = None
        self._stream: Any = None
        self._name, self._frames = "", 0

    def open(self, origin: dict[str, str], *, resume: bool, overwrite: bool) -> bool:
        """Prepare the folder of the parts; return False if the video is whole and shall stay."""
        if _ENCODER not in import_av().codecs_available:
            there = sorted(name for name in import_av().codecs_available if "264" in name) or ["no other for H.264"]
            raise UserError(f"this build of PyAV has no encoder {_ENCODER}, but {', '.join(there)}; pip install av")
        if not (resume or overwrite):
            for path in (self._output, self._folder):
                if path.exists():
                    raise UserError(f"{path} is there already; go on with --resume, replace it with --overwrite")
        if resume and self._output.exists() and not self._folder.exists():
            return False
        make_folder(self._folder)
        for folder in (self._folder, self._output.parent):
            remove_leftovers(folder)
        own = {self._folder / _ORIGIN_FILE, *self._parts()}
        if others := sorted(path.name for path in self._folder.iterdir() if path not in own):
            raise UserError(f"{self._folder} holds {others[0]}, which is no part of a video; choose another output")
        if overwrite:
            self._remove_parts()
        if self._parts():
            self._check_origin(origin)
        else:
            write_atomically(self._folder / _ORIGIN_FILE, dump_yaml(origin))
        for path in self._parts():
            with _opened(path) as container:
                stream = container.streams.video[0]
                if (stream.width, stream.height) != self._size:
                    raise UserError(f"{path} has another size than the frames now; start again with --overwrite")
                times = [packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None]
            self.count += len(times)
            self.end = max(times) + _TICK
        return True

    def add(self, time: Fraction, pixels: Pixels) -> None:
        """Encode a frame; every so many frames, write a part to disk."""
        av = import_av()
        if self._buffer is None:
            self._buffer = io.BytesIO()
            self._container = av.open(self._buffer, "w", format=_PART_FORMAT)
            self._stream = self._container.add_stream(_ENCODER, rate=self._rate, options=_OPTIONS)
            self._stream.width, self._stream.height, self._stream.pix_fmt = *self._size, "yuv420p"
            context = self._stream.codec_context
            context.time_base = _TICK
            context.colorspace, context.color_primaries, context.color_trc = self._colours
        width, height = self._size
        cropped = np.ascontiguousarray(pixels[:height, :width])
        frame = av.VideoFrame.from_ndarray(cropped, format="gray" if pixels.ndim == 2 else "rgb24")
        if pixels.ndim == 3:  # grey would be tinted by the rounding of some matrices
            frame.colorspace = self._colours[0]
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = round(max(time, self.end) / _TICK), _TICK
        if not self._frames:
            self._name = f"{frame.pts:015}.{_PART_FORMAT}"
        self._container.mux(self._stream.encode(frame))
        self.end = (frame.pts + 1) * _TICK
        self._frames += 1
        if self._frames == _PART_FRAMES:
            self.close_part()

    def close_part(self) -> None:
        """Write the open part to disk."""
        if self._buffer is None:
            return
        self._container.mux(self._stream.encode())
        self._container.close()
        write_atomically(self._folder / self._name, self._buffer.getvalue())
        self.count += self._frames
        self._buffer, self._frames = None, 0

    def join(self) -> None:
        """Write the output from the parts, and remove these."""
        write_atomically(self._output, self._copy_parts)
        self._remove_parts()

    def close(self) -> None:
        """Remove the folder of the parts if it has none."""
        if not self._parts():
            with suppress(OSError):  # the folder stays if somebody has put a file there
                (self._folder / _ORIGIN_FILE).unlink(missing_ok=True)
                self._folder.rmdir()

    def _copy_parts(self, file: BinaryIO) -> None:
        with import_av().open(file, "w", format=_FORMATS[self._output.suffix.lower()]) as joined:
            stream = None
            for path in self._parts():
                with _opened(path) as container:
                    part = container.streams.video[0]
                    stream = stream or joined.add_stream_from_template(part)
                    for packet in container.demux(part):
                        if packet.dts is not None:  # which the last, empty one lacks
                            packet.stream = stream
                            joined.mux(packet)

    def _parts(self) -> list[Path]:
        return sorted(self._folder.glob(f"{'[0-9]' * 15}.{_PART_FORMAT}"))

    def _remove_parts(self) -> None:
        for path in reversed(self._parts()):  # after a kill the earlier ones are left, behind which --resume goes on
            try:
                path.unlink()
            except OSError as error:
                raise cannot_write(path, error) from error

    def _check_origin(self, origin: dict[str, str]) -> None:
        """Refuse to go on with parts that were fused from other videos, or in another way."""
        path = self._folder / _ORIGIN_FILE
        try:
            earlier = read_mapping(path)
        except UserError as error:
            raise UserError(f"{error}; start again with --overwrite") from None
        for name, value in origin.items():
            if earlier.get(name) != value:
                raise UserError(
                    f"{self._folder} was begun with {name}: {earlier.get(name)}, not {value}; "
                    "go on as it was begun, or start again with --overwrite"
                )


def _origin(
    fuser: Fuser, first: Video, second: Video, resize: str | None, alignment: Alignment | None
) -> dict[str, str]:
    """Describe what a video is fused from, and how."""
    files = map(_file, (first, second))
    sources = [
        printable(f"{file.name}, {file.stat().st_size} bytes" if file.is_file() else file.name) for file in files
    ]
    rows = alignment.matrix if alignment else ()
    return {
        "first": sources[0],
        "second": sources[1],
        "network": fuser.name,
        "colour": fuser.colour,
        "resize": resize or "none",
        "alignment": " ".join(f"{value:.6g}" for row in rows for value in row) or "none",
    }


def _check_sources(first: Video, second: Video, output: Path, resume: bool) -> None:
    if output.suffix.lower() not in _FORMATS or output.is_dir():
        raise UserError(f"{output} is not named like a video; choose a file that ends in {' or '.join(_FORMATS)}")
    for video in (first, second):
        source = _file(video)
        if output.exists() and source.exists() and output.samefile(source):
            raise UserError(f"{output} is a source, and would be replaced; choose another output")
    if first.live != second.live:
        live, file = (first, second) if first.live else (second, first)
        raise UserError(f"{live.name} is live and {file.name} is not; give two files, or two cameras or streams")
    if first.live and resume:
        raise UserError("what a camera has shown is gone, so that --resume cannot go on; start again with --overwrite")


def _file(video: Video) -> Path:
    """Return the path of a file, which may be given by its URL; of other videos, one that does not exist."""
    return Path(video.name.removeprefix("file:"))


def _colours(fuser: Fuser, first: Video, second: Video) -> tuple[int, int, int]:
    """Choose the matrix, primaries and transfer of the colours: those of the source whose colour is kept."""
    matrix, primaries, transfer = (second if fuser.colour == "second" else first).colours
    return _UNTAGGED if matrix == _RGB else matrix, primaries, transfer


def _count(first: Video, second: Video) -> int | None:
    """Estimate the number of fused frames."""
    if first.live or first.duration is None or second.duration is None:
        return None
    return round(min(first.duration, second.duration) * min(first.rate, second.rate))


def _notes(fuser: Fuser, first: Video, second: Video, alignment: Alignment | None) -> Iterator[str]:
    """Tell of what is left out, and of sources that look swapped or misaligned."""
    if first.has_sound or second.has_sound:
        yield "note: the sound is left out"
    if first.duration and second.duration and not first.live:
        if abs(first.duration - second.duration) > 1 / min(first.rate, second.rate):
            lengths = (f"{video.name} takes {float(video.duration or 0):.2f} s" for video in (first, second))
            yield f"note: {', '.join(lengths)}; their common part is fused"
        if first.rate != second.rate:
            rates = (f"{video.name} has {float(video.rate):.4g}" for video in (first, second))
            yield f"note: {', '.join(rates)} frames per second; the fused video has those of the slower one"
    looked_at = sample_pairs(first, second, LOOKED_AT)
    if fuser.colour == "second" and looked_at and is_colour(looked_at[0].first) and not is_colour(looked_at[0].second):
        yield f"note: {first.name} has colour and {second.name} is grey: if they are swapped, exchange them"
    if alignment is None and (warning := misalignment([(pair.first, pair.second) for pair in looked_at])):
        yield f"warning: {warning.partition(';')[0]}; align the videos with --align auto"


def _damages(first: Video, second: Video) -> Iterator[str]:
    """Tell of what was missing in files that were read."""
    for video in (first, second):
        if video.live:
            continue
        if video.damaged:
            yield f"note: {video.name} is damaged; {video.damaged} of its frames could not be decoded, or not wholly"
        if video.duration is None or video.end is None:
            continue
        longest = max(_SHORT_PART * video.duration, _SHORT_FRAMES / video.rate)
        if video.duration - video.end > min(_SHORT_SECONDS, longest):
            length, end = f"{float(video.duration):.2f} s", f"{float(video.end):.2f} s"
            yield f"note: {video.name} takes {length} by its header, but its frames end at {end}; it may be cut off"


def _prepared(pairs: Iterator[FramePair], alignment: Alignment | None) -> Iterator[tuple[Fraction, Pixels, Pixels]]:
    """Warp the pairs, and reduce frames without colour to one channel."""
    for time, *frames in pairs:
        images = (image if is_colour(image) else image[..., 0] for image in frames)
        first, second = images if alignment is None else alignment.apply(*images)
        yield time, first, second


def _ahead(items: Iterator[A]) -> Generator[A]:
    """Take items from an iterator in a thread that is one item ahead."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = thread.submit(next, items, None)
            yield item


def _opened(part: Path) -> Any:
    """Open a part."""
    av = import_av()
    try:
        return av.open(str(part))
    except (av.FFmpegError, OSError):
        raise UserError(f"{part} is damaged; start again with --overwrite") from None
