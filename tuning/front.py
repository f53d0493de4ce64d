"""The front of a study: the trials that no other beats in both quality and cost, as files and as a table."""

import json
from dataclasses import replace
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL

from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.run_files import GENOTYPE_FILE
from ..runtime.terminal import print_table
from .front_pictures import draw_front, write_page
from .points import Front, Point, short_names, written
from .storage import connected, parse_url, shown
from .study import load_study, study_facts, trial_number
from .tune_config import TuneConfig
from .worker import GENOTYPE

_ROWS = 10  # largest number of rows for a study of quality alone


def show(config: TuneConfig, storage: str | None = None) -> Front:
    """Draw the front of a study so far, and write a genotype for each of its points.

    Args:
        config: Config of the study. The folder `front/` in its run folder gets front.svg, front.png, front.html and
            NN-genotype.yaml.
        storage: URL of the database that the workers share; None for a file in the run folder.

    Raises:
        UserError: If the storage cannot be used or has no such study, or if no trial is complete.

    Example:
        >>> vary = {"train.loss.edges": (2.0, 5.0)}
        >>> front = show(TuneConfig(vary=vary))  # doctest: +SKIP
    """
    front = _read(config, parse_url(storage, config.run))
    folder = config.run / "front"
    files = [*draw_front(front, folder)]
    page, note = write_page(front, folder)
    files += page
    genotypes = {folder / f"{point.number:02d}-{GENOTYPE_FILE}": point.genotype for point in front.chosen}
    for path, text in genotypes.items():
        write_atomically(path, text)
    for old in set(folder.glob(f"*-{GENOTYPE_FILE}")) - set(genotypes):  # of points that have been beaten since
        old.unlink(missing_ok=True)
    return replace(front, files=(*files, *genotypes), note=note)


def print_front(front: Front) -> None:
    """Print a line for each point of a front, or for the 10 best trials of a study of quality alone.

    Example:
        >>> point = Point(3, 0.61, 2500, {"search.space.channels": 8}, genotype="cells: []")
        >>> print_front(Front("tune", "parameters", ("VIF",), (point,), (point,)))
        trial channels quality parameters
        3     8         0.6100       2500
    """
    points = front.best[:_ROWS] if front.cost is None else front.best
    names = short_names(points[0].settings)
    rows = []
    for point in points:
        cost = [] if point.cost is None else [f"{point.cost:.4g}"]
        settings = (written(point.settings.get(key)) for key in names)
        rows.append([str(point.number), *settings, f"{point.quality:.4f}", *cost])
    print_table(["trial", *names.values()], ["quality", *([front.cost] if front.cost else [])], rows)


def _read(config: TuneConfig, url: URL) -> Front:
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise UserError(f"no study {config.study} in {shown(url)}; run it first, without --show")
    with connected(url) as storage:
        study = load_study(config.study, storage)
        settings = study_facts(study, storage)["settings"]
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not done:
            raise UserError(f"no trial of the study {config.study} has come to its end yet; look again later")
        points = {trial.number: _point(trial) for trial in done}
        if settings["cost"] is None:
            best = sorted(points.values(), key=lambda point: -point.quality)
        else:
            best = sorted((points[trial.number] for trial in study.best_trials), key=lambda point: point.cost or 0.0)
        return Front(config.study, settings["cost"], tuple(settings["quality"]), tuple(points.values()), tuple(best))


def _point(trial: FrozenTrial) -> Point:
    return Point(
        number=trial_number(trial),
        quality=trial.values[0],
        cost=trial.values[1] if len(trial.values) > 1 else None,
        settings={key: json.loads(value) if isinstance(value, str) else value for key, value in trial.params.items()},
        genotype=trial.user_attrs[GENOTYPE],
    )
