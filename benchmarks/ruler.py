"""Where networks stand among published ones and methods without a network, by the ruler of each task.

    python -m benchmarks.ruler --data DATA --peers PEERS --network ivif ivif-fast     # from the root of the repository

DATA holds the data sets of `GROUPS`, of which the validation pairs are scored, and PEERS the pictures that other
methods fused of them, as SET/METHOD/NAME.png. A network, a shipped name or a run folder, is scored on the sets of its
task; with --untrained, it is scored with fresh weights too. Scores are kept in OUTPUT, so that a second call scores
only what is missing there; networks are scored again when their files have changed. The table of mean ranks is printed,
and kept beside it with the means of each set.
"""

import argparse
import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from timfuse.data import Pair, find_pairs, luma, read_pixels
from timfuse.deploy import Fuser, find_methods, load_network
from timfuse.deploy.trained_network import TrainedNetwork
from timfuse.genotypes import load_genotype
from timfuse.objectives import trivial_fusion
from timfuse.objectives.metrics import fusion_metrics, ranks, ruler_of, shown_metrics
from timfuse.operators import build_network
from timfuse.operators.network_folders import find_network
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.files import write_atomically
from timfuse.runtime.progress import Progress
from timfuse.runtime.run_files import GENOTYPE_FILE, WEIGHTS_FILE

GROUPS = {
    "infrared and visible": dict.fromkeys(("tno", "roadscene", "msrs"), "infrared-visible"),
    "medical": {f"medical/{task}": task for task in ("mri-ct", "mri-pet", "mri-spect")},
    "exposures": {"mef": "multi-exposure"},
    "focus": {"mff": "multi-focus"},
}
"""The task of each data set, in groups of sets over which ranks are averaged."""

TASKS = {name: task for sets in GROUPS.values() for name, task in sets.items()}

RESULT = Path(__file__).parent / "results" / "ruler.csv"
KEYS = ("set", "method", "kind", "files", "pairs")

Fuse = Callable[[Tensor, Tensor], Tensor]  # two sources (1, 1, H, W) in [0, 1] to the fused image
Row = dict[str, str]


class Method(NamedTuple):
    """A method on a data set: the beginning of its row, and its picture (1, 1, H, W) uint8 of the pair of an index."""

    row: Row
    picture: Callable[[int, Tensor, Tensor], Tensor]


def gff(first: Tensor, second: Tensor) -> Tensor:
    """Fuse a base and a detail layer by weights that a guided filter smooths (Li, Kang, Hu, IEEE TIP 2013)."""
    sources = torch.cat((first, second))
    edges = first.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    bell = torch.exp(-torch.arange(-5.0, 6.0, dtype=first.dtype).square() / (2 * 5**2))
    bell = torch.outer(bell, bell)[None, None] / bell.sum().square()
    strength = F.conv2d(F.pad(sources, (1, 1, 1, 1), mode="reflect"), edges).abs()
    saliency = F.conv2d(F.pad(strength, (5, 5, 5, 5), mode="reflect"), bell)
    # Ties go to the second source, as where both are black.
    chosen = torch.cat((saliency[:1] > saliency[1:], saliency[:1] <= saliency[1:])).to(first.dtype)
    base = box(sources, 15)
    fused = torch.zeros_like(first)
    for layer, radius, epsilon in ((base, 45, 0.3), (sources - base, 7, 1e-6)):
        weights = guided(sources, chosen, radius, epsilon).clamp(0, 1)
        weights = weights / weights.sum(0, keepdim=True).clamp_min(1e-6)
        fused = fused + (weights * layer).sum(0, keepdim=True)
    return fused


def guided(guide: Tensor, x: Tensor, radius: int, epsilon: float) -> Tensor:
    """Smooth images by a guided filter."""
    mean_guide, mean = box(guide, radius), box(x, radius)
    slope = (box(guide * x, radius) - mean_guide * mean) / (box(guide * guide, radius) - mean_guide**2 + epsilon)
    return box(slope, radius) * guide + box(mean - slope * mean_guide, radius)


def box(x: Tensor, radius: int) -> Tensor:
    """Average over squares of 2 radius + 1 pixels, of which only the part inside the image counts."""
    for axis in (-2, -1):
        size = x.shape[axis]
        sums = F.pad(x.movedim(axis, -1).cumsum(-1), (1, 0))
        starts = (torch.arange(size) - radius).clamp_min(0)
        ends = (torch.arange(size) + radius + 1).clamp_max(size)
        x = ((sums[..., ends] - sums[..., starts]) / (ends - starts)).movedim(-1, axis)
    return x


TRIVIAL: dict[str, Fuse] = {**trivial_fusion.TRIVIAL, "gff": gff}
"""Methods without a network."""


def methods_of(name: str, task: str, pairs: Sequence[Pair], given: argparse.Namespace) -> Iterator[Method]:
    """List the methods of a data set."""
    size = str(len(pairs))

    def method(label: str, kind: str, picture: Callable[[int, Tensor, Tensor], Tensor], files: str = "") -> Method:
        return Method(dict(zip(KEYS, (name, label, kind, files, size), strict=True)), picture)

    folders = sorted(str(path) for path in (given.peers / name).glob("*/"))
    for label, files in find_methods(folders, pairs).items():
        yield method(label, "published", partial(saved, files), digest(*files))
    for label, fuse in TRIVIAL.items():
        yield method(label, "trivial", partial(fused, fuse))
    for label in given.network:
        folder = find_network(label)
        genotype = load_genotype(folder)
        if genotype.task == task:
            trained = load_network(label)
            content = folder / GENOTYPE_FILE, folder / WEIGHTS_FILE
            yield method(label, "network", partial(fused, fuser_of(trained)), digest(*content))
            if given.untrained:
                torch.manual_seed(0)
                untrained = TrainedNetwork(genotype, build_network(genotype), trained.first_stage)
                yield method(f"{label} untrained", "untrained", partial(fused, fuser_of(untrained)), digest(content[0]))


def fuser_of(network: TrainedNetwork) -> Fuse:
    """Fuse by a network, in single precision."""
    fuser = Fuser(network, torch.device("cpu"))
    return lambda first, second: fuser(first.float(), second.float())


def fused(fuse: Fuse, _: int, first: Tensor, second: Tensor) -> Tensor:
    """Fuse two sources, and round to 8 bits."""
    return (fuse(first, second).clamp(0, 1) * 255).round().to(torch.uint8)


def saved(files: Sequence[Path], index: int, *_: Tensor) -> Tensor:
    """Read the picture of a method."""
    return grey(read_pixels(files[index]))


def grey(pixels: np.ndarray) -> Tensor:
    """Convert pixels of 8 bits to luma, (1, 1, H, W) uint8."""
    return torch.from_numpy(luma(pixels).astype(np.uint8))[None, None]


def digest(*files: Path) -> str:
    """Return a short name of the content of files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


@torch.inference_mode()
def score(methods: Sequence[Method], pairs: Sequence[Pair], task: str) -> list[Row]:
    """Score methods on pairs; a mean is over the pairs for which a metric is defined."""
    metrics = shown_metrics(task)
    values = np.empty((len(pairs), len(methods), len(metrics)))
    with Progress(len(pairs), methods[0].row["set"], unit="pairs") as progress:
        for index, pair in enumerate(pairs):
            first, second = map(grey, pair.read())
            unit = first.double() / 255, second.double() / 255
            pictures = torch.cat([method.picture(index, *unit) for method in methods])
            scores = fusion_metrics(pictures, first, second, metrics)
            values[index] = torch.stack([scores[metric] for metric in metrics], 1).numpy()
            progress.advance()
    texts = [[f"{value:.6f}" for value in row] for row in np.nanmean(values, axis=0)]
    return [method.row | dict(zip(metrics, row, strict=True)) for method, row in zip(methods, texts, strict=True)]


def read(path: Path) -> dict[tuple[str, str], Row]:
    """Read the rows of a table by data set and method; an absent file has none."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["set"], row["method"]): row for row in csv.DictReader(file)}


def complete(given: argparse.Namespace) -> dict[str, list[Row]]:
    """Score what is missing in the table, and return the rows of each data set."""
    kept, rows = read(given.output), {}
    heading = [*KEYS, *shown_metrics("")]
    for name, task in TASKS.items():
        pairs = find_pairs(given.data / name, task, "val")
        methods = [*methods_of(name, task, pairs, given)]
        missing = [
            method for method in methods if not method.row.items() <= kept.get((name, method.row["method"]), {}).items()
        ]
        if missing:
            kept |= {(name, row["method"]): row for row in score(missing, pairs, task)}
            write_atomically(given.output, csv_text(heading, ([row[key] for key in heading] for row in kept.values())))
        rows[name] = [kept[name, method.row["method"]] for method in methods]
    return rows


def numbers(rows: Sequence[Row], metrics: Sequence[str]) -> np.ndarray:
    """Return the scores of the rows, (rows, metrics)."""
    return np.array([[float(row[metric]) for metric in metrics] for row in rows])


def mean_ranks(rows: Sequence[Row]) -> dict[str, float]:
    """Rank the methods of one data set by the ruler of its task."""
    ruler = ruler_of(TASKS[rows[0]["set"]])
    means = np.nanmean(ranks(numbers(rows, ruler), ruler), axis=1)
    return {row["method"]: rank for row, rank in zip(rows, means.tolist(), strict=True)}


def group_table(names: Sequence[str], rows: dict[str, list[Row]]) -> list[list[str]]:
    """Lay out the mean rank of each method on each data set and over all of them, the best first."""
    of_sets = [mean_ranks(rows[name]) for name in names]
    kinds = {row["method"]: row["kind"] for name in names for row in rows[name]}
    means = {method: float(np.mean([by.get(method, np.nan) for by in of_sets])) for method in kinds}
    lines = [["method", "kind", *names, *(["mean"] if len(names) > 1 else [])]]
    for method in sorted(means, key=lambda method: (np.isnan(means[method]), means[method])):
        places = [by.get(method, np.nan) for by in of_sets] + ([means[method]] if len(names) > 1 else [])
        lines.append([method, kinds[method], *("" if np.isnan(place) else f"{place:.2f}" for place in places)])
    return lines


def set_table(name: str, rows: Sequence[Row]) -> list[list[str]]:
    """Lay out the means of all metrics on one data set."""
    metrics, places = shown_metrics(TASKS[name]), mean_ranks(rows)
    lines = [["method", *metrics, "rank"]]
    for row in sorted(rows, key=lambda row: places[row["method"]]):
        lines.append(
            [row["method"], *(f"{float(row[metric]):.4g}" for metric in metrics), f"{places[row['method']]:.2f}"]
        )
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{'---|' * len(lines[0])}", *body, ""])


def check(rows: dict[str, list[Row]], reference: Path) -> None:
    """Print by how much the scores differ from those of a table of the same methods."""
    with reference.open(encoding="utf-8", newline="") as file:
        known = {(row["dataset"], row["method"]): row for row in csv.DictReader(file)}
    largest: dict[str, dict[str, tuple[float, str]]] = {}
    for row in (row for of_set in rows.values() for row in of_set):
        other = known.get((row["set"], row["method"]), {})
        for metric in shown_metrics(""):
            if (text := other.get(metric.replace("MEF-SSIM", "MEFSSIM"))) is not None:
                difference = abs(float(row[metric]) - float(text)), f"{row['method']} on {row['set']}"
                of_kind = largest.setdefault(row["kind"], {})
                of_kind[metric] = max(of_kind.get(metric, difference), difference)
    for kind, metrics in largest.items():
        print(f"largest differences from {reference.name}, {kind}:")
        for metric, (difference, place) in metrics.items():
            print(f"  {metric} {difference:.5f} ({place})")


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--peers", type=Path, required=True, help="folder of fused pictures, SET/METHOD/NAME.png")
    parser.add_argument("--network", nargs="*", action="extend", default=[], help="shipped names or run folders")
    parser.add_argument("--untrained", action="store_true", help="score the networks with fresh weights too")
    parser.add_argument("--output", type=Path, default=RESULT, help="table of all scores, .csv")
    parser.add_argument("--reference", type=Path, help="table of the same methods to compare scores with")
    given = parser.parse_args()
    rows = complete(given)
    tables = [f"## {group}\n\n{markdown(group_table([*sets], rows))}" for group, sets in GROUPS.items()]
    print("\n".join(tables))
    means = [f"## {name}\n\n{markdown(set_table(name, of_set))}" for name, of_set in rows.items()]
    rulers = [f"- {group}: {', '.join(ruler_of(next(iter(sets.values()))))}" for group, sets in GROUPS.items()]
    title = "# Mean ranks on validation pairs, 1 is best"
    write_atomically(given.output.with_suffix(".md"), "\n".join([title, "", *rulers, "", *tables, *means]))
    if given.reference:
        check(rows, given.reference)


if __name__ == "__main__":
    main()
