"""What a video costs beside fusing its frames, and how much fused frames of a scene that stands still flicker.

Run: python -m benchmarks.video [NAME ...] (from the root of the repository, with timfuse[video] installed).
Without names: ivif, ivif-fast and ivif-nano. The frames are a rendered street with independent noise in each frame.
Flicker is the mean absolute change of the luma between consecutive frames, as a multiple of that of the sources.
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
from timfuse.data.video import Video, pair_by_time
from timfuse.deploy import load
from timfuse.deploy.fuse_video import fuse_video

HEIGHT, WIDTH = 480, 640
FRAMES, ROUNDS = 100, 5
SEEDS = (0, 1, 2)
NOISE = ((2, 2), (4, 4), (4, 1), (1, 4))  # standard deviation in the first and the second source, of 255


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


def throughput(names: list[str], folder: Path) -> dict[str, tuple[float, float]]:
    """Milliseconds a frame: fusing alone, and with reading and writing; medians of rounds in turn."""
    scene, generator = make_scene(0, height=HEIGHT, width=WIDTH), np.random.default_rng(0)
    for name, image in (("ir", scene.first), ("vis", coloured(scene.second))):
        write_video(folder / f"{name}.mp4", [noisy(image, 2, generator) for _ in range(FRAMES)])
    first, second = Video(str(folder / "ir.mp4")), Video(str(folder / "vis.mp4"))
    pairs = [(pair.first[..., 0], pair.second) for pair in pair_by_time(first, second)]
    fusers = {name: load(name, "cpu") for name in names}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name, fuser in fusers.items():
            start = time.perf_counter()
            for pair in pairs:
                fuser(*pair)
            middle = time.perf_counter()
            fuse_video(fuser, first, second, folder / "fused.mp4", overwrite=True)
            seconds[name].append((middle - start, time.perf_counter() - middle))
    return {
        name: tuple(1e3 * statistics.median(part) / len(pairs) for part in zip(*values, strict=True))
        for name, values in seconds.items()
    }


def change(frames: Sequence[Pixels]) -> float:
    """Return the mean absolute change of the luma from frame to frame, in 1/255."""
    lumas = [255 * luma_of(frame) for frame in frames]
    return statistics.mean(float((b - a).abs().mean()) for a, b in pairwise(lumas))


def flicker(names: list[str], deviations: tuple[float, float]) -> dict[str, tuple[float, float]]:
    """Multiples of the sources' change: of that of the source that changes more, and of their mean."""
    ratios: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for seed in SEEDS:
        scene, generator = make_scene(seed, height=HEIGHT // 2, width=WIDTH // 2), np.random.default_rng(seed)
        images = zip((scene.first, scene.second), deviations, strict=True)
        sources = [[noisy(image, deviation, generator) for _ in range(6)] for image, deviation in images]
        changes = [change(frames) for frames in sources]
        for name in names:
            fuser = load(name, "cpu")
            fused = change([fuser(*pair) for pair in zip(*sources, strict=True)])
            ratios[name].append((fused / max(changes), fused / statistics.mean(changes)))
    return {name: tuple(map(statistics.mean, zip(*values, strict=True))) for name, values in ratios.items()}


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or ["ivif", "ivif-fast", "ivif-nano"]
    console = Console()
    table = Table(
        "change from frame to frame", *names, title="as a multiple of the larger, and of the mean, of the sources"
    )
    for deviations in NOISE:
        row = flicker(names, deviations)
        table.add_row(f"noise of {deviations[0]} and {deviations[1]}", *(f"{a:.2f}, {b:.2f}" for a, b in row.values()))
    console.print(table)
    with TemporaryDirectory() as folder:
        times = throughput(names, Path(folder))
    table = Table("what", *names, title=f"{WIDTH}x{HEIGHT}, one thread for the network, median ms a frame")
    table.add_row("fusing", *(f"{fusing:.1f}" for fusing, _ in times.values()))
    table.add_row("reading, fusing and writing", *(f"{whole:.1f}" for _, whole in times.values()))
    table.add_row("ratio", *(f"{whole / fusing:.2f}" for fusing, whole in times.values()))
    console.print(table)


if __name__ == "__main__":
    main()
