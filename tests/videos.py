"""Small videos in tests: frames that tell their number, in files and in streams."""

import socket
import threading
import time
from fractions import Fraction

import av
import numpy as np


def plain_frames(count, step=4, size=(64, 48), tint=(1, 1, 1)):
    """Frames of one brightness, `step` for the first one, twice that for the second and so on."""
    return [np.full((*size[::-1], 3), step * (index + 1) * np.array(tint), np.uint8) for index in range(count)]


def write_video(path, frames, rate=25, *, form=None, paced=False, colours=None, options=None):
    """Write frames to a file or to what is like one; with `paced`, at the rate at which they are shown."""
    with av.open(path if hasattr(path, "write") else str(path), "w", format=form) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options=options or {"crf": "4", "g": "12"})
        stream.height, stream.width = frames[0].shape[:2]
        if colours:
            stream.codec_context.colorspace, stream.codec_context.color_range = colours
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels)
            if colours:
                frame = frame.reformat(format="yuv420p", dst_colorspace=colours[0], dst_color_range=colours[1])
            container.mux(stream.encode(frame))
            if paced:
                time.sleep(float(1 / Fraction(rate)))
        container.mux(stream.encode())


def read_levels(path):
    """Time and mean of each frame and channel of a video."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [time for time, _ in frames], np.array([pixels.mean((0, 1)) for _, pixels in frames])


class Camera:
    """A server that streams frames to whoever connects first, at their rate, like a camera in a network."""

    def __init__(self, frames, rate):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, args=(frames, rate))
        self._thread.start()

    def _serve(self, frames, rate):
        connection, _ = self._listener.accept()
        with connection, connection.makefile("wb", buffering=0) as file:
            try:
                fast = {"preset": "ultrafast", "tune": "zerolatency", "g": "12"}
                write_video(Unseekable(file), frames, rate, form="mpegts", paced=True, options=fast)
            except OSError:  # the reader has gone
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._thread.join()
        self._listener.close()


class Unseekable:
    """What of a file a stream has."""

    def __init__(self, file):
        self.write = file.write
