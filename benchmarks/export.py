"""Exported networks side by side: PyTorch, ONNX, ONNX for one size, and ONNX with 8-bit integers.

    python -m benchmarks.export --data MSRS   # from the root of the repository; MSRS has pairs of 640x480

The fixed model has 640x480 in place of any size. In the model of integers, onnxruntime's static quantisation has
replaced the convolutions, with scales for each channel, calibrated on training pairs. Quality is that on validation
pairs: PSNR against the images of PyTorch, and metrics of the fused images. Times are medians on one thread, measured in
turn. The table goes to benchmarks/results/export.md.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from timfuse.cost.latency import measure
from timfuse.data import Pair, find_pairs, luma_of
from timfuse.data.splits import spread
from timfuse.deploy import export_onnx, load_network
from timfuse.deploy.export import quantised
from timfuse.objectives.metrics import fusion_metrics
from timfuse.runtime.device import device_name
from timfuse.runtime.files import write_atomically

NETWORKS = ("ivif", "ivif-nano")
SHOWN = ("VIF", "Qabf", "MEF-SSIM")
CALIBRATED, SCORED = 8, 8  # pairs
WIDTH, HEIGHT = 640, 480
RESULT = Path(__file__).parent / "results" / "export.md"

Images = NDArray[np.float32]  # (1, 1, H, W) in [0, 1]
Inputs = tuple[Images, Images]
Fuse = Callable[[Images, Images], Images]


def inputs_of(pair: Pair) -> Inputs:
    """Read the luma of a pair."""
    first, second = (luma_of(pixels)[None, None].numpy() for pixels in pair.read())
    return first, second


def fix_size(model: Path, fixed: Path) -> None:
    """Write a model for one pair of 640x480 in place of any."""
    loaded = onnx.load(model)
    for value in (*loaded.graph.input, *loaded.graph.output):
        for axis, length in zip(value.type.tensor_type.shape.dim, (1, 1, HEIGHT, WIDTH), strict=True):
            axis.dim_value = length
    onnx.save(loaded, fixed)


def session(model: Path) -> Fuse:
    """Open a model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda first, second: opened.run(None, {"first": first, "second": second})[0]


def in_pytorch(name: str) -> Fuse:
    """Load a network as `timfuse fuse` runs it."""
    network = load_network(name).to(memory_format=torch.channels_last)

    def fuse(first: Images, second: Images) -> Images:
        with torch.inference_mode():
            return network(torch.from_numpy(first), torch.from_numpy(second)).clamp(0, 1).numpy()

    return fuse


def psnr(image: Images, reference: Images) -> float:
    """Compute the peak signal-to-noise ratio in dB, at most 100."""
    return float(-10 * np.log10(max(1e-10, np.square(image - reference).mean(dtype=np.float64))))


def rows_of(name: str, calibration: list[Inputs], pairs: list[Inputs]) -> Iterator[list[str]]:
    """Measure all forms of a network."""
    with tempfile.TemporaryDirectory() as folder:
        models = {form: Path(folder, f"{form}.onnx") for form in ("ONNX", "ONNX 640x480", "ONNX int8")}
        plain, fixed, integers = models.values()
        export_onnx(name, plain)
        fix_size(plain, fixed)
        integers.write_bytes(quantised(onnx, plain.read_bytes(), calibration))
        fuses = {"PyTorch": in_pytorch(name)} | {form: session(model) for form, model in models.items()}
        sizes = {form: f"{model.stat().st_size / 1e3:,.0f}" for form, model in models.items()}
        times = measure([lambda fuse=fuse: fuse(*pairs[0]) for fuse in fuses.values()], torch.device("cpu"))
    references = [fuses["PyTorch"](*inputs) for inputs in pairs]
    for (form, fuse), milliseconds in zip(fuses.items(), times, strict=True):
        fused = [fuse(*inputs) for inputs in pairs]
        near = np.mean([psnr(image, reference) for image, reference in zip(fused, references, strict=True)])
        scores = np.mean([scores_of(image, inputs) for image, inputs in zip(fused, pairs, strict=True)], axis=0)
        cells = [f"{milliseconds:.1f}", sizes.get(form, ""), "" if form == "PyTorch" else f"{near:.1f}"]
        yield [name, form, *cells, *(f"{value:.3f}" for value in scores)]


def scores_of(fused: Images, inputs: Inputs) -> list[float]:
    """Score a fused image, rounded to 8 bits."""
    pictures = [torch.from_numpy(np.rint(255 * image)) for image in (fused, *inputs)]
    return [float(score) for score in fusion_metrics(*pictures, SHOWN).values()]


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Compares exported networks.")
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    calibration, pairs = (
        [inputs_of(pair) for pair in spread(find_pairs(given.data, split=split), count)]
        for split, count in (("train", CALIBRATED), ("val", SCORED))
    )
    heading = ["network", "form", "ms", "kB", "PSNR to PyTorch", *SHOWN]
    lines = [heading, ["---"] * len(heading)]
    for name in NETWORKS:
        lines += rows_of(name, calibration, pairs)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    where = f"{WIDTH}x{HEIGHT}, {device_name(torch.device('cpu'))}; {SCORED} validation pairs."
    write_atomically(RESULT, f"# Exported networks\n\n{where}\n\n{table}\n")
    print(table)


if __name__ == "__main__":
    main()
