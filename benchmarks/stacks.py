"""How three images are fused best by networks that fuse two, and how much the result depends on their order.

    python -m benchmarks.stacks --data DATA/mef   # from the root of the repository

Rendered stacks are those of `make_exposure_stack` and `make_focus_stack`; no network was trained on these seeds. Real
ones are crops of the validation pairs of DATA/mef with an exposure in between: the geometric mean of both in linear
light. Of a camera whose response is a power, this is the geometric mean of the grey levels, which is rounded to 8 bits.
It adds no structure that neither exposure has, as a third photograph would.

The metrics are against all three sources. The order dependence is the mean absolute difference, in grey levels, of the
results for every two of the six orders. "Best pair" is, for each stack, the best of the three fusions of two sources,
which nobody knows beforehand; "outer pair" that of the first and the last one. Times are on one thread.
"""

import argparse
import csv
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import timfuse
from timfuse.data import find_pairs
from timfuse.data.synthetic import make_exposure_stack, make_focus_stack
from timfuse.objectives.metrics import fusion_metrics
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.files import write_atomically
from timfuse.runtime.progress import Progress

from .focus import bytes_of, unit
from .headroom import central_crop, interval

Fuse = Callable[..., Tensor]

RESULTS = Path(__file__).parent / "results"
SIZE = 256
SEED = 10_000  # of the first scene
HEADING = ("set", "stack", "method", "MEF-SSIM", "Qabf", "PSNR", "order", "ms")
CHOSEN, ALL_ORDERS = "every two (timfuse)", "mean over all orders"


def sequence(fuse: Fuse) -> Fuse:
    """Make a method that fuses the first two, and the result with the next one."""
    return lambda first, second, third: fuse(fuse(first, second), third)


def methods(task: str) -> dict[str, Fuse]:
    """List the ways to fuse three images."""
    fuse = timfuse.load(task, "cpu")

    def both(first: Tensor, second: Tensor) -> Tensor:
        return (fuse(first, second) + fuse(second, first)) / 2

    def by_brightness(*sources: Tensor) -> list[Tensor]:
        return sorted(sources, key=lambda source: float(source.mean()))

    def over_orders(*sources: Tensor) -> Tensor:
        return torch.stack([sequence(fuse)(*order) for order in permutations(sources)]).mean(0)

    return {
        CHOSEN: fuse,
        "sequence": sequence(fuse),
        "sequence, both orders of two": sequence(both),
        "sequence from dark to bright": lambda *sources: sequence(fuse)(*by_brightness(*sources)),
        "sequence from bright to dark": lambda *sources: sequence(lambda one, other: fuse(other, one))(
            *reversed(by_brightness(*sources))
        ),
        ALL_ORDERS: over_orders,
    }


def rendered(make: Callable[..., Sequence[np.ndarray]], count: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Render stacks: three sources, and the sharp picture if there is one."""
    for seed in range(SEED, SEED + count):
        yield str(seed), [unit(pixels) for pixels in make(seed, 3, height=SIZE, width=SIZE)]


def real(data: Path) -> Iterator[tuple[str, list[Tensor]]]:
    """Read pairs, and put an exposure between both."""
    for pair in find_pairs(data, "multi-exposure", "val"):
        under, over = central_crop(pair.read(), SIZE)[:, None, None]
        yield pair.name, [under, (under * over).sqrt().mul(255).round() / 255, over]


def scores(fused: Tensor, sources: Sequence[Tensor], sharp: Tensor | None) -> list[float | str]:
    """Compute MEF-SSIM and Qabf against the sources, and PSNR against the sharp picture."""
    picture, first, second, *further = map(bytes_of, (fused, *sources))
    values = fusion_metrics(picture, first, second, ("MEF-SSIM", "Qabf"), further=further)
    against = [] if sharp is None else [fusion_metrics(picture, *2 * [bytes_of(sharp)], ("PSNR",))["PSNR"].item()]
    return [*(value.item() for value in values.values()), *(against or [""])]


def rows_of(kind: str, name: str, images: Sequence[Tensor], ways: dict[str, Fuse]) -> Iterator[list[object]]:
    """Fuse a stack in every way."""
    sources, sharp = images[:3], next(iter(images[3:]), None)
    for way, fuse in ways.items():
        start = time.perf_counter()
        fused = fuse(*sources)
        duration = 1000 * (time.perf_counter() - start)
        order = 0.0  # of the mean over all orders, in any of them
        if way != ALL_ORDERS:
            results = [fuse(*turned) for turned in permutations(sources)]
            order = float(np.mean([255 * (one - other).abs().mean() for one, other in combinations(results, 2)]))
        yield [kind, name, way, *scores(fused, sources, sharp), order, duration]
    pairs = [scores(ways[CHOSEN](*pair), sources, sharp) for pair in combinations(sources, 2)]
    yield [kind, name, "best pair", *(max(values) for values in zip(*pairs, strict=True)), "", ""]
    yield [kind, name, "outer pair", *pairs[1], "", ""]


def report(rows: Sequence[dict[str, str]]) -> str:
    """Write the means as Markdown."""
    lines = []
    for kind in dict.fromkeys(row["set"] for row in rows):
        of_kind = {way: [row for row in rows if (row["set"], row["method"]) == (kind, way)] for way in ways_of(rows)}
        count = len(of_kind[CHOSEN])
        lines += [f"{count} stacks of three, {kind}:", ""]
        lines += ["| | MEF-SSIM | above the best pair | stacks | Qabf | PSNR | order dependence | ms |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        best = np.array([float(row["MEF-SSIM"]) for row in of_kind["best pair"]])
        for way, own in of_kind.items():
            lead = np.array([float(row["MEF-SSIM"]) for row in own]) - best
            low, high = interval(lambda chosen, lead=lead: float(lead[chosen].mean()), count)
            means = {name: np.mean([float(row[name] or "nan") for row in own]) for name in HEADING[3:]}
            above = f"{lead.mean():+.4f} ({low:+.4f} to {high:+.4f})"
            cells = [way, f"{means['MEF-SSIM']:.4f}", above, f"{(lead > 0).sum()}", f"{means['Qabf']:.3f}"]
            cells += [f"{means['PSNR']:.2f}", f"{means['order']:.2f}", f"{means['ms']:.0f}"]
            lines.append(f"| {' | '.join('' if cell == 'nan' else cell for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def ways_of(rows: Sequence[dict[str, str]]) -> list[str]:
    """List the methods in their order."""
    return list(dict.fromkeys(row["method"] for row in rows))


@torch.inference_mode()
def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the data set mef")
    parser.add_argument("--scenes", type=int, default=12, help="number of rendered scenes of each kind")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sets = {
        "rendered exposures": ("multi-exposure", rendered(make_exposure_stack, given.scenes)),
        "real exposures with one in between": ("multi-exposure", real(given.data)),
        "rendered focal planes": ("multi-focus", rendered(make_focus_stack, given.scenes)),
    }
    rows: list[list[object]] = []
    with Progress(2 * given.scenes + len(find_pairs(given.data, "multi-exposure", "val")), "fusing") as progress:
        for kind, (task, stacks) in sets.items():
            ways = methods(task)
            for name, images in stacks:
                rows += rows_of(kind, name, images, ways)
                progress.advance(name)
    table = csv_text(HEADING, rows)
    text = report(list(csv.DictReader(table.splitlines())))
    write_atomically(RESULTS / "stacks.csv", table)
    write_atomically(RESULTS / "stacks.md", text)
    print(text)


if __name__ == "__main__":
    main()
