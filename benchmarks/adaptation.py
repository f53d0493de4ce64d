"""Adaptation to each fusion task from several starts, none of which has seen pairs of the task.

    python -m benchmarks.adaptation RUN --data DATA [--only TASK ...]     # from the root, with timfuse installed

DATA holds the data sets of `SETS`, with train.txt and val.txt. For each task, left out of it, there is a plain training
on the other five, the base, from which two trainings go on with as many network passes: `pooled` in the same way, and
`episodes` with FOMAML. Both hold out some training pairs to validate on. Then the starts are adapted to the task on a
few of its training pairs, by up to 100 steps with new crops of these pairs, the same for all starts. As `timfuse adapt`
does, they keep the weights that do best on pairs held out, here four more training pairs; then they are scored on crops
of the validation pairs, which nothing else has used:

- pooled, episodes: as above;
- pooled, all tasks: the same training with the task among its six;
- another task's network: of the shipped networks of other tasks the one with the least loss on training pairs;
- random weights, by the rate of `RATES` with the least loss on other training pairs in 100 steps.

`episodes` has the rates that it has learnt, the other trained starts have `RATE`. For comparison there are the task's
own shipped network and methods without a network. `--usual` adapts another task's network alone, with the settings of
`timfuse adapt`, and leaves the other rows of the table as they are.

Finished parts are not repeated; two calls with different tasks can share RUN. Values are kept crop by crop in
benchmarks/results/adaptation.csv; adaptation.md compares the starts.
"""

import argparse
import copy
import csv
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.headroom import central_crop
from benchmarks.search_quality import link_training_pairs
from timfuse.bilevel import Adaptation, adapt
from timfuse.data import PairBatch
from timfuse.data.batch_stream import cut_crops
from timfuse.data.splits import spread
from timfuse.genotypes import TASKS, load_genotype
from timfuse.meta_init import MetaInitConfig, meta_initialise
from timfuse.meta_init.meta_init_config import TaskSection
from timfuse.meta_init.meta_tasks import Task
from timfuse.meta_init.rates import adaptation_of, adapting_layers, load_rates
from timfuse.meta_init.trials import pair_loss
from timfuse.objectives.metrics import fusion_metrics, is_better, ruler_of
from timfuse.objectives.trivial_fusion import TRIVIAL
from timfuse.operators import build_network, load_network_folder
from timfuse.operators.network_folders import find_network
from timfuse.runtime.config import load_config
from timfuse.runtime.csv_text import csv_text
from timfuse.runtime.files import write_atomically
from timfuse.runtime.run_files import CONFIG_FILE, PICTURES_FOLDER
from timfuse.runtime.seeds import derive_seed

RESULTS = Path(__file__).parent / "results"
TABLE, REPORT = RESULTS / "adaptation.csv", RESULTS / "adaptation.md"
SETS: dict[str, tuple[str, ...]] = {
    "infrared-visible": ("roadscene", "msrs", "tno"),
    "mri-ct": ("medical/mri-ct",),
    "mri-pet": ("medical/mri-pet",),
    "mri-spect": ("medical/mri-spect",),
    "multi-exposure": ("mef",),
    "multi-focus": ("mff",),
}
OWN = {task: task for task in TASKS} | {"infrared-visible": "ivif-fast"}  # the shipped network of each task
POOLED, EPISODES, ALL, OTHER, RANDOM = STARTS = (
    "pooled",
    "episodes",
    "pooled, all tasks",
    "another task's network",
    "random weights",
)
NETWORK = "the task's network"
USUAL = "as timfuse adapt"  # from another task's network
STEPS = (0, 1, 5, 20, 100)
# All starts adapt on the first number of pairs, the pooled one and random weights on the others, too.
PAIRS = (5, 1, 20)
SEEDS = range(3)
RATE, RATES = 5e-4, (1e-3, 2e-3, 4e-3, 8e-3)
HELD_OUT = 4  # training pairs
COMPARED = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 100)  # numbers of steps after which the weights may be kept
BATCH, CROP = 4, 128  # of a step
USUAL_PAIRS, USUAL_BATCH, USUAL_RATE = 20, 12, 1e-3
SCORED, SIDE = 8, 160  # crops of validation pairs of each data set, and their height and width
KEYS = ("task", "start", "pairs", "seed", "steps", "crop")
RESAMPLES = 2000
CPU = torch.device("cpu")
Row = dict[str, str]
Fuse = Callable[[Tensor, Tensor], Tensor]


class Part(NamedTuple):
    """What a training is: its name and its settings beside those that all share."""

    name: str
    settings: tuple[str, ...]


def parts(run: Path, left_out: str) -> tuple[Part, Part, Part]:
    """Describe the trainings of a base and of the two starts that go on from it."""
    base = run / f"base-{left_out}"
    episodes = ("meta.algorithm=fomaml", "inner.learning_rate=7e-4")
    plain, goes_on = ("meta.algorithm=pooled",), (f"init={base}", "meta.learning_rate=1.5e-3")
    return (
        Part("base", (*plain, "meta.steps=2000", "meta.validate_every=1000", "meta.learning_rate=2e-3")),
        Part("pooled", (*plain, *goes_on, "meta.steps=600", "meta.validate_every=200")),
        # An episode of 1 to 5 steps has 4 passes on average.
        Part("episodes", (*episodes, *goes_on, "meta.steps=150", "meta.validate_every=50")),
    )


def train_starts(run: Path, data: Path, left_out: str) -> None:
    """Train the starts without a task, or with all for "none", unless that has been done."""
    sets = {task: [Path(name).name for name in names] for task, names in SETS.items()}
    shared = [f"data.root={data}", "device=cpu", "data.query=2", "data.support=2", "meta.warmup=50"]
    shared += [f"tasks.{task}.root=[{', '.join(names)}]" for task, names in sets.items()]
    shared += [f"tasks.{task}.weight={int(task != left_out)}" for task in SETS]
    for name, settings in parts(run, left_out):
        folder = run / f"{name}-{left_out}"
        if not (folder / PICTURES_FOLDER / "adaptation.svg").is_file():  # which is drawn at the end
            config = load_config(MetaInitConfig, Path("meta-init"), [*shared, *settings, f"run={folder}"])
            meta_initialise(config, resume=(folder / CONFIG_FILE).is_file())


class Crops(NamedTuple):
    """The crops that score a task: their names and the two sources, each (1, 1, H, W)."""

    names: list[str]
    pairs: list[tuple[Tensor, Tensor]]


def validation_crops(task: Task, positions: Sequence[int]) -> Crops:
    """Cut the centres of pairs out."""
    names = [task.source.names[index] for index in positions]
    cut = [central_crop(task.source[index], SIDE) for index in positions]
    return Crops(names, [(images[:1, None], images[1:, None]) for images in cut])


@torch.no_grad()
def scored(fuse: Fuse, task: Task, crops: Crops) -> Iterator[Row]:
    """Score the fusion of each crop by the loss of the task and by its metrics."""
    metrics = ruler_of(task.name)
    for name, (first, second) in zip(crops.names, crops.pairs, strict=True):
        fused = fuse(first, second)
        values = fusion_metrics(
            *((image.clamp(0, 1) * 255).round().byte() for image in (fused, first, second)), metrics
        )
        loss = task.loss(fused, first, second).item()
        yield {
            "crop": name,
            "loss": f"{loss:.4f}",
            "metrics": " ".join(f"{values[each].item():.4f}" for each in metrics),
        }


@torch.no_grad()
def mean_loss(fuse: Fuse, task: Task, crops: Crops) -> float:
    """Average the loss over crops."""
    return float(np.mean([task.loss(fuse(*pair), *pair).item() for pair in crops.pairs]))


def support(task: Task, positions: Sequence[int], seed: int, batch: int = BATCH) -> list[PairBatch]:
    """Cut a batch for each step of an adaptation."""
    rng = np.random.default_rng(derive_seed(seed, "adaptation", task.name, len(positions)))
    draws = [rng.choice(positions, batch, replace=len(positions) < batch).tolist() for _ in range(STEPS[-1])]
    return [cut_crops(task.source, drawn, CROP, rng) for drawn in draws]


def adapted(
    network: nn.Module, rates: Adaptation, task: Task, batches: Sequence[PairBatch], held_out: Crops
) -> Iterator[tuple[int, nn.Module]]:
    """Adapt a network in place; yield each number of steps of `STEPS`, and the best network up to there."""
    optimizer, best, least, done = rates.build_optimizer(), copy.deepcopy(network), math.inf, 0
    for count in sorted({*STEPS, *COMPARED}):
        network.train()
        adapt(network, partial(pair_loss, task.loss), batches[done:count], optimizer)
        done, loss = count, mean_loss(network.eval(), task, held_out)
        if loss < least:
            least = loss
            best.load_state_dict(network.state_dict())
        if count in STEPS:
            yield count, best.eval()


def plain(network: nn.Module, rate: float) -> Adaptation:
    """Adapt all layers by Adam at one rate."""
    layers = adapting_layers(network, None)
    return adaptation_of(layers, torch.full((len(layers),), rate), "adam")


def fresh(seed: int) -> nn.Module:
    """Build the network of the starts with random weights."""
    torch.manual_seed(seed)
    return build_network(load_genotype("ivif-fast"))


def started(run: Path, task: str, start: str, seed: int, chosen: dict[str, object]) -> tuple[nn.Module, Adaptation]:
    """Build the network of a start, and say how it adapts."""
    if start == RANDOM:
        network = fresh(seed)
        return network, plain(network, float(str(chosen["rate"])))
    if start in (OTHER, USUAL):
        network = load_network_folder(find_network(str(chosen["network"])))[1]
        return network, plain(network, USUAL_RATE if start == USUAL else RATE)
    name, _, everything = start.partition(", ")
    folder = run / f"{name}-{'none' if everything else task}"
    network = load_network_folder(folder)[1]
    if name == EPISODES:
        layers = adapting_layers(network, None)
        return network, adaptation_of(layers, load_rates(folder, layers), "adam")
    return network, plain(network, RATE)


def nearest_network(task: Task, crops: Crops) -> str:
    """Choose among the shipped networks of other tasks."""
    shipped = [name for each, name in OWN.items() if each != task.name]
    networks = {name: load_network_folder(find_network(name))[1].eval() for name in shipped}
    zero_shot = {name: mean_loss(network, task, crops) for name, network in networks.items()}
    return min(zero_shot, key=zero_shot.__getitem__)


def choose(task: Task, *, usual: bool) -> dict[str, object]:
    """Choose another task's network, and the rate for random weights, on training pairs alone."""
    training = spread(sorted(task.training), 16)
    ours, others = training[::2], training[1::2]
    crops = validation_crops(task, others)
    network = nearest_network(task, crops)
    if usual:
        return {"network": network}
    losses = {}
    for rate in RATES:
        fresh_one = fresh(100)
        *_, (_, best) = adapted(fresh_one, plain(fresh_one, rate), task, support(task, ours[:5], 100), crops)
        losses[rate] = mean_loss(best, task, crops)
    return {"rate": min(losses, key=losses.__getitem__), "network": network}


def score_task(run: Path, data: Path, name: str, pairs: int, *, usual: bool = False) -> None:
    """Adapt starts to a task on so many pairs and score them; write the rows, unless they are there."""
    file = run / f"rows-{name}-{'usual' if usual else pairs}.csv"
    if file.is_file():
        return
    config = MetaInitConfig(data={"root": data})
    task = config.data.open_task(name, TaskSection(root=tuple(map(Path, SETS[name]))), 0)
    crops = validation_crops(task, spread(task.validation, SCORED * len(SETS[name])))
    chosen = choose(task, usual=usual)
    print(name, pairs, chosen, flush=True)
    rows: list[Row] = []

    def add(start: str, seed: int, steps: int, fuse: Fuse) -> None:
        beginning = dict(zip(KEYS, (name, start, str(pairs), str(seed), str(steps)), strict=False))
        rows.extend(beginning | row for row in scored(fuse, task, crops))

    if not usual:
        for trivial, fuse in TRIVIAL.items():
            add(trivial, 0, 0, fuse)
        add(NETWORK, 0, 0, load_network_folder(find_network(OWN[name]))[1].eval())
    for start, seed in product([USUAL] if usual else STARTS, SEEDS):
        if usual or pairs == PAIRS[0] or start in (POOLED, RANDOM):
            training = np.random.default_rng(derive_seed(seed, "pairs", name)).permutation(sorted(task.training))
            network, rates = started(run, name, start, seed, chosen)
            began = time.monotonic()
            held_out = validation_crops(task, training[-HELD_OUT:].tolist())
            ours = training[: min(pairs, len(training) - HELD_OUT)].tolist()
            batches = support(task, ours, seed, USUAL_BATCH if usual else BATCH)
            for steps, best in adapted(network, rates, task, batches, held_out):
                add(start, seed, steps, best)
            print(name, pairs, start, seed, f"{time.monotonic() - began:.0f} s", flush=True)
    write_atomically(file, csv_text(list(rows[0]), [list(row.values()) for row in rows]))


def read(files: Sequence[Path]) -> list[Row]:
    """Read the rows of files."""
    rows = []
    for path in filter(Path.is_file, files):
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    return rows


class Values:
    """The losses and metrics of a task by start, number of pairs and steps; each is (seeds, crops)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.task = rows[0]["task"]
        self._losses: dict[tuple[str, int, int], dict[tuple[str, str], float]] = {}
        self._metrics: dict[tuple[str, int, int], list[list[float]]] = {}
        for row in rows:
            key = row["start"], int(row["pairs"]), int(row["steps"])
            self._losses.setdefault(key, {})[row["seed"], row["crop"]] = float(row["loss"])
            self._metrics.setdefault(key, []).append([float(value) for value in row["metrics"].split()])

    def loss(self, start: str, steps: int = 0, pairs: int = PAIRS[0]) -> NDArray[np.float64]:
        """Return the losses, (seeds, crops)."""
        values = self._losses[start, pairs, steps]
        seeds = len({seed for seed, _ in values})
        return np.array(list(values.values())).reshape(seeds, -1)

    def metrics(self, start: str, steps: int = 0, pairs: int = PAIRS[0]) -> NDArray[np.float64]:
        """Return the mean of each metric."""
        return np.array(self._metrics[start, pairs, steps]).mean(0)

    def has(self, start: str, pairs: int) -> bool:
        """Tell whether a start was adapted on so many pairs."""
        return (start, pairs, 0) in self._losses

    def best_trivial(self) -> str:
        """Name the method without a network that has the least loss."""
        return min(TRIVIAL, key=lambda name: float(self.loss(name).mean()))

    def captured(self, start: str, steps: int, pairs: int) -> str:
        """Write how much a start has of the lead of the task's network over the best method without one."""
        best, network = self.loss(self.best_trivial())[0], self.loss(NETWORK)[0]
        ours = self.loss(start, steps, pairs)

        def part(drawn: NDArray[np.int64], seeds: NDArray[np.int64]) -> float:
            return float(
                (best[drawn] - ours[np.ix_(seeds, drawn)].mean(0)).sum() / (best[drawn] - network[drawn]).sum()
            )

        everything = np.arange(best.size), np.arange(len(ours))
        low, high = _interval(part, best.size, len(ours))
        return f"{100 * part(*everything):.0f} % ({100 * low:.0f} to {100 * high:.0f})"

    def difference(self, other: str, steps: int, pairs: int) -> str:
        """Write the loss of `pooled` less that of another start, with its interval, and the metrics that are better."""
        paired = self.loss(POOLED, steps, pairs) - self.loss(other, steps, pairs)
        low, high = _interval(
            lambda drawn, seeds: float(paired[np.ix_(seeds, drawn)].mean()), paired.shape[1], len(paired)
        )
        names = ruler_of(self.task)
        both = np.stack([self.metrics(start, steps, pairs) for start in (POOLED, other)])
        ahead = int(is_better(both, names)[0, 1].sum())
        return f"{paired.mean():+.3f} ({low:+.3f} to {high:+.3f}), {ahead}/{len(names)}"


def _interval(
    statistic: Callable[[NDArray[np.int64], NDArray[np.int64]], float], crops: int, seeds: int
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic by bootstrap over crops and seeds."""
    rng = np.random.default_rng(0)
    drawn = [statistic(rng.integers(crops, size=crops), rng.integers(seeds, size=seeds)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def report(rows: Sequence[Row]) -> str:
    """Compare the starts task by task."""
    tasks = [
        Values([row for row in rows if row["task"] == task]) for task in dict.fromkeys(row["task"] for row in rows)
    ]
    counts = [f"{count} steps" for count in STEPS]
    first = PAIRS[0]
    lines = [
        "# Adaptation to a task that the start has not seen",
        "",
        "`python -m benchmarks.adaptation RUN --data DATA`; one training of each start, adaptations with 3 seeds of"
        " pairs, crops and random weights. Intervals of 95 % by bootstrap over crops and seeds.",
        "",
        f"## Loss of each start, {first} pairs",
        "",
        f"| task | start | {' | '.join(counts)} |",
        f"|---|---|{'---:|' * len(STEPS)}",
    ]
    for values in tasks:
        for start in STARTS:
            means = [f"{values.loss(start, steps, first).mean():.3f}" for steps in STEPS]
            lines.append(f"| {values.task} | {start} | {' | '.join(means)} |")
        for name in (values.best_trivial(), NETWORK):
            lines.append(f"| {values.task} | {name} | {values.loss(name).mean():.3f} |{' |' * (len(STEPS) - 1)}")
    lines += [
        "",
        f"## How much of what the task's own network gains over the best method without a network, {first} pairs",
        "",
        f"| task | {' | '.join(f'{start}, 100 steps' for start in STARTS)} |",
        f"|---|{'---:|' * len(STARTS)}",
        *(
            f"| {values.task} | {' | '.join(values.captured(start, STEPS[-1], first) for start in STARTS)} |"
            for values in tasks
        ),
    ]
    if all(values.has(USUAL, USUAL_PAIRS) for values in tasks):
        lines += [
            "",
            f"## The same as `timfuse adapt` does it: another task's network, {USUAL_PAIRS} pairs, {USUAL_BATCH} crops",
            "",
            f"| task | {' | '.join(counts)} |",
            f"|---|{'---:|' * len(STEPS)}",
            *(
                f"| {values.task} | {' | '.join(values.captured(USUAL, steps, USUAL_PAIRS) for steps in STEPS)} |"
                for values in tasks
            ),
        ]
    for other in STARTS[1:]:
        lines += _differences(tasks, other, first)
    for pairs in PAIRS[1:]:
        lines += _differences(tasks, RANDOM, pairs)
    return "\n".join([*lines, ""])


def _differences(tasks: Sequence[Values], other: str, pairs: int) -> list[str]:
    """Compare the pooled start with another."""
    return [
        "",
        f"## Loss of `pooled` less that of `{other}`, {pairs} pair{'s' if pairs > 1 else ''}; metrics that are better",
        "",
        f"| task | {' | '.join(f'{count} steps' for count in STEPS)} |",
        f"|---|{'---:|' * len(STEPS)}",
        *(
            f"| {values.task} | {' | '.join(values.difference(other, steps, pairs) for steps in STEPS)} |"
            for values in tasks
            if values.has(other, pairs)
        ),
    ]


def main() -> None:
    """Train, score and report what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="without it, the table that is there is reported")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS), help="tasks")
    parser.add_argument("--pairs", nargs="+", type=int, choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--usual", action="store_true", help="only what `timfuse adapt` does")
    arguments = parser.parse_args()
    if arguments.run is not None and arguments.usual:
        for task in arguments.only:
            score_task(arguments.run, arguments.data, task, USUAL_PAIRS, usual=True)
        rows = [row for row in read([TABLE]) if row["start"] != USUAL]
        rows += read([arguments.run / f"rows-{task}-usual.csv" for task in SETS])
        write_atomically(TABLE, csv_text(list(rows[0]), [list(row.values()) for row in rows]))
    elif arguments.run is not None:
        training = arguments.run / "data"
        link_training_pairs([arguments.data / name for names in SETS.values() for name in names], training)
        for task in ("none", *arguments.only):
            train_starts(arguments.run, training, task)
        for pairs, task in product(arguments.pairs, arguments.only):
            score_task(arguments.run, arguments.data, task, pairs)
        rows = read([arguments.run / f"rows-{task}-{pairs}.csv" for pairs, task in product(PAIRS, SETS)])
        write_atomically(TABLE, csv_text(list(rows[0]), [list(row.values()) for row in rows]))
    text = report(read([TABLE]))
    write_atomically(REPORT, text)
    print(text)


if __name__ == "__main__":
    main()
