"""Adaptation to each task from a meta-initialisation, from pooled pre-training of equal cost and from random weights.

Run: python -m benchmarks.adaptation DIR PART... (from the root of the repository, with timfuse installed; DIR holds
the folders that configs/meta-init.yaml names). Parts: main (3 seeds; multi-focus is held out), left-out (each other
task held out in turn, in small trainings), algorithms (all five, small and of equal cost). Trainings are kept in
runs/adaptation, so that a stopped benchmark goes on where it was; tables go to benchmarks/results.

Both trained starts begin with the same plain training on all tasks at once, the base; then one goes on with episodes,
the other with plain training for as many network passes. All adapt on the same support batches, new crops of the same
4 training pairs in every step, and are scored on the same crops of validation pairs. The meta-initialisation brings its
learning rates. The others get an optimiser and one rate for all layers and tasks, those of a grid with the lowest mean
loss over the tasks: pooled pre-training over 1, 5 and 20 steps of all seeds, random weights after 100 of the first.
"""

import csv
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from timfuse.genotypes import load_genotype
from timfuse.meta_init import MetaInitConfig, meta_initialise
from timfuse.meta_init.episodes import EpisodeStream
from timfuse.meta_init.rates import adaptation_of, adapting_layers, load_rates
from timfuse.meta_init.trials import Curve, Trial, adaptation_curve, make_trials
from timfuse.operators import build_network
from timfuse.runtime.config import load_config
from timfuse.runtime.run_files import GENOTYPE_FILE
from timfuse.runtime.weights import load_into

SEEDS, EPISODES = 3, 2
STEPS = (0, 1, 5, 20, 100)
POOLED_GRID = [("adam", 2e-4), ("adam", 5e-4), ("adam", 1e-3), ("sgd", 1e-3), ("sgd", 1e-2)]
FRESH_GRID = [("adam", 1e-3), ("adam", 2e-3), ("adam", 5e-3), ("sgd", 3e-2)]
SMALL = ["meta.pretrain=400", "meta.steps=60", "meta.warmup=5", "meta.validate_every=30"]
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

Plain = tuple[str, float]  # an optimiser and its learning rate
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


def train(config: MetaInitConfig) -> None:
    """Train an initialisation, unless that was done before."""
    finished = config.run / GENOTYPE_FILE
    if not finished.is_file() or "metrics" not in load_genotype(finished).provenance:
        meta_initialise(config, resume=True)


def plain(config: MetaInitConfig, count: int) -> list[str]:
    """Say how to train without episodes, by so many passes for each task."""
    same = [f"meta.learning_rate={config.meta.pretrain_learning_rate}", f"meta.warmup={config.meta.warmup}"]
    return ["inner.steps=0", "meta.pretrain=0", f"meta.steps={count}", *same, f"meta.validate_every={count // 10}"]


def base(data: Path, name: str, seed: int, settings: Sequence[str]) -> list[str]:
    """Train what meta-initialisation and pooled pre-training both start from; say how to start from it."""
    whole = configure(data, "", seed, settings)
    config = configure(data, f"{name}-base", seed, [*settings, *plain(whole, whole.meta.pretrain)])
    train(config)
    return [*settings, f"init={config.run}", "meta.pretrain=0"]


def adapt(
    config: MetaInitConfig,
    trials: Sequence[Trial],
    by: Plain | None = None,
    *,
    fresh: bool = False,
    steps: Sequence[int] = STEPS,
) -> dict[str, Curve]:
    """Score the adaptation to every task: by an optimiser with one rate, or else by the initialisation's own."""
    torch.manual_seed(config.seed)
    network = build_network(load_genotype(config.genotype))
    if not fresh:
        load_into(network, config.run)
    layers, optimizer = adapting_layers(network, config.adapting_part), config.inner.optimizer
    if by is None:
        rates = load_rates(config.run, layers)
    else:
        optimizer, rates = by[0], torch.full((len(layers),), by[1])
    adaptation = adaptation_of(layers, rates, optimizer)
    return {trial.task.name: adaptation_curve(network, adaptation, trial, steps) for trial in trials}


def trials_of(config: MetaInitConfig, only: str | None = None) -> list[Trial]:
    """Cut the batches of the trials, which no training has seen; of all tasks or only one."""
    named = {name: task for name, task in config.used_tasks.items() if only in (None, name)}
    tasks = [config.data.open_task(name, section, config.seed) for name, section in named.items()]
    sizes = config.data.model_dump(include={"support", "query", "crop"})
    return make_trials(
        tasks,
        **sizes,
        steps=STEPS[-1],
        episodes=EPISODES,
        seed=1000 + config.seed,
        device=torch.device("cpu"),
    )


def compare(
    data: Path, name: str, seeds: int, settings: Sequence[str], only: str | None = None
) -> tuple[dict[str, Scores], list[str]]:
    """Train and score the three starts, on all tasks or only one; return also what was chosen for the others."""
    started = [base(data, name, seed, settings) for seed in range(seeds)]
    configs = [configure(data, f"{name}-meta", seed, start) for seed, start in enumerate(started)]
    baselines = [
        configure(data, f"{name}-pooled", seed, [*start, *plain(config, passes(config))])
        for seed, (start, config) in enumerate(zip(started, configs, strict=True))
    ]
    for config in (*configs, *baselines):
        train(config)
    trials = [trials_of(config, only) for config in configs]

    def scores(starts: Sequence[MetaInitConfig], **options: Any) -> list[dict[str, Curve]]:
        return [adapt(start, trial, **options) for start, trial in zip(starts, trials, strict=False)]

    def best(starts: Sequence[MetaInitConfig], grid: Sequence[Plain], steps: Sequence[int], *, fresh: bool) -> Plain:
        tried = {by: scores(starts, by=by, fresh=fresh, steps=steps) for by in grid}

        def mean(by: Plain) -> float:
            return statistics.fmean(curve[count] for row in tried[by] for curve in row.values() for count in steps)

        return min(grid, key=mean)

    pooled_by = best(baselines, POOLED_GRID, (1, 5, 20), fresh=False)
    fresh_by = best(configs[:1], FRESH_GRID, (100,), fresh=True)
    rows = {
        "meta-initialisation": scores(configs),
        "pooled": scores(baselines, by=pooled_by),
        "random weights": scores(configs, by=fresh_by, fresh=True),
    }
    spent = {
        label: ", ".join(str(passes(load_config(MetaInitConfig, run / "config.yaml"))) for run in runs)
        for label, runs in (
            ("base", [config.init for config in configs if config.init]),
            ("then episodes", [config.run for config in configs]),
            ("or plain", [config.run for config in baselines]),
        )
    }
    notes = [
        f"network passes for each task: {'; '.join(f'{label} {counts}' for label, counts in spent.items())}",
        f"pooled adapts by {pooled_by[0]}, rate {pooled_by[1]}; random weights by {fresh_by[0]}, rate {fresh_by[1]}",
    ]
    methods = {method: {task: [row[task] for row in seeded] for task in seeded[0]} for method, seeded in rows.items()}
    return methods, notes


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
    text = "\n".join([f"# {title}", "", f"`python -m benchmarks.adaptation DIR {name}`", "", head, rule])
    text = "\n".join([text, *body, "", *(f"- {note}" for note in notes), ""])
    (RESULTS / f"adaptation-{name}.md").write_text(text, encoding="utf-8")
    with (RESULTS / f"adaptation-{name}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)
    print(text)


def main_part(data: Path) -> None:
    """Print the table of all tasks, multi-focus held out."""
    methods, notes = compare(data, "main", SEEDS, [])
    tasks = list(methods["pooled"])
    title = f"Validation loss after steps of adaptation, {SEEDS} seeds; multi-focus was never trained on"
    write("main", title, table(methods, tasks), [*verdicts(methods, tasks), *notes])


def left_out_part(data: Path) -> None:
    """Hold each other task out in turn, in small trainings."""
    lines: list[list[str]] = []
    notes = []
    for task, section in configure(data, "", 0, []).used_tasks.items():
        if section.weight:
            settings = [*SMALL, f"tasks.{task}.weight=0", "tasks.multi-focus.weight=1"]
            methods, _ = compare(data, f"without-{task}", 1, settings, only=task)
            lines += table(methods, [task])[bool(lines) :]
            own, other = (methods[method][task][0][5] for method in ("meta-initialisation", "pooled"))
            notes.append(f"{task} held out: {own:.4f} against {other:.4f} after 5 steps")
    write("left-out", "Validation loss on a task that was held out, one seed, small trainings", lines, notes)


def lasting(steps: int) -> list[str]:
    """Say how many episodes to train by."""
    return [f"meta.steps={steps}", f"meta.validate_every={max(1, steps // 2)}"]


def algorithms_part(data: Path) -> None:
    """Compare the five algorithms, from one base and at the same small number of passes."""
    start = base(data, "small", 0, SMALL)
    wanted = passes(configure(data, "", 0, start))
    methods: dict[str, Scores] = {}
    for algorithm in PASSES:
        settings = [*start, f"meta.algorithm={algorithm}"]
        steps = next(
            count for count in range(1000) if passes(configure(data, "", 0, [*settings, *lasting(count + 6)])) >= wanted
        )
        config = configure(data, f"small-{algorithm}", 0, [*settings, *lasting(steps + 6)])
        train(config)
        methods[algorithm] = {task: [curve] for task, curve in adapt(config, trials_of(config)).items()}
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
