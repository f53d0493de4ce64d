"""The study in its storage: the first worker creates it, and every other one checks it."""

import secrets
import time
from typing import Any

import optuna
from optuna import Study
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from ..runtime.device import device_name, select_device
from ..runtime.errors import UserError
from ..runtime.files import write_atomically
from ..runtime.run_files import STUDY_FILE, TRIALS_FOLDER
from ..runtime.yaml_text import dump_yaml, read_mapping
from .sampler import TrialSampler
from .storage import Storage
from .tune_config import TuneConfig

FACTS = "timfuse"  # the attribute of a study that describes it
_PATIENCE_SECONDS = 10  # for the worker that is creating the study
_STARTUP_TRIALS = 5  # that are never pruned


def open_study(config: TuneConfig, storage: Storage) -> Study:
    """Create a study, or join it.

    Raises:
        UserError: If the storage or the run folder holds another study.
    """
    device = device_name(select_device(config.device))
    own = {"device": device, "settings": config.comparable()}
    try:
        study = _create(config, storage, own)
    except DuplicatedStudyError:
        sampler, pruner = TrialSampler(config.seed), _pruner(config)
        study = optuna.load_study(storage=storage, study_name=config.study, sampler=sampler, pruner=pruner)
        if own != {key: study_facts(study, storage)[key] for key in own} and not study.get_trials(deepcopy=False):
            # It was stopped before its first trial, so that nothing is lost.
            optuna.delete_study(storage=storage, study_name=config.study)
            study = _create(config, storage, own)
    facts = study_facts(study, storage)
    _check_settings(config, storage, facts["settings"])
    if config.cost == "milliseconds" and facts["device"] != device:
        raise UserError(
            f"the study {config.study} in {storage.shown} measures milliseconds on {facts['device']}, and this is "
            f"{device}; use the same with as many threads (OMP_NUM_THREADS), or begin another study, with "
            "--set cost=GFLOPs if devices are to share it, --set study=NAME and --set run=DIR"
        )
    _claim_folder(config, storage, facts["id"])
    return study


def _create(config: TuneConfig, storage: Storage, facts: dict[str, Any]) -> Study:
    study = optuna.create_study(
        storage=storage,
        study_name=config.study,
        directions=[StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE][: 1 if config.cost is None else 2],
        sampler=TrialSampler(config.seed),
        pruner=_pruner(config),
    )
    # One attribute, so that it is there as a whole or not at all.
    study.set_user_attr(FACTS, {"id": secrets.token_hex(8), **facts})
    return study


def load_study(name: str, storage: Storage) -> Study:
    """Load a study for reading.

    Raises:
        UserError: If there is no such study.
    """
    try:
        return optuna.load_study(storage=storage, study_name=name)
    except KeyError:
        known = ", ".join(optuna.get_all_study_names(storage))
        remedy = f"it holds {known}: choose one with --set study=NAME" if known else "run it first, without --show"
        raise UserError(f"no study {name} in {storage.shown}; {remedy}") from None


def study_facts(study: Study, storage: Storage) -> dict[str, Any]:
    """Read what the first worker stored about a study: `id`, `device` and `settings`.

    Raises:
        UserError: If something else made the study.
    """
    start = time.monotonic()
    while FACTS not in study.user_attrs:
        if study.get_trials(deepcopy=False) or time.monotonic() - start > _PATIENCE_SECONDS:
            raise UserError(
                f"the study {study.study_name} in {storage.shown} was not created by `timfuse tune`; "
                "name another with --set study=NAME"
            )
        time.sleep(0.2)
    facts: dict[str, Any] = study.user_attrs[FACTS]
    return facts


def trial_number(trial: FrozenTrial) -> int:
    """Return the number of a trial, which is that of its first try if it was repeated."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def may_prune(config: TuneConfig) -> bool:
    """Return whether the validations of a search may end its trial early.

    That needs a single objective, and an outer loss that is the same in all trials.
    """
    return config.cost is None and not any(map(_touches_outer_loss, config.vary))


def _touches_outer_loss(key: str) -> bool:
    return key.startswith(("search.search.outer_loss", "search.downstream", "search.data"))


def _pruner(config: TuneConfig) -> BasePruner:
    if not may_prune(config):
        return NopPruner()
    return MedianPruner(n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=config.search.search.warmup)


def _check_settings(config: TuneConfig, storage: Storage, stored: dict[str, Any]) -> None:
    """Refuse to mix trials that cannot be compared."""
    now = config.comparable()
    for key in [*now, *(key for key in stored if key not in now)]:
        if now.get(key) != stored.get(key):
            raise UserError(
                f"the study {config.study} in {storage.shown} has {key} = {stored.get(key)}, not {now.get(key)}; "
                "go on with that, or begin another with --set study=NAME and --set run=DIR"
            )


def _claim_folder(config: TuneConfig, storage: Storage, identity: str) -> None:
    """Keep the trials of another study out of the run folder: they have the same numbers."""
    path = config.run / STUDY_FILE
    if path.is_file() and read_mapping(path).get("id") == identity:
        return
    if path.is_file() and (config.run / TRIALS_FOLDER).exists():
        raise UserError(
            f"{config.run} holds trials of another study than {config.study} in {storage.shown}; "
            "choose another folder with --set run=DIR, or delete this one"
        )
    write_atomically(path, dump_yaml({"study": config.study, "id": identity}))
