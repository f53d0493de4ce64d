"""The commands that run the stages, and the evaluation of finetunings."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option, echo

from ..runtime.run_files import (
    FRONT_FOLDER,
    GENOTYPE_FILE,
    HISTORY_FILE,
    PICTURES_FOLDER,
    RATES_FILE,
    REPORT_FILE,
    SEED_FOLDERS,
    TASK_FOLDER,
    WEIGHTS_FILE,
)
from ..runtime.terminal import print_table
from .flags import Overwrite, Resume, takes_config

if TYPE_CHECKING:
    from ..finetune import FinetuneConfig
    from ..meta_init import AdaptConfig, MetaInitConfig
    from ..search import SearchConfig
    from ..training import TrainConfig
    from ..tuning import TuneConfig

SCORES = Path("runs/evaluate-task")


@takes_config("train")
def train(config: "TrainConfig", resume: Resume = False, overwrite: Overwrite = False) -> None:
    """Train a network on image pairs."""
    from ..training import train as run_training

    training = run_training(config, resume=resume, overwrite=overwrite)
    columns = list(training.scores["best"]["mean"])
    rows = [
        [part, method, *(f"{scores[part][name]:.3f}" for name in columns)]
        for part in training.scores["best"]
        for method, scores in training.scores.items()
    ]
    print_table(["validation", "method"], columns, rows)
    echo(f"weights   {config.run / WEIGHTS_FILE} of step {training.best_step}; {config.run / GENOTYPE_FILE}")
    _print_places(config.run, "examples.png, curves.svg")


@takes_config("search")
def search(
    config: "SearchConfig",
    resume: Resume = False,
    overwrite: Overwrite = False,
    benchmark: Annotated[
        bool, Option("--benchmark", help="Search nothing: judge a finished run, if there is one, by trained networks.")
    ] = False,
) -> None:
    """Search an architecture on image pairs."""
    from ..search import print_front, print_seeds, print_verification
    from ..search import search as run_search

    if benchmark:
        from ..search.benchmark import print_benchmark
        from ..search.benchmark_scores import scores_of_search, scores_without_search

        finished = (config.run / GENOTYPE_FILE).is_file()
        print_benchmark(scores_without_search() | (scores_of_search(config.run) if finished else {}))
        return

    started = time.monotonic()
    result = run_search(config, resume=resume, overwrite=overwrite)
    if config.seeds > 1:
        print_seeds(result)
        echo(f"genotype  {config.run / GENOTYPE_FILE}, weights and pictures beside it")
        echo(f"searches  {config.run / SEED_FOLDERS}")
    else:
        if isinstance(result.genotype.channels, tuple):
            echo(f"widths    {', '.join(map(str, result.genotype.channels))}")
        for index, cell in enumerate(result.genotype.cells, start=1):
            echo(f"cell {index} ({cell.kind}): {', '.join(cell.operators)}")
        echo(f"genotype  {config.run / GENOTYPE_FILE}")
        if config.downstream is not None:
            echo(f"network   {config.run / TASK_FOLDER}, for {config.downstream.kind}")
        _print_places(config.run, "network.svg, cell_*.svg, probabilities.svg")
    if result.front:
        print_front(result)
        echo(f"networks  {config.run / FRONT_FOLDER}")
    if result.verification is not None:
        print_verification(result.verification)
    echo(f"time      {(time.monotonic() - started) / 60:.1f} min")
    echo(f"report    {config.run / REPORT_FILE}")
    if result.budget is not None:
        echo(f"budget    {result.budget}")
        result.budget.check()


@takes_config("meta-init")
def meta_init(config: "MetaInitConfig", resume: Resume = False, overwrite: Overwrite = False) -> None:
    """Train an initialisation that adapts to every fusion task."""
    from ..meta_init import meta_initialise

    done = meta_initialise(config, resume=resume, overwrite=overwrite)
    _print_curves(list(done.curves.items()))
    echo(f"weights   {config.run / WEIGHTS_FILE} of step {done.best_step}, and {RATES_FILE}")
    _print_places(config.run, "adaptation.svg, curves.svg")


@takes_config("adapt")
def adapt(config: "AdaptConfig", overwrite: Overwrite = False) -> None:
    """Adapt a trained network to a task, on a few pairs."""
    from ..meta_init import adapt_to_task

    done = adapt_to_task(config, overwrite=overwrite)
    chosen = ", the shipped network that does best on these pairs" if config.init is None else ""
    echo(f"start     {done.start}{chosen}")
    _print_curves([(config.task, done.curve), ("random weights, Adam", done.fresh)])
    first, second = done.genotype.source_words
    echo(f"{config.steps} steps on {done.pairs} pairs of {first} and {second} in {done.seconds:.1f} s")
    which = f"after {done.kept} steps, the best on the validation pairs" if done.kept else "of the start"
    echo(f"weights   {config.run / WEIGHTS_FILE}, {which}")
    if done.curve[config.steps] > done.curve[0]:
        echo(f"note      after {config.steps} steps the network does worse on the validation pairs than before them")
    echo(f"pictures  {config.run / PICTURES_FOLDER}: examples.png, adaptation.svg")
    words = ["timfuse", "fuse", "--network", str(config.run), "--data", str(config.data.roots[0] or "DIR")]
    words += ["--sources", *done.sources] if done.sources and not done.genotype.sources else []
    echo(f"fuse      {shlex.join([*words, '-o', 'fused'])}")


@takes_config("finetune")
def finetune(config: "FinetuneConfig", resume: Resume = False, overwrite: Overwrite = False) -> None:
    """Adapt a network to pairs, and to detection or segmentation.

    The network that detects or segments is trained with it.
    """
    from ..finetune import finetune as run_finetuning

    done = run_finetuning(config, resume=resume, overwrite=overwrite)
    columns = list(done.scores["mean"])
    scores = done.scores.items()
    rows = [[part, *(f"{row[name]:.4f}" if name in row else "" for name in columns)] for part, row in scores]
    print_table(["validation"], columns, rows)
    echo(f"before    loss {done.fusion_loss_before:.4f}")
    if done.promise is not None:
        promise = done.promise
        echo(f"without   loss {promise.trivial:.4f} ({done.trivial})")
        part = f"there was no lead over the {done.trivial} at the start"
        if promise.gain > 0:
            given_up = promise.given_up(done.scores["mean"]["loss"])
            part = f"{given_up:.0%} of the lead over the {done.trivial} is given up, {promise.tolerance:.0%} may be"
        echo(f"promise   {'kept' if done.promise_kept else 'broken'}: {part}")
    network = "" if config.downstream is None else f" and {config.run / TASK_FOLDER}"
    echo(f"weights   {config.run / WEIGHTS_FILE}{network}, of step {done.best_step}")
    _print_places(config.run, "examples.png, curves.svg")


def evaluate_task(
    runs: Annotated[list[Path], Argument(metavar="RUN", help="Folders of `timfuse finetune` runs.")],
    data: Annotated[Path | None, Option(metavar="DIR", help="Labelled pairs; default: those of the runs.")] = None,
    fused: Annotated[list[str] | None, Option(metavar="[NAME=]DIR", help="A method's images of all pairs.")] = None,
    baselines: Annotated[
        str,
        Option(
            metavar="NAME,...", help="Rows beside the runs: these, maximum and laplacian, or none.", show_default=True
        ),
    ] = "infrared,visible,average,both,unguided",
    fresh: Annotated[bool, Option(help="Train a task network on the images of each run, too.")] = True,
    steps: Annotated[int | None, Option(min=1, help="Steps of each training; default: those of the runs.")] = None,
    rate: Annotated[
        list[float] | None, Option(min=0, help="Learning rate to choose from; default: that of the runs.")
    ] = None,
    corrupt: Annotated[
        str, Option(metavar="NAME,...", help="Corrupt a source by noise, blur, fog, shift or missing.")
    ] = "",
    severity: Annotated[list[int] | None, Option(min=1, max=3, help="How much; default: 1, 2 and 3.")] = None,
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="For the tables and the trainings.")] = SCORES,
) -> None:
    """Score detection or segmentation on fused images.

    A task network is trained on the images of each run, on either source, on both, on their average, on the images of
    the network before it was guided, and on other methods' images.
    """
    from ..data.pairs import named_folders
    from ..finetune import evaluate_task as run_evaluation
    from ..finetune.task_table import columns_of, shown

    done = run_evaluation(
        runs,
        data,
        output,
        fused=named_folders(fused or []),
        baselines=[] if baselines == "none" else _names(baselines),
        fresh=fresh,
        steps=steps,
        learning_rates=rate or [],
        corruptions=_names(corrupt),
        severities=severity or [1, 2, 3],
    )
    for methods in filter(None, (done.methods, done.corrupted)):
        columns = columns_of(methods)
        print_table(["method"], columns, [[row.name, *(shown(row, score) for score in columns)] for row in methods])
    if done.differences:
        rows = [[each.method, each.other, *each.shown] for each in done.differences]
        print_table(["method", "against"], [done.score, "95 % interval"], rows)
    for note in done.notes:
        echo(f"note: {note}")
    for file in done.files:
        echo(str(file))


def _names(text: str) -> list[str]:
    """Part a list of names by its commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


@takes_config("tune")
def tune(
    config: "TuneConfig",
    trials: Annotated[int, Option(min=1, help="Number of finished trials of the study, of all workers.")] = 30,
    storage: Annotated[str | None, Option(metavar="URL", help="Database of all workers; default: a file.")] = None,
    show: Annotated[bool, Option("--show", help="Draw the front of the study so far; run nothing.")] = False,
) -> None:
    """Search and train many networks, for the best at each cost.

    Any number of workers, started with the same line, share one study. A storage such as
    postgresql://user:password@host/name serves workers on several machines.
    """
    from ..tuning import print_front
    from ..tuning import show as show_study
    from ..tuning import tune as run_study

    if not show:
        run_study(config, trials, storage)
    front = show_study(config, storage)
    print_front(front)
    for file in front.files:
        echo(str(file))
    if front.note:
        echo(front.note)


def _print_places(run: Path, pictures: str) -> None:
    echo(f"pictures  {run / PICTURES_FOLDER}: {pictures}")
    echo(f"history   {run / HISTORY_FILE}; curves: tensorboard --logdir {run}")


def _print_curves(curves: Sequence[tuple[str, Mapping[int, float]]]) -> None:
    """Print a row for each named curve, with a column for each number of steps."""
    rows = [[name, *(f"{value:.4f}" for value in curve.values())] for name, curve in curves]
    print_table(["validation loss after steps"], [str(count) for count in curves[0][1]], rows)
