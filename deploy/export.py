"""Exports a trained network as an ONNX file for any batch, height and width, checked in onnxruntime."""

import copy
import json
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from timeit import timeit
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import __version__
from ..data import Pair, luma_of
from ..data.splits import spread
from ..genotypes import Genotype
from ..operators.inference import FewMaps
from ..operators.primitives import NonLocal
from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.progress import Progress
from .fuser import load

OPSET = 18  # the oldest that the exporter writes, which most runtimes read
TOLERANCE = 1e-4
CHECKED_SHAPES = ((1, 37, 53), (2, 64, 47), (1, 480, 640))  # batch, height, width
TIMED_SHAPE = (1, 480, 640)
REPETITIONS = 5
CALIBRATED = 16  # pairs for the scales of integers, at most

Images = NDArray[np.float32]  # (N, 1, H, W)
Fuse = Callable[[Images, Images], Images]

_COLOUR = "Fuses luma: take Y of YCbCr (ITU-R BT.601) from coloured sources, and combine the fused Y with Cb and Cr."


@dataclass(frozen=True)
class Export:
    """The result of an export.

    Attributes:
        opset: Version of the ONNX operators in the file.
        difference: Largest difference between the outputs of onnxruntime and PyTorch.
        psnr: Mean peak signal-to-noise ratio of a model of integers to PyTorch over the pairs of its calibration, in
            dB; None for one of floats.
        onnxruntime_seconds: Median time of a 640x480 pair on the CPU in onnxruntime, with the threads of PyTorch.
        pytorch_seconds: Median time of a 640x480 pair on the CPU in PyTorch.
    """

    size: int
    opset: int
    difference: float
    onnxruntime_seconds: float
    pytorch_seconds: float
    psnr: float | None = None


class _Clipped(nn.Module):
    """A network whose output is clipped to [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        fused: Tensor = self.network(first, second).clamp(0, 1)
        return fused


def export_onnx(run: str | Path, output: Path, calibration: Sequence[Pair] = ()) -> Export:
    """Write a network as an ONNX file, after onnxruntime and PyTorch gave the same outputs for several sizes.

    The inputs `first` and `second` and the output `fused` of the model are (N, 1, H, W) float32 in [0, 1], for any N, H
    and W.

    Args:
        run: Name of a shipped network, or a run folder.
        calibration: Pairs like those that will be fused. With them the convolutions compute with integers of 8 bits,
            whose scales fit the values that occur in up to 16 of these pairs.

    Raises:
        UserError: If there is no such network, it cannot be exported, a pair cannot be read or has two sizes, the
            outputs differ by more than 1e-4, a package is missing or the file cannot be written. No file remains.

    Example:
        >>> export_onnx("ivif-fast", Path("ivif-fast.onnx")).difference < 1e-4  # doctest: +SKIP
        True
    """
    onnx, onnxruntime = _packages()
    trained = load(run, device="cpu").network
    _refuse_non_local(trained, run)
    sources = [_lumas(calibration[index]) for index in spread(range(len(calibration)), CALIBRATED)]
    network = _Clipped(trained).eval()
    with Progress(1 + len(CHECKED_SHAPES) + REPETITIONS, "export") as progress:
        model = _to_onnx(network)
        _describe(onnx, model, trained.genotype)
        content = model.SerializeToString()
        progress.advance("written in ONNX")
        in_runtime, in_pytorch = _in_onnxruntime(onnxruntime, content), _in_pytorch(network)
        differences = []
        for shape in CHECKED_SHAPES:
            images = _pair(shape)
            differences.append(float(np.abs(in_runtime(*images) - in_pytorch(*images)).max()))
            if not differences[-1] <= TOLERANCE:  # which is also true for NaN
                raise UserError(
                    f"{output} is not written: at {shape[2]}x{shape[1]} onnxruntime differs from PyTorch by "
                    f"{differences[-1]:.2g}, more than {TOLERANCE:g}; try other versions of onnxruntime and torch"
                )
            progress.advance(f"checked at {shape[2]}x{shape[1]}")
        psnr = None
        if sources:
            content = quantised(onnx, content, sources)
            in_runtime = _in_onnxruntime(onnxruntime, content)
            psnr = statistics.mean(_psnr(in_runtime(*pair), in_pytorch(*pair)) for pair in sources)
        images = _pair(TIMED_SHAPE)
        times: list[list[float]] = []
        for _ in range(REPETITIONS):  # in turn, so that other work on the machine slows down both
            times.append([timeit(partial(fuse, *images), number=1) for fuse in (in_runtime, in_pytorch)])
            progress.advance("timed")
    write_atomically(output, content)
    runtime_seconds, pytorch_seconds = (statistics.median(column) for column in zip(*times, strict=True))
    return Export(len(content), OPSET, max(differences), runtime_seconds, pytorch_seconds, psnr)


def _packages() -> tuple[ModuleType, ModuleType]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 -- the exporter of torch needs it
    except ImportError as error:
        raise UserError(f"export needs the package {error.name}; pip install timfuse[export]") from None
    return onnx, onnxruntime


def _refuse_non_local(network: nn.Module, run: str | Path) -> None:
    for module in network.modules():
        if isinstance(module, NonLocal):
            raise UserError(
                f"cannot export {run}: non_local_k{module.exit.kernel_size[0]} compares every pixel with every other, "
                "in ONNX all at once and beyond any memory; choose a network without it"
            )


def _to_onnx(network: nn.Module) -> Any:
    """Trace a network with unknown batch, height and width."""
    axes = {0: "batch", 2: "height", 3: "width"}
    images = _pair((2, 37, 53))  # the exporter takes a batch of one for a constant
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about parts of torch
            program = torch.onnx.export(
                _plain(network),
                tuple(torch.from_numpy(image) for image in images),
                input_names=["first", "second"],
                output_names=["fused"],
                dynamic_shapes={"first": axes, "second": axes},
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.disable(disabled)
    assert program is not None
    return program.model_proto


def _plain(network: nn.Module) -> nn.Module:
    """Copy a network with plain convolutions in the place of those that are fast in PyTorch on a CPU alone."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, FewMaps):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]  # it differs in `forward` only
    return network


def _describe(onnx: ModuleType, model: Any, genotype: Genotype) -> None:
    """Describe the network in the model, in place of how torch traced it."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
    graph.ClearField("value_info")  # sizes in the notation of torch, which runtimes compute themselves
    graph.output[0].type.CopyFrom(graph.input[0].type)
    first, second = genotype.source_words
    graph.name = genotype.name
    model.producer_name, model.producer_version = "timfuse", __version__
    onnx.helper.set_model_props(
        model,
        {
            "name": genotype.name,
            "task": genotype.task,
            "first": first,
            "second": second,
            "colour": _COLOUR,
            "provenance": json.dumps(genotype.provenance, ensure_ascii=False),
        },
    )
    onnx.checker.check_model(model, full_check=True)


def quantised(onnx: ModuleType, content: bytes, sources: Sequence[tuple[Images, Images]]) -> bytes:
    """Replace the convolutions of a model by those with integers of 8 bits, with scales for each channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Calibration(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(sources)

        def get_next(self) -> dict[str, Images] | None:
            pair = next(self.left, None)
            return None if pair is None else {"first": pair[0], "second": pair[1]}

    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model.onnx")
            quantize_static(
                onnx.load_from_string(content),
                file,
                Calibration(),
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return file.read_bytes()
    finally:
        logging.disable(disabled)


def _lumas(pair: Pair) -> tuple[Images, Images]:
    first, second = (luma_of(pixels)[None, None].numpy() for pixels in pair.read())
    if first.shape != second.shape:
        sizes = (
            f"{file} is {image.shape[3]}x{image.shape[2]}"
            for file, image in zip(pair.files, (first, second), strict=True)
        )
        raise UserError(f"the pair {pair.name} has two sizes: {', '.join(sizes)}; bring both to one aligned size")
    return first, second


def _psnr(image: Images, reference: Images) -> float:
    """Compute the peak signal-to-noise ratio in dB, at most 100."""
    return float(-10 * np.log10(max(1e-10, np.square(image - reference).mean(dtype=np.float64))))


def _pair(shape: tuple[int, int, int]) -> tuple[Images, Images]:
    """Draw two images (N, 1, H, W) from the uniform distribution, the same at every call."""
    batch, height, width = shape
    first, second = np.random.default_rng(0).random((2, batch, 1, height, width), dtype=np.float32)
    return first, second


def _in_pytorch(network: nn.Module) -> Fuse:
    def fuse(first: Images, second: Images) -> Images:
        with torch.inference_mode():
            return network(torch.from_numpy(first), torch.from_numpy(second)).numpy()

    return fuse


def _in_onnxruntime(onnxruntime: ModuleType, content: bytes) -> Fuse:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait in a loop take the cores from PyTorch in its turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda first, second: session.run(None, {"first": first, "second": second})[0]
