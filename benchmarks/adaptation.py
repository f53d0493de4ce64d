"""Adaptation to each task from a meta-initialisation, from pooled pre-training of equal cost and from random weights.

Run: python -m benchmarks.adaptation DIR PART... (from the root of the repository, with timfuse installed; DIR holds
the folders that configs/meta-init.yaml names). Parts: main (3 seeds; multi-focus is held out), left-out (each other
task held out in turn, in small trainings), algorithms (all five, small and of equal cost). Trainings are kept in
runs/adaptation, so that a stopped benchmark goes on where it was; tables go to benchmarks/results.

All adapt on the same support batches, new crops of the same 4 training pairs in every step, and are scored on the same
crops of validation pairs. The meta-initialisation brings its optimiser and learning rates. The others get those of a
grid (gradient descent or Adam, one rate for all layers and tasks) with the lowest mean loss over the tasks: pooled
pre-training over 1, 5 and 20 steps of all seeds, random weights after 100 steps of the first.
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
from timfuse.meta_init.tasks import open_tasks
from timfuse.meta_init.validation import Curve, Trial, adaptation_curve, make_trials
from timfuse.operators import build_network
from timfuse.runtime.config import load_config
from timfuse.runtime.weights import load_into

SEEDS, EPISODES = 3, 3
STEPS = (0, 1, 5, 20, 100)
POOLED_GRID = [("adam", 2e-4), ("adam", 5e-4), ("adam", 1e-3), ("sgd", 1e-3), ("sgd", 3e-3), ("sgd", 1e-2)]
FRESH_GRID = [("adam", 1e-3), ("adam", 2e-3), ("adam", 5e-3), ("sgd", 1e-2), ("sgd", 3e-2), ("sgd", 1e-1)]
SMALL = ["meta.pretrain=700", "meta.steps=100", "meta.warmup=20", "meta.validate_every=100"]
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
    finished = config.run / "genotype.yaml"
    if not finished.is_file() or "adaptation" not in load_genotype(finished).provenance:
        meta_initialise(config, resume=True)


def pooled(config: MetaInitConfig) -> list[str]:
    """Say how to train without episodes, by as many passes."""
    count = passes(config)
    rate = f"meta.learning_rate={config.meta.pretrain_learning_rate}"
    return ["inner.steps=0", "meta.pretrain=0", f"meta.steps={count}", rate, f"meta.validate_every={count // 10}"]


def small(data: Path, algorithm: str) -> list[str]:
    """Say how to train a little by an algorithm, with as many passes as FOMAML has in it."""
    settings = [*SMALL, f"meta.algorithm={algorithm}"]
    config = configure(data, "", 0, settings)
    wanted, steps = passes(configure(data, "", 0, SMALL)), config.meta.steps
    while passes(configure(data, "", 0, [*settings, f"meta.steps={steps}"])) > wanted and steps > 25:
        steps -= 1
    return [*settings, f"meta.steps={steps}"]


def adapt(
    config: MetaInitConfig,
    trials: Sequence[Trial],
    plain: Plain | None = None,
    *,
    fresh: bool = False,
    steps: Sequence[int] = STEPS,
) -> dict[str, Curve]:
    """Score the adaptation to every task: by an optimiser with one rate, or else by the initialisation's own."""
    torch.manual_seed(config.seed)
    network = build_network(load_genotype(config.genotype))
    if not fresh:
        load_into(network, config.run / "weights.safetensors")
    layers, inner = adapting_layers(network, config), config.inner
    if plain is None:
        rates = load_rates(config.run, layers)
    else:
        inner, rates = inner.model_copy(update={"optimizer": plain[0]}), torch.full((len(layers),), plain[1])
    adaptation = adaptation_of(layers, rates, inner)
    return {trial.task.name: adaptation_curve(network, adaptation, trial, steps) for trial in trials}


def trials_of(config: MetaInitConfig) -> list[Trial]:
    """Cut the batches of the trials, which no training has seen."""
    tasks = open_tasks(config.data, config.used_tasks, config.seed)
    return make_trials(
        tasks, config.data, steps=STEPS[-1], episodes=EPISODES, seed=1000 + config.seed, device=torch.device("cpu")
    )


def compare(data: Path, name: str, seeds: int, settings: Sequence[str]) -> tuple[dict[str, Scores], list[str]]:
    """Train and score the three starts; return the scores and what was chosen for the others."""
    configs = [configure(data, f"{name}-meta", seed, settings) for seed in range(seeds)]
    baselines = [
        configure(data, f"{name}-pooled", seed, [*settings, *pooled(config)]) for seed, config in enumerate(configs)
    ]
    for config in (*configs, *baselines):
        train(config)
    trials = [trials_of(config) for config in configs]

    def scores(starts: Sequence[MetaInitConfig], **options: Any) -> list[dict[str, Curve]]:
        return [adapt(start, trial, **options) for start, trial in zip(starts, trials, strict=False)]

    def best(starts: Sequence[MetaInitConfig], grid: Sequence[Plain], steps: Sequence[int], *, fresh: bool) -> Plain:
        tried = {plain: scores(starts, plain=plain, fresh=fresh, steps=steps) for plain in grid}

        def mean(plain: Plain) -> float:
            return statistics.fmean(curve[count] for row in tried[plain] for curve in row.values() for count in steps)

        return min(grid, key=mean)

    pooled_by = best(baselines, POOLED_GRID, (1, 5, 20), fresh=False)
    fresh_by = best(configs[:1], FRESH_GRID, (100,), fresh=True)
    rows = {
        "meta-initialisation": scores(configs),
        "pooled": scores(baselines, plain=pooled_by),
        "random weights": scores(configs, plain=fresh_by, fresh=True),
    }
    notes = [
        f"network passes for each task: {', '.join(str(passes(config)) for config in configs)}; pooled "
        f"{', '.join(str(passes(config)) for config in baselines)}",
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
            methods, _ = compare(data, f"without-{task}", 1, settings)
            lines += table(methods, [task])[bool(lines) :]
            own, other = (methods[method][task][0][5] for method in ("meta-initialisation", "pooled"))
            notes.append(f"{task} held out: {own:.4f} against {other:.4f} after 5 steps")
    write("left-out", "Validation loss on a task that was held out, one seed, small trainings", lines, notes)


def algorithms_part(data: Path) -> None:
    """Compare the five algorithms at the same small number of passes."""
    methods: dict[str, Scores] = {}
    for algorithm in PASSES:
        config = configure(data, f"small-{algorithm}", 0, small(data, algorithm))
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
