"""What a video costs beside fusing its frames, and how much fused frames of a scene that stands still flicker.

Run: python -m benchmarks.video [NAME ...] (from the root of the repository, with timfuse[video] installed).
Without names: ivif, ivif-fast and ivif-nano. The frames are a rendered street with independent noise in each frame.
Flicker is the mean absolute change of the luma between consecutive frames, as a multiple of that of the sources; also
that of the fused video, where all three videos are encoded with CRF 18.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from timfuse.data import luma_of, make_scene
from timfuse.data.images import Pixels
from timfuse.data.video import Video, frame_pixels, pair_by_time
from timfuse.deploy import load
from timfuse.deploy.fuse_video import fuse_video

HEIGHT, WIDTH = 480, 640
FRAMES, ROUNDS = 150, 3
SEEDS = (0, 1, 2)
NOISE = ((2, 2), (4, 4), (8, 8), (8, 2), (2, 8))  # standard deviation in the first and the second source, of 255


def noisy(image: Pixels, deviation: float, generator: np.random.Generator) -> Pixels:
    noise = generator.normal(0, deviation, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def coloured(grey: Pixels) -> Pixels:
    """Tint a visible image, since a coloured one takes longer to read, fuse and write."""
    return (grey[..., None] * np.array([1.0, 0.9, 0.8])).astype(np.uint8)


def write_video(path: Path, frames: Sequence[Pixels]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.height, stream.width = frames[0].shape[:2]
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="gray" if pixels.ndim == 2 else "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def read_video(video: Video) -> list[Pixels]:
    return [frame_pixels(frame) for frame in video.frames()]


def throughput(names: list[str], folder: Path) -> dict[str, list[float]]:
    """Milliseconds a frame, medians of rounds in turn: see the rows of the table."""
    scene, generator = make_scene(0, height=HEIGHT, width=WIDTH), np.random.default_rng(0)
    for name, image in (("ir", scene.first), ("vis", coloured(scene.second))):
        write_video(folder / f"{name}.mp4", [noisy(image, 2, generator) for _ in range(FRAMES)])
    first, second = Video(str(folder / "ir.mp4")), Video(str(folder / "vis.mp4"))
    pairs = [(pair.first[..., 0], pair.second) for pair in pair_by_time(first, second)]
    fusers = {name: load(name, "cpu") for name in names}
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, fuser in fusers.items():
            start, fusing = time.perf_counter(), time.thread_time()
            for pair in pairs:
                fuser(*pair)
            middle, fused, process = time.perf_counter(), time.thread_time(), time.process_time()
            fuse_video(fuser, first, second, folder / "fused.mp4", overwrite=True)
            own, all_threads = time.thread_time() - fused, time.process_time() - process
            whole = time.perf_counter() - middle
            seconds[name].append((middle - start, whole, fused - fusing, own, all_threads - own))
    return {
        name: [1e3 * statistics.median(part) / FRAMES for part in zip(*values, strict=True)]
        for name, values in seconds.items()
    }


def change(frames: Sequence[Pixels]) -> float:
    """Return the mean absolute change of the luma from frame to frame, in 1/255."""
    lumas = [255 * luma_of(frame) for frame in frames]
    return statistics.mean(float((b - a).abs().mean()) for a, b in pairwise(lumas))


def flicker(names: list[str], deviations: tuple[int, int], folder: Path) -> dict[str, list[float]]:
    """Multiples of the sources' change, means over scenes: see the title of the table."""
    ratios: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for seed in SEEDS:
        scene, generator = make_scene(seed, height=HEIGHT // 2, width=WIDTH // 2), np.random.default_rng(seed)
        images = zip((scene.first, scene.second), deviations, strict=True)
        sources = [[noisy(image, deviation, generator) for _ in range(12)] for image, deviation in images]
        changes = [change(frames) for frames in sources]
        for index, frames in enumerate(sources):
            write_video(folder / f"{index}.mp4", frames)
        videos = [Video(str(folder / f"{index}.mp4")) for index in range(2)]
        largest = max(change(read_video(video)) for video in videos)
        for name in names:
            fuser = load(name, "cpu")
            fused = change([fuser(*pair) for pair in zip(*sources, strict=True)])
            fuse_video(fuser, videos[0], videos[1], folder / "fused.mp4", overwrite=True)
            video = change(read_video(Video(str(folder / "fused.mp4"))))
            ratios[name].append((fused / max(changes), fused / statistics.mean(changes), video / largest))
    return {name: [statistics.mean(column) for column in zip(*values, strict=True)] for name, values in ratios.items()}


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or ["ivif", "ivif-fast", "ivif-nano"]
    console = Console()
    with TemporaryDirectory() as folder:
        title = "change of fused frames, by the larger and by the mean of the sources; of the video, by the larger"
        table = Table("noise", *names, title=title)
        for deviations in NOISE:
            rows = flicker(names, deviations, Path(folder)).values()
            table.add_row(str(deviations), *("{:.2f}, {:.2f}; {:.2f}".format(*row) for row in rows))
        console.print(table)
        times = throughput(names, Path(folder))
    table = Table("what", *names, title=f"{WIDTH}x{HEIGHT}, one thread for the network, median ms a frame")
    rows = ("fusing", "reading, fusing and writing", "CPU time of fusing", "of the thread that fuses", "of all others")
    for row, values in zip(rows, zip(*times.values(), strict=True), strict=True):
        table.add_row(row, *(f"{value:.1f}" for value in values))
    table.add_row("video by fusing", *(f"{whole / fusing:.2f}" for fusing, whole, *_ in times.values()))
    console.print(table)


if __name__ == "__main__":
    main()
