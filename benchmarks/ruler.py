"""Where networks stand among published ones and methods without a network, by the ruler of each task.

    python -m benchmarks.ruler --data DATA --peers PEERS --network ivif ivif-fast     # from the root of the repository

DATA holds the data sets of `GROUPS`, of which the validation pairs are scored, and each PEERS the pictures that other
methods fused of them, as SET/METHOD/NAME.png; `benchmarks.peers` makes some. A network, a shipped name or a run folder,
is scored on the sets of its task; with --untrained, it is scored with fresh weights too. Scores are kept in OUTPUT, so
that a second call scores only what is missing there; networks are scored again when their files have changed. The
table of mean ranks is printed, and kept beside it with the means of each set; a lead has an interval by bootstrap over
the pairs.
"""

import argparse
import csv
import hashlib
import warnings
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
KEYS = ("set", "method", "kind", "files")
RESAMPLES = 1000
OTHERS = ("published", "trivial")

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

    def method(label: str, kind: str, picture: Callable[[int, Tensor, Tensor], Tensor], files: str = "") -> Method:
        return Method(dict(zip(KEYS, (name, label, kind, files), strict=True)), picture)

    folders = sorted(str(path) for peers in given.peers for path in (peers / name).glob("*/"))
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
def score(methods: Sequence[Method], pairs: Sequence[Pair], task: str) -> dict[str, list[Row]]:
    """Score methods on pairs, one row for each pair, by the name of the method."""
    metrics = shown_metrics(task)
    rows: dict[str, list[Row]] = {method.row["method"]: [] for method in methods}
    with Progress(len(pairs), methods[0].row["set"], unit="pairs") as progress:
        for index, pair in enumerate(pairs):
            first, second = map(grey, pair.read())
            unit = first.double() / 255, second.double() / 255
            pictures = torch.cat([method.picture(index, *unit) for method in methods])
            scores = fusion_metrics(pictures, first, second, metrics)
            for place, method in enumerate(methods):
                values = {metric: f"{scores[metric][place]:.6g}" for metric in metrics}
                rows[method.row["method"]].append(method.row | {"pair": pair.name} | values)
            progress.advance()
    return rows


def read(path: Path) -> dict[tuple[str, str], list[Row]]:
    """Read the rows of a table by data set and method; an absent file has none."""
    kept: dict[tuple[str, str], list[Row]] = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                kept.setdefault((row["set"], row["method"]), []).append(row)
    return kept


def is_complete(rows: Sequence[Row], method: Method, pairs: Sequence[Pair]) -> bool:
    """Tell whether the rows are those of a method, with its present files, on the pairs."""
    names = [row["pair"] for row in rows]
    return names == [pair.name for pair in pairs] and all(method.row.items() <= row.items() for row in rows)


def complete(given: argparse.Namespace) -> dict[str, list[list[Row]]]:
    """Score what is missing in the table, and return the rows of each data set and method."""
    kept, rows = read(given.output), {}
    heading = [*KEYS, "pair", *shown_metrics("")]
    for name, task in TASKS.items():
        pairs = find_pairs(given.data / name, task, "val")
        methods = [*methods_of(name, task, pairs, given)]
        missing = [
            method for method in methods if not is_complete(kept.get((name, method.row["method"]), []), method, pairs)
        ]
        if missing:
            kept |= {(name, method): scored for method, scored in score(missing, pairs, task).items()}
            lines = ([row[key] for key in heading] for of_method in kept.values() for row in of_method)
            write_atomically(given.output, csv_text(heading, lines))
        rows[name] = [kept[name, method.row["method"]] for method in methods]
    return rows


def numbers(rows: Sequence[Sequence[Row]], metrics: Sequence[str]) -> np.ndarray:
    """Return the scores of the methods, (methods, pairs, metrics)."""
    return np.array([[[float(row[metric]) for metric in metrics] for row in of_method] for of_method in rows])


def mean_ranks(values: np.ndarray, ruler: Sequence[str]) -> np.ndarray:
    """Rank methods by the means of their scores (methods, pairs, metrics) over the pairs for which there are some."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a metric may be undefined on all pairs that were drawn
        return np.asarray(np.nanmean(ranks(np.nanmean(values, axis=1), ruler), axis=1))


def names_of(rows: Sequence[Sequence[Row]]) -> list[str]:
    return [of_method[0]["method"] for of_method in rows]


def group_table(sets: dict[str, str], rows: dict[str, list[list[Row]]]) -> list[list[str]]:
    """Lay out the mean rank of each method on each data set and over all of them, the best first."""
    ranked: dict[str, dict[str, float]] = {}
    kinds = {of_method[0]["method"]: of_method[0]["kind"] for name in sets for of_method in rows[name]}
    for name, task in sets.items():
        ruler = ruler_of(task)
        for method, rank in zip(names_of(rows[name]), mean_ranks(numbers(rows[name], ruler), ruler), strict=True):
            ranked.setdefault(method, {})[name] = float(rank)
    several = len(sets) > 1
    lines = [["method", "kind", *sets, *(["mean"] if several else []), "among the others alone"]]
    for method in sorted(kinds, key=lambda method: (-len(ranked[method]), np.mean([*ranked[method].values()]))):
        of_sets = ranked[method]
        places = [f"{of_sets[name]:.2f}" if name in of_sets else "" for name in sets]
        if several:
            places.append(f"{np.mean([*of_sets.values()]):.2f}" if len(of_sets) == len(sets) else "")
        ahead = lead(method, [rows[name] for name in of_sets]) if kinds[method] == "network" else ""
        lines.append([method, kinds[method], *places, ahead])
    return lines


def lead(method: str, sets: Sequence[list[list[Row]]]) -> str:
    """Say which rank a network has among published and trivial methods alone, and its lead with an interval.

    Other networks of ours, of which a table may hold many, would take ranks from it, and add to the lead.
    """
    rulers = [ruler_of(TASKS[of_set[0][0]["set"]]) for of_set in sets]
    compared = [
        [of_method for of_method in of_set if of_method[0]["method"] == method or of_method[0]["kind"] in OTHERS]
        for of_set in sets
    ]
    common = set.intersection(*(set(names_of(of_set)) for of_set in compared))
    names = [name for name in names_of(compared[0]) if name in common]
    values = [numbers(of_set, ruler) for of_set, ruler in zip(compared, rulers, strict=True)]
    places = [[names_of(of_set).index(name) for name in names] for of_set in compared]

    def ranks_of(drawn: Sequence[np.ndarray]) -> np.ndarray:
        parts = zip(drawn, rulers, places, strict=True)
        return np.mean([mean_ranks(of_set, ruler)[place] for of_set, ruler, place in parts], axis=0)

    own, means = names.index(method), ranks_of(values)
    best = min((index for index in range(len(names)) if index != own), key=lambda index: means[index])
    draw, leads = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = ranks_of([of_set[:, draw.integers(of_set.shape[1], size=of_set.shape[1])] for of_set in values])
        leads.append(drawn[best] - drawn[own])
    low, high = np.percentile(leads, (2.5, 97.5))
    return f"{means[own]:.2f}; ahead of {names[best]} by {means[best] - means[own]:.2f} ({low:.2f} to {high:.2f})"


def set_table(name: str, rows: Sequence[Sequence[Row]]) -> list[list[str]]:
    """Lay out the means of all metrics on one data set."""
    metrics, ruler = shown_metrics(TASKS[name]), ruler_of(TASKS[name])
    places = mean_ranks(numbers(rows, ruler), ruler)
    means = np.nanmean(numbers(rows, metrics), axis=1)
    lines = [["method", *metrics, "rank"]]
    for index in np.argsort(places, kind="stable"):
        cells = [f"{value:.4g}" for value in means[index]]
        lines.append([names_of(rows)[index], *cells, f"{places[index]:.2f}"])
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{'---|' * len(lines[0])}", *body, ""])


def check(rows: dict[str, list[list[Row]]], reference: Path) -> None:
    """Print by how much the scores differ from those of a table of the same methods."""
    with reference.open(encoding="utf-8", newline="") as file:
        known = {(row["dataset"], row["method"]): row for row in csv.DictReader(file)}
    largest: dict[str, dict[str, tuple[float, str]]] = {}
    for of_method in (of_method for of_set in rows.values() for of_method in of_set):
        row = of_method[0]
        other = known.get((row["set"], row["method"]), {})
        for metric in shown_metrics(""):
            if (text := other.get(metric.replace("MEF-SSIM", "MEFSSIM"))) is not None:
                mean = np.nanmean([float(of_pair[metric]) for of_pair in of_method])
                difference = abs(float(mean) - float(text)), f"{row['method']} on {row['set']}"
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
    parser.add_argument(
        "--peers", type=Path, nargs="+", required=True, help="folders of fused pictures, SET/METHOD/NAME.png"
    )
    parser.add_argument("--network", nargs="*", action="extend", default=[], help="shipped names or run folders")
    parser.add_argument("--untrained", action="store_true", help="score the networks with fresh weights too")
    parser.add_argument("--output", type=Path, default=RESULT, help="table of all scores, .csv")
    parser.add_argument("--reference", type=Path, help="table of the same methods to compare scores with")
    given = parser.parse_args()
    rows = complete(given)
    tables = [f"## {group}\n\n{markdown(group_table(sets, rows))}" for group, sets in GROUPS.items()]
    print("\n".join(tables))
    means = [f"## {name}\n\n{markdown(set_table(name, of_set))}" for name, of_set in rows.items()]
    rulers = [f"- {group}: {', '.join(ruler_of(next(iter(sets.values()))))}" for group, sets in GROUPS.items()]
    title = "# Mean ranks on validation pairs, 1 is best"
    write_atomically(given.output.with_suffix(".md"), "\n".join([title, "", *rulers, "", *tables, *means]))
    if given.reference:
        check(rows, given.reference)


if __name__ == "__main__":
    main()
