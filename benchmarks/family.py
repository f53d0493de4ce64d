"""The family of shipped infrared-visible networks: quality against time, among published and trivial methods.

    python -m benchmarks.family     # benchmarks/results/family.csv and docs/family.png

Quality is the mean rank on the validation pairs of TNO, RoadScene and MSRS among the published and trivial methods, of
which the table of `benchmarks.ruler` has the scores: each network is ranked among them alone, and they beside `ivif`.
Times are those of a pair of 640x480 on one thread, as multiples of that of `ivif-fast`, measured in turn. The code of
published networks is not here. Of two, the number of parameters shows which convolutions they are made of, all at full
size: SeAFusion (Tang, Yuan and Ma, Information Fusion 2022) and IFCNN (Zhang et al., Information Fusion 2020). Their
time is that of these convolutions alone. The others have no time; their quality is a line.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.ruler import GROUPS, OTHERS, RESULT, TRIVIAL, Row, mean_ranks, names_of, numbers, read
from timfuse.cost.latency import measure
from timfuse.deploy import Fuser, load_network
from timfuse.objectives.metrics import ruler_of
from timfuse.operators import count_parameters
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.files import write_atomically

OURS = ("ivif-nano", "ivif-fast", "ivif")
SETS = tuple(GROUPS["infrared and visible"])
HEIGHT, WIDTH = 480, 640
ROOT = Path(__file__).parent.parent
COLOURS = {"network": "#0072B2", "published": "#D55E00", "trivial": "#555555"}


def convolutions(*sizes: tuple[int, int, int]) -> nn.Sequential:
    """Convolutions with rectified outputs, each of (input, output, kernel)."""
    layers = [nn.Sequential(nn.Conv2d(*size, padding=size[2] // 2), nn.LeakyReLU(0.2)) for size in sizes]
    return nn.Sequential(*layers)


class SeAFusionConvolutions(nn.Module):
    """The convolutions of SeAFusion: for each source two residual dense blocks with Sobel filters, and a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.ModuleList([convolutions((1, 16, 3)), self._block(16, 32), self._block(32, 48)]) for _ in range(2)
        )
        self.decoder = convolutions((96, 64, 3), (64, 32, 3), (32, 16, 3), (16, 1, 3))

    @staticmethod
    def _block(width: int, wider: int) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                "first": convolutions((width, width, 3)),
                "second": convolutions((2 * width, width, 3)),
                "joined": nn.Conv2d(3 * width, wider, 1),
                "across": nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                "down": nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
                "edges": nn.Conv2d(width, wider, 1),
            }
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse two sources."""
        features = []
        for source, (stem, *blocks) in zip((first, second), self.encoders, strict=True):  # type: ignore[misc]
            x = stem(source)
            for block in blocks:
                dense = torch.cat((x, block["first"](x)), 1)
                dense = torch.cat((dense, block["second"](dense)), 1)
                edges = block["edges"](block["across"](x).abs() + block["down"](x).abs())
                x = nn.functional.leaky_relu(block["joined"](dense) + edges, 0.1)
            features.append(x)
        fused: Tensor = self.decoder(torch.cat(features, 1))
        return fused


class IFCNNConvolutions(nn.Module):
    """The convolutions of IFCNN: two for each source, and two after their larger features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = convolutions((3, 64, 7), (64, 64, 3)), convolutions((64, 64, 3), (64, 3, 1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Fuse two sources."""
        features = [self.encoder(source.expand(-1, 3, -1, -1)) for source in (first, second)]
        fused: Tensor = self.decoder(torch.maximum(*features))
        return fused


PUBLISHED: dict[str, tuple[type[nn.Module], int]] = {
    # With the number of parameters that are released, less those of the normalisations, which cost nothing once they
    # are folded, and with the biases that come of it.
    "SeAFusion": (SeAFusionConvolutions, 166_883 - 2 * (64 + 32 + 16 + 1)),
    "IFCNN": (IFCNNConvolutions, 83_587 - 4 * 64 + 3 * 64),
}


def qualities() -> dict[str, tuple[str, float]]:
    """Return kind and mean rank of each method, beside one network of ours."""
    table, ruler = read(RESULT), ruler_of("infrared-visible")
    rows = {name: [kept for (of_set, _), kept in table.items() if of_set == name] for name in SETS}

    def ranked(also: str) -> dict[str, tuple[str, float]]:
        found: dict[str, list[float]] = {}
        kinds = {}
        for of_set in rows.values():
            compared: Sequence[Sequence[Row]] = [
                each for each in of_set if each[0]["kind"] in OTHERS or each[0]["method"] == also
            ]
            for name, rank in zip(names_of(compared), mean_ranks(numbers(compared, ruler), ruler), strict=True):
                found.setdefault(name, []).append(float(rank))
            kinds |= {each[0]["method"]: each[0]["kind"] for each in compared}
        return {name: (kinds[name], float(np.mean(places))) for name, places in found.items()}

    return ranked("ivif") | {name: ranked(name)[name] for name in OURS}


@torch.inference_mode()
def times() -> dict[str, float]:
    """Return the time of each method that can be measured, in that of `ivif-fast`."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 1, 1, HEIGHT, WIDTH, generator=generator)
    passes = {name: Fuser(load_network(name), torch.device("cpu")) for name in OURS} | TRIVIAL
    for name, (build, parameters) in PUBLISHED.items():
        network = build().eval()
        assert count_parameters(network) == parameters, count_parameters(network)
        passes[name] = network.to(memory_format=torch.channels_last)
    measured = measure([lambda fuse=fuse: fuse(first, second) for fuse in passes.values()], torch.device("cpu"))
    milliseconds = dict(zip(passes, measured, strict=True))
    print("  ".join(f"{name} {time:.1f} ms" for name, time in milliseconds.items()))
    return {name: time / milliseconds["ivif-fast"] for name, time in milliseconds.items()}


def draw(rows: Sequence[tuple[str, str, float, float | None]], file: Path) -> None:
    """Draw quality against time."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name, kind, rank, time in rows:
        colour = COLOURS[kind]
        if time is None:
            axes.axhline(rank, color=colour, linewidth=0.8, linestyle=":")
            axes.text(0.008, rank - 0.06, f"{name} (no time)", color=colour, fontsize=8)
        else:
            axes.plot(time, rank, "o" if kind == "network" else "s", color=colour)
            above = 0.12 if kind == "network" else 0.16
            axes.text(time, rank - above, name, color=colour, ha="right" if kind == "network" else "center", fontsize=9)
    ours = [(time, rank) for _, kind, rank, time in rows if kind == "network" and time is not None]
    axes.plot(*zip(*sorted(ours), strict=True), color=COLOURS["network"], linewidth=1)
    axes.set(xscale="log", xlabel="time of a 640x480 pair, in that of ivif-fast", ylabel="mean rank, 1 is best")
    axes.set(xlim=(4e-4, 600), ylim=(8.3, 1.9))
    axes.grid(alpha=0.25)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Measure, write the table and draw."""
    measured = times()
    rows = [(name, kind, rank, measured.get(name)) for name, (kind, rank) in qualities().items()]
    rows.sort(key=lambda row: row[2])
    cells = [[name, kind, f"{rank:.3f}", "" if time is None else f"{time:.3f}"] for name, kind, rank, time in rows]
    text = csv_text(["method", "kind", "mean rank", "time"], cells)
    write_atomically(ROOT / "benchmarks" / "results" / "family.csv", text)
    draw(rows, ROOT / "docs" / "family.png")
    print(text)


if __name__ == "__main__":
    main()
