"""The work of one process on a study: it runs trials until the study has enough.

Optuna stores the trials. A running trial has a heartbeat; if it stops, the next free worker takes the trial over, with
its settings and its folder, and goes on from the last checkpoints. Several workers on one machine should have one
thread each (`OMP_NUM_THREADS=1`).
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from optuna import Study, Trial, TrialPruned
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from ..genotypes import save_genotype
from ..runtime.device import select_device
from ..runtime.errors import InUseError, StoppedError, UserError
from ..runtime.files import remove_leftovers
from ..runtime.loop import Scores
from ..runtime.run_files import GENOTYPE_FILE, TRIALS_FOLDER
from ..runtime.run_folder import open_run
from ..runtime.yaml_text import dump_yaml
from . import storage as storages
from .points import short_names, written
from .sampler import suggest
from .storage import Storage, connected, parse_url
from .study import may_prune, open_study, trial_number
from .trial import run_trial
from .tune_config import TuneConfig

GENOTYPE = "genotype"  # attribute of a finished trial: the YAML text, for machines that do not have its folder
_ERROR = "error"  # attribute of a trial with an error of its own: the message
_SUPERSEDED = "superseded"  # attribute of a trial that another one repeats
_BEGUN = "begun"  # attribute of a trial that computes: its number, since a retry inherits attributes
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
_POLL_SECONDS = 1.0
_FAILURES = 3  # failures in a row after which a worker gives up


class _TrialError(Exception):
    """A trial ended without a result, and the study goes on."""


class _TakenOverError(BaseException):
    """Another worker considered this one dead and has taken its trial over.

    It is no `Exception`, because Optuna would then try to record the end of the trial.
    """


# Errors after which a trial is not marked as failed: another attempt can complete it, or it has ended already.
_NO_FAILURE = (StoppedError, TrialPruned, _TrialError, UpdateFinishedTrialError, SQLAlchemyError, StorageInternalError)


def tune(config: TuneConfig, trials: int, storage: str | None = None) -> None:
    """Run trials of a study until it has enough, alone or beside other workers.

    Args:
        config: Config of the study; `config.run` is the folder of this machine's trials.
        trials: Number of finished trials of the whole study, at least 1.
        storage: URL of the database that the workers share; None for a file in the run folder.

    Raises:
        UserError: If the config, the data, the device or the storage cannot be used, the storage has another study of
            this name, several trials in a row fail, or the user stops the work.

    Example:
        >>> vary = {"search.space.channels": (8, 16)}
        >>> config = TuneConfig(search={"space": {"preset": "tim"}}, vary=vary, cost="parameters")
        >>> tune(config, trials=20)  # doctest: +SKIP
    """
    search_config, train_config = config.stages({}, config.run)
    with connected(parse_url(storage, config.run)) as opened:
        # Data that no trial could use raise an error before the first trial.
        for stage in (search_config, train_config):
            stage.data.open_pairs(search_config.task, search_config.sources, config.seed)
        study = open_study(config, opened)
        for folder in {path.parent for path in config.run.rglob(".*.tmp")}:
            remove_leftovers(folder)
        _Worker(config, study, opened, trials).run()


class _Worker:
    """The work of one process on a study."""

    def __init__(self, config: TuneConfig, study: Study, storage: Storage, trials: int) -> None:
        self.config, self.study, self.storage, self.trials = config, study, storage, trials
        self.failures = 0
        self.console = Console(stderr=True)

    def run(self) -> None:
        """Run trials until the study has enough."""
        self._greet()
        try:
            while self._has_turn():
                with suppress(_TakenOverError):
                    self.study.optimize(self._objective, n_trials=1, catch=(_TrialError,), callbacks=[self._report])
        except (StoppedError, KeyboardInterrupt):
            hand_back(self.study)
            raise UserError("stopped; the same command goes on, with the trial where it is") from None

    def _greet(self) -> None:
        states = self._states()
        finished = sum(states[state] for state in FINISHED)
        self._say(f"study {self.config.study} in {self.storage.shown}: {finished} of {self.trials} trials finished")
        if self.config.cost is None and not may_prune(self.config):
            self._say("no trial is ended early: trials differ in the loss or the crops by which searches are compared")
        if select_device(self.config.device).type == "cpu" and torch.get_num_threads() > 1:
            self._say(
                f"this worker uses {torch.get_num_threads()} threads; for one worker on each core, start them with "
                "OMP_NUM_THREADS=1"
            )

    def _has_turn(self) -> bool:
        """Wait until the study needs one more trial and return True, or False as soon as it has enough."""
        waits = False
        while True:
            fail_stale_trials(self.study)
            hand_back(self.study)
            states = self._states()
            finished = sum(states[state] for state in FINISHED)
            if finished >= self.trials:
                return False
            running = states[TrialState.RUNNING]
            if finished + running < self.trials:
                return True
            if not waits:
                self._say(
                    f"waiting for {running} trial{'s' if running > 1 else ''} of other workers; those of a dead worker "
                    f"are taken over {storages.GRACE_SECONDS} s after its last sign of life"
                )
            waits = True
            time.sleep(_POLL_SECONDS)

    def _objective(self, trial: Trial) -> tuple[float, ...]:
        try:
            try:
                return self._try(trial)
            except _NO_FAILURE:
                raise
            except Exception as error:
                trial.set_user_attr(_ERROR, str(error) or repr(error))  # a retry would fail too
                if isinstance(error, (UserError, torch.OutOfMemoryError)):
                    raise _TrialError from error
                raise
        except UpdateFinishedTrialError:
            raise _TakenOverError from None

    def _try(self, trial: Trial) -> tuple[float, ...]:
        # Optuna's own first heartbeat comes from a thread, and a kill can be faster; who has begun must have one.
        self.storage.record_heartbeat(trial._trial_id)
        trial.set_user_attr(_BEGUN, trial.number)
        frozen = self._check_needed(trial)
        settings = suggest(trial, self.config.vary)
        number = trial_number(frozen)
        folder = self.config.run / TRIALS_FOLDER / f"{number:04d}"
        with self._own(folder, settings):
            names = short_names(settings)
            self._say(f"trial {number}: {', '.join(f'{names[key]} {written(settings[key])}' for key in names)}")

            def prune(step: int, scores: Scores) -> None:
                trial.report(-scores["mean"]["outer_loss"], step)
                if trial.should_prune():
                    raise TrialPruned

            on_validation = prune if may_prune(self.config) else None
            outcome = run_trial(self.config, settings, folder, number, on_validation)
            path = folder / GENOTYPE_FILE
            save_genotype(outcome.genotype, path)
            trial.set_user_attr(GENOTYPE, path.read_text(encoding="utf-8"))
        return outcome.values

    def _check_needed(self, trial: Trial) -> FrozenTrial:
        """End a trial that the study does not need, because several workers started one at the same time."""
        trials = self.study.get_trials(deepcopy=False)
        frozen = trials[trial.number]
        history = _retries(frozen)
        if history and any(_retries(other)[-1:] == history[-1:] for other in trials[: trial.number]):
            trial.set_user_attr(_SUPERSEDED, True)
            raise _TrialError
        ahead = [other.state in FINISHED or other.state == TrialState.RUNNING for other in trials[: trial.number]]
        ahead += [other.state in FINISHED for other in trials[trial.number + 1 :]]
        if sum(ahead) >= self.trials:
            raise _TrialError  # without a message, so that the trial can be repeated when the study needs more
        return frozen

    @contextmanager
    def _own(self, folder: Path, settings: dict[str, Any]) -> Iterator[None]:
        """Lock the folder of a trial; wait for a worker that seemed dead and is not."""
        waits = False
        while True:
            try:
                run = open_run(folder, config_yaml=dump_yaml(settings), resume=True, overwrite=False)
                break
            except InUseError as error:
                if not waits:
                    self._say(f"waiting: {error}")
                waits = True
                time.sleep(_POLL_SECONDS)
        with run:
            yield

    def _report(self, study: Study, trial: FrozenTrial) -> None:
        """Report how a trial ended; give up after several failures in a row."""
        name = f"trial {trial_number(trial)}"
        finished = sum(self._states()[state] for state in FINISHED)
        count = f"{finished} of {self.trials} trials finished"
        if trial.state == TrialState.COMPLETE:
            cost = "" if self.config.cost is None else f", {trial.values[1]:.4g} {self.config.cost}"
            self._say(f"{name}: quality {trial.values[0]:.4f}{cost}; {count}")
        elif trial.state == TrialState.PRUNED:
            self._say(f"{name}: ended early at step {trial.last_step}, behind the median of the others; {count}")
        if _ERROR not in trial.user_attrs:
            self.failures = 0
            return
        self.failures += 1
        self._say(f"{name} failed: {trial.user_attrs[_ERROR]}")
        if self.failures == _FAILURES:
            raise UserError(f"{_FAILURES} trials in a row failed; mend what they say, and start again")

    def _states(self) -> Counter[TrialState]:
        return Counter(trial.state for trial in self.study.get_trials(deepcopy=False))

    def _say(self, message: str) -> None:
        self.console.print(message, markup=False, highlight=False, soft_wrap=True)


def hand_back(study: Study) -> None:
    """Enqueue every trial that ended early, with its settings, for the next free worker."""
    grace = timedelta(seconds=storages.GRACE_SECONDS)
    for trial in study.get_trials(deepcopy=False):
        # Optuna does not miss a worker that was killed between taking a trial and its first heartbeat.
        silent = trial.state == TrialState.RUNNING and trial.user_attrs.get(_BEGUN) != trial.number
        if silent and trial.datetime_start is not None and datetime.now() - trial.datetime_start > grace:
            with suppress(ValueError):  # another worker was first
                study.tell(trial.number, state=TrialState.FAIL)
    trials = study.get_trials(deepcopy=False)  # with what was just told, or a free worker would draw new settings
    retried = {number for trial in trials for number in _retries(trial)}
    for trial in trials:
        known = trial.number in retried or {_ERROR, _SUPERSEDED} & trial.user_attrs.keys()
        if trial.state == TrialState.FAIL and not known:
            RetryHeartbeatStaleTrialCallback()(study, deepcopy(trial))  # it adds to the history of what it is given


def _retries(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the trials that a trial repeats."""
    return RetryHeartbeatStaleTrialCallback.retry_history(trial)
