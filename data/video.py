"""Videos, cameras and streams, read through PyAV, and their frames paired by time."""

import os
import re
import sys
import threading
import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import UserError
from .images import Pixels

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".mpg",
    ".mpeg",
    ".ts",
    ".mts",
    ".wmv",
    ".flv",
    ".nut",
)
_URL = re.compile(r"[a-z][a-z0-9+]+://")
_USUAL_RATE = Fraction(25)  # of a video that does not tell its rate
_LOOK = "500000"  # microseconds of a live video that PyAV looks at before it starts
_PATIENCE = 10.0  # seconds until a camera or stream that sends nothing is given up


class TimedFrame(NamedTuple):
    """A frame of a video.

    Attributes:
        time: In seconds from the first frame of the video on; 0 if it is live.
        picture: The frame as PyAV decodes it.
    """

    time: Fraction
    picture: "VideoFrame"


class FramePair(NamedTuple):
    """Frames of two videos that show the same moment.

    Attributes:
        time: In seconds from the first pair on.
        first: Pixels (H, W, 3) of the first video, uint8, upright; a grey video has three equal channels.
        second: Pixels of the second video, in the same form.
    """

    time: Fraction
    first: Pixels
    second: Pixels


def is_video(name: str) -> bool:
    """Tell whether a name stands for a video file, a camera or a stream, and not for images.

    Example:
        >>> [is_video(name) for name in ("ir.mp4", "0", "/dev/video1", "rtsp://host/ir", "ir", "ir/*.png")]
        [True, True, True, True, False, False]
    """
    if os.path.isdir(name):  # which says no to a name that is too long
        return False
    return Path(name).suffix.lower() in VIDEO_SUFFIXES or _is_camera(name) or _URL.match(name) is not None


def import_av() -> ModuleType:
    """Import PyAV.

    Raises:
        UserError: If it is missing.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError(f"videos need the package {error.name}; pip install 'timfuse[video]'") from None
    return av


class Video:
    """A video file, or a camera or stream, which is live.

    Args:
        name: Path of a file, number or device of a camera, or URL.

    Attributes:
        live: Whether frames come as they are taken, and once only.
        size: Width and height of upright frames in pixels.
        rate: Mean number of frames per second.
        duration: In seconds; None if it is not known.
        colours: Codes of the matrix, primaries and transfer of the colours, as in the standards of video.
        damaged: Number of frames that could not be decoded when the video was read last, or not without errors.
        end: Time in seconds at which the last frame ended when it was read last; None if that was not to the end.

    Raises:
        UserError: If it cannot be opened, or holds no video that can be read.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.live = False
        container = self._open()
        try:
            self.live = _is_camera(name) or (_URL.match(name) is not None and container.duration is None)
            stream = container.streams.video[0]
            self.rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
            self.duration = _seconds(stream.duration, stream.time_base) or _seconds(
                container.duration, Fraction(1, 10**6)
            )
            self._is_avi = container.format.name == "avi"
            self.has_sound = bool(container.streams.audio)
            self._start = Fraction(0)
            self.damaged = 0
            self.end: Fraction | None = None
            self._decoded = self._decode(container)
            frame = next(self._decoded, None)
            if frame is None:
                raise UserError(f"{name} holds no frame that can be read")
            self._start = frame.time
            height, width = frame_pixels(frame).shape[:2]
            self.size = width, height
            colours = frame.picture.colorspace, frame.picture.color_primaries, frame.picture.color_trc
            self.colours: tuple[int, int, int] = colours
            self._decoded = chain([frame._replace(time=Fraction(0))], self._decoded)
        finally:
            if not self.live:
                container.close()

    def frames(self, start: Fraction = Fraction(0)) -> Iterator[TimedFrame]:
        """Read the frames from a time on, in the order of their times; damaged ones are left out.

        Args:
            start: Time of the earliest frame in seconds; live videos begin with the next frame in any case.

        Raises:
            UserError: If reading fails, or a frame has no time.
        """
        if self.live:
            yield from self._decoded
            return
        for seek in (False,) if start == 0 or self._is_avi else (True, False):
            with self._open() as container:
                if seek and not self._sought(container, start):
                    continue
                frames = self._decode(container)
                earliest = next(frames, None)
                # Where a file has no index, the jump can end behind its aim; then it is read from the beginning.
                if earliest is None or (seek and earliest.time > start):
                    continue
                yield from (frame for frame in chain([earliest], frames) if frame.time >= start)
                return

    def _open(self) -> "InputContainer":
        av = import_av()
        name, form = self.name, None
        if name.isdecimal() and _is_camera(name):
            name, form = (name, "avfoundation") if sys.platform == "darwin" else (f"/dev/video{name}", None)
        waits = _is_camera(self.name) or _URL.match(self.name) is not None
        try:
            if waits:
                container = av.open(name, format=form, timeout=_PATIENCE, options={"analyzeduration": _LOOK})
            else:
                container = av.open(name)
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"cannot open {name}: {_reason(error)}") from None
        if not container.streams.video:
            container.close()
            raise UserError(f"{self.name} holds no video")
        container.streams.video[0].thread_type = "SLICE" if waits else "AUTO"  # AUTO delays frames
        return container

    def _sought(self, container: "InputContainer", start: Fraction) -> bool:
        """Jump to the last key frame before a time, if the file has an index."""
        stream = container.streams.video[0]
        try:
            container.seek(int((start + self._start) / (stream.time_base or 1)), stream=stream)
        except (import_av().FFmpegError, OSError):
            return False
        return True

    def _time_of(self, picture: "VideoFrame", latest: Fraction | None) -> Fraction:
        # AVI has the order of decoding only, in which the last frames have no time.
        ticks = picture.dts if self._is_avi else picture.pts
        if ticks is not None and picture.time_base is not None:
            return ticks * picture.time_base - self._start
        if latest is None:
            raise UserError(f"the frames of {self.name} have no times; convert it to MP4 or Matroska")
        return latest + 1 / self.rate

    def _decode(self, container: "InputContainer") -> Iterator[TimedFrame]:
        av = import_av()
        stream = container.streams.video[0]
        latest = None
        self.damaged, self.end = 0, None
        try:
            for packet in container.demux(stream):
                try:
                    pictures = packet.decode()
                except av.error.InvalidDataError:  # as from a stream that was joined between two key frames
                    self.damaged += 1
                    continue
                for picture in pictures:
                    self.damaged += picture.is_corrupt
                    at = Fraction(0) if self.live else self._time_of(picture, latest)
                    if self.live or latest is None or at > latest:
                        latest = at
                        yield TimedFrame(at, picture)
            self.end = None if latest is None else latest + 1 / self.rate
        except (av.FFmpegError, OSError) as error:
            if not self.live:
                raise UserError(f"cannot read {self.name}: {_reason(error)}") from None


def frame_pixels(frame: TimedFrame, size: tuple[int, int] | None = None) -> Pixels:
    """Convert a frame to pixels, upright.

    Args:
        size: Width and height to resample it to by bilinear interpolation; default: its own.

    Returns:
        Pixels (H, W, 3), uint8.
    """
    turns = round(frame.picture.rotation / 90) % 4
    width, height = (size[::-1] if turns % 2 else size) if size else (None, None)
    pixels: NDArray[Any] = frame.picture.reformat(width, height, "rgb24").to_ndarray()
    return np.rot90(pixels, turns) if turns else pixels


def pair_by_time(
    first: Video, second: Video, start: Fraction = Fraction(0), size: tuple[int, int] | None = None
) -> Generator[FramePair]:
    """Pair each frame of the slower video with the frame of the other one that is nearest in time.

    Both videos begin at the same moment. The pairs end where one of them ends.

    Args:
        start: Time of the earliest pair in seconds.
        size: Width and height to which second frames are resampled; default: their own.

    Raises:
        UserError: If a video cannot be read.
    """
    leader, other = (second, first) if second.rate < first.rate else (first, second)
    followers = other.frames(max(start - 1, Fraction(0)))  # the nearest one to the first may come before it
    nearest, following = next(followers, None), next(followers, None)
    for frame in leader.frames(start):
        while nearest and following and abs(following.time - frame.time) <= abs(nearest.time - frame.time):
            nearest, following = following, next(followers, None)
        if nearest is None or (following is None and frame.time > nearest.time + 1 / (2 * other.rate)):
            return
        frames = (frame, nearest) if leader is first else (nearest, frame)
        yield FramePair(frame.time, frame_pixels(frames[0]), frame_pixels(frames[1], size))


def pair_latest(first: Video, second: Video, size: tuple[int, int] | None = None) -> Generator[FramePair]:
    """Pair the latest frames of two live videos as soon as both have a new one, until one of them ends.

    Frames that nobody waits for are left out. The time of a pair is that of its arrival.

    Args:
        size: Width and height to which second frames are resampled; default: their own.
    """
    changed = threading.Condition()
    latest: list[TimedFrame | None] = [None, None]
    ended: list[Exception | None] = []

    def read(index: int, video: Video) -> None:
        reason = None
        try:
            for frame in video.frames():
                with changed:
                    latest[index] = frame
                    changed.notify()
                    if ended:
                        return
        except UserError as error:
            reason = error
        finally:
            with changed:
                ended.append(reason)
                changed.notify()

    readers = [threading.Thread(target=read, args=each) for each in enumerate((first, second))]
    for reader in readers:
        reader.start()
    begin = None
    try:
        while True:
            with changed:
                changed.wait_for(lambda: None not in latest or ended)
                pair = tuple(latest)
                latest[:] = None, None
            if pair[0] is None or pair[1] is None:
                if ended[0] is not None:
                    raise ended[0]
                return
            now = time.monotonic()
            begin = begin or now
            yield FramePair(Fraction(now - begin), frame_pixels(pair[0]), frame_pixels(pair[1], size))
    finally:
        with changed:
            ended.append(None)
        for reader in readers:
            reader.join()


def sample_pairs(first: Video, second: Video, count: int) -> list[FramePair]:
    """Take up to `count` pairs that are spread over two video files, or the next ones of live videos."""
    if first.live:
        return list(islice(pair_latest(first, second), count))
    if first.duration is None or second.duration is None:
        return list(islice(pair_by_time(first, second), count))
    common = min(first.duration, second.duration)
    starts = (common * place / count for place in range(count))
    found = (next(pair_by_time(first, second, start), None) for start in starts)
    return list({pair.time: pair for pair in found if pair is not None}.values())


def _is_camera(name: str) -> bool:
    return (name.isdecimal() and not Path(name).exists()) or name.startswith("/dev/video")


def _seconds(ticks: int | None, unit: Fraction | None) -> Fraction | None:
    return None if ticks is None or unit is None else ticks * unit


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
