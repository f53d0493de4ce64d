"""Adaptation to each task from a meta-initialisation, from pooled pre-training of equal cost and from random weights.

Run: python -m benchmarks.adaptation DIR PART... (from the root of the repository, with timfuse installed; DIR holds
the folders that configs/meta-init.yaml names). Parts: main (3 seeds; multi-focus is held out), left-out (each other
task held out in turn, trained for a sixth of the steps), algorithms (all five, of the same small cost). Trainings are
kept in runs/adaptation, so that a stopped benchmark goes on where it was; tables go to benchmarks/results.

All adapt by Adam on the same support batches, new crops of the same 4 pairs in every step, and are scored on the same
crops of validation pairs. The meta-initialisation brings its own learning rates. The others get the learning rate of a
grid (one for all layers and tasks) with the lowest mean loss over tasks and seeds: pooled pre-training one for each
number of steps that it is scored after, random weights that for 100 steps.
"""

import csv
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from timfuse.genotypes import load_genotype
from timfuse.meta_init import MetaInitConfig, meta_initialise
from timfuse.meta_init.episodes import EpisodeStream
from timfuse.meta_init.rates import adaptation_of, adapting_layers, load_rates
from timfuse.meta_init.tasks import open_tasks
from timfuse.meta_init.validation import Curve, Trial, adaptation_curve, make_trials
from timfuse.operators import build_network
from timfuse.runtime.config import load_config
from timfuse.runtime.weights import load_into

SEEDS, EPISODES = 3, 4
STEPS = (0, 1, 5, 20, 100)
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
FRESH_RATES = (1e-3, 2e-3, 5e-3)
SMALL = 6  # the fraction of steps of a small training
RUNS, RESULTS = Path("runs/adaptation"), Path(__file__).parent / "results"
# Network passes of one episode with k support batches: a pass is one forward and one backward, as is half of a Hessian
# product, of which iMAML takes 5 over all support batches.
PASSES: dict[str, Callable[[int], float]] = {
    "fomaml": lambda k: k + 1,
    "reptile": lambda k: k + 0.5,
    "maml": lambda k: 2 * k + 2,
    "anil": lambda k: 2 * k + 2,
    "imaml": lambda k: 2 * k + 1 + 5 * 2 * k,
}

Scores = dict[str, list[Curve]]  # by task, the curve of each seed


def configure(data: Path, name: str, seed: int, settings: Sequence[str]) -> MetaInitConfig:
    """Make the config of one training."""
    places = [f"data.root={data}", f"run={RUNS / name}-{seed}", f"seed={seed}"]
    return load_config(MetaInitConfig, Path("meta-init"), [*places, *settings])


def passes(config: MetaInitConfig) -> int:
    """Count the network passes for each task of a training."""
    meta, cost = config.meta, PASSES[config.meta.algorithm]
    stream = EpisodeStream([], support=1, query=1, steps=config.inner.steps, crop=16, seed=config.seed)
    return round(meta.pretrain + sum(cost(stream.length(step)) for step in range(meta.pretrain, meta.all_steps)))


def pooled(config: MetaInitConfig) -> list[str]:
    """Say how to train without episodes, by as many passes."""
    count = passes(config)
    return ["inner.steps=0", "meta.pretrain=0", f"meta.steps={count}", f"meta.validate_every={count // 10}"]


def small(data: Path, settings: Sequence[str], algorithm: str = "") -> list[str]:
    """Say how to train for a fraction of the passes; another algorithm than the config's gets the same number."""
    meta = configure(data, "", 0, settings).meta
    own = algorithm or meta.algorithm
    every = [f"meta.pretrain={meta.pretrain // SMALL}", f"meta.algorithm={own}"]
    whole = passes(configure(data, "", 0, [*settings, "meta.pretrain=0", f"meta.steps={meta.steps // SMALL}"]))
    mean = (
        passes(configure(data, "", 0, [*settings, "meta.pretrain=0", "meta.steps=200", f"meta.algorithm={own}"])) / 200
    )
    steps = max(30, round(whole / mean))
    return [*settings, *every, f"meta.steps={steps}", "meta.warmup=20", f"meta.validate_every={max(10, steps // 4)}"]


def adapt(
    config: MetaInitConfig, trials: Sequence[Trial], rate: float | None, *, fresh: bool = False
) -> dict[str, Curve]:
    """Score the adaptation to every task; without a rate, by the initialisation's own."""
    torch.manual_seed(config.seed)
    network = build_network(load_genotype(config.genotype))
    if not fresh:
        load_into(network, config.run / "weights.safetensors")
    layers = adapting_layers(network, config)
    rates = load_rates(config.run, layers) if rate is None else torch.full((len(layers),), rate)
    adaptation = adaptation_of(layers, rates, config.inner)
    return {trial.task.name: adaptation_curve(network, adaptation, trial, STEPS) for trial in trials}


def trials_of(config: MetaInitConfig) -> list[Trial]:
    """Cut the batches of the trials, which no training has seen."""
    tasks = open_tasks(config.data, config.used_tasks, config.seed)
    return make_trials(
        tasks, config.data, steps=STEPS[-1], episodes=EPISODES, seed=1000 + config.seed, device=torch.device("cpu")
    )


def mean_of(curves: Sequence[dict[str, Curve]], count: int) -> float:
    """Average over seeds and tasks the loss after so many steps."""
    return statistics.fmean(curve[count] for row in curves for curve in row.values())


def compare(data: Path, name: str, seeds: int, settings: Sequence[str]) -> dict[str, Scores]:
    """Train and score the three starts."""
    configs = [configure(data, f"{name}-meta", seed, settings) for seed in range(seeds)]
    baselines = [
        configure(data, f"{name}-pooled", seed, [*settings, *pooled(config)]) for seed, config in enumerate(configs)
    ]
    for config in (*configs, *baselines):
        meta_initialise(config, resume=True)
    trials = [trials_of(config) for config in configs]
    rows: dict[str, list[dict[str, Curve]]] = {
        "meta-initialisation": [adapt(config, trial, None) for config, trial in zip(configs, trials, strict=True)]
    }
    grid = {
        rate: [adapt(config, trial, rate) for config, trial in zip(baselines, trials, strict=True)] for rate in RATES
    }
    best = {count: min(RATES, key=lambda rate: mean_of(grid[rate], count)) for count in STEPS}
    rows["pooled"] = [
        {task: {count: grid[best[count]][seed][task][count] for count in STEPS} for task in grid[RATES[0]][seed]}
        for seed in range(seeds)
    ]
    fresh = {
        rate: [adapt(config, trial, rate, fresh=True) for config, trial in zip(configs, trials, strict=True)]
        for rate in FRESH_RATES
    }
    rows["random weights"] = fresh[min(FRESH_RATES, key=lambda rate: mean_of(fresh[rate], STEPS[-1]))]
    print(f"pooled: learning rates {best}")
    return {method: {task: [row[task] for row in seeded] for task in seeded[0]} for method, seeded in rows.items()}


def table(methods: dict[str, Scores], tasks: Sequence[str]) -> list[list[str]]:
    """Lay out mean and standard deviation over seeds, a line for each task and method."""
    lines = [["task", "start", *(f"{count} steps" for count in STEPS)]]
    for task in tasks:
        for method, scores in methods.items():
            cells = []
            for count in STEPS:
                values = [curve[count] for curve in scores[task]]
                spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                cells.append(f"{statistics.fmean(values):.4f}{spread}")
            lines.append([task, method, *cells])
    return lines


def verdicts(methods: dict[str, Scores], tasks: Sequence[str]) -> list[str]:
    """Compare the means as the targets do."""

    def after(method: str, task: str, count: int) -> float:
        return statistics.fmean(curve[count] for curve in methods[method][task])

    own, pooled, fresh = "meta-initialisation", "pooled", "random weights"
    below = [task for task in tasks if after(own, task, 5) < after(fresh, task, 100)]
    lines = [f"meta-initialisation after 5 steps below random weights after 100: {len(below)} of {len(tasks)} tasks"]
    for count in (1, 5, 20):
        at = [task for task in tasks if after(own, task, count) <= after(pooled, task, count)]
        lines.append(f"at or below pooled after {count}: {len(at)} of {len(tasks)} tasks ({', '.join(at)})")
    return lines


def write(name: str, title: str, lines: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """Print a table and keep it as Markdown and CSV."""
    RESULTS.mkdir(exist_ok=True)
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    rule = f"|{'---|' * len(lines[0])}"
    text = "\n".join(
        [f"# {title}", "", f"`python -m {' '.join(['benchmarks.adaptation', 'DIR', name])}`", "", head, rule]
    )
    text = "\n".join([text, *body, "", *(f"- {note}" for note in notes), ""])
    (RESULTS / f"adaptation-{name}.md").write_text(text, encoding="utf-8")
    with (RESULTS / f"adaptation-{name}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)
    print(text)


def main_part(data: Path) -> None:
    """Print the table of all tasks, multi-focus held out."""
    methods = compare(data, "main", SEEDS, [])
    tasks = list(methods["pooled"])
    title = f"Validation loss after steps of adaptation, {SEEDS} seeds; multi-focus was never trained on"
    write("main", title, table(methods, tasks), verdicts(methods, tasks))


def left_out_part(data: Path) -> None:
    """Hold each other task out in turn, in small trainings."""
    lines: list[list[str]] = []
    notes = []
    for task, section in configure(data, "", 0, []).used_tasks.items():
        if section.weight:
            settings = small(data, [f"tasks.{task}.weight=0", "tasks.multi-focus.weight=1"])
            methods = compare(data, f"without-{task}", 1, settings)
            lines += table(methods, [task])[bool(lines) :]
            own, other = (methods[method][task][0][5] for method in ("meta-initialisation", "pooled"))
            notes.append(f"{task} held out: {own:.4f} against {other:.4f} after 5 steps")
    write("left-out", "Validation loss on a task that was held out, one seed, small trainings", lines, notes)


def algorithms_part(data: Path) -> None:
    """Compare the five algorithms at the same small number of passes."""
    methods: dict[str, Scores] = {}
    for algorithm in PASSES:
        config = configure(data, f"small-{algorithm}", 0, small(data, [], algorithm))
        meta_initialise(config, resume=True)
        methods[algorithm] = {task: [curve] for task, curve in adapt(config, trials_of(config), None).items()}
    lines = [["algorithm", "tasks", *(f"{count} steps" for count in STEPS)]]
    for algorithm, scores in methods.items():
        for label, tasks in (
            ("mean of those trained on", [t for t in scores if t != "multi-focus"]),
            ("multi-focus", ["multi-focus"]),
        ):
            means = [statistics.fmean(scores[task][0][count] for task in tasks) for count in STEPS]
            lines.append([algorithm, label, *(f"{mean:.4f}" for mean in means)])
    write("algorithms", "Validation loss after steps of adaptation, by algorithm, one seed, equal passes", lines, [])


if __name__ == "__main__":
    parts = {"main": main_part, "left-out": left_out_part, "algorithms": algorithms_part}
    for part in sys.argv[2:]:
        parts[part](Path(sys.argv[1]))
