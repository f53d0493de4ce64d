"""The settings of a trial: Optuna's sampler, seeded for each trial by its number."""

import json
from collections.abc import Sequence
from typing import Any

from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from ..runtime.seeds import derive_seed
from .tune_config import Choices, Range


class TrialSampler(BaseSampler):
    """Tree-structured Parzen estimators (Bergstra et al., NeurIPS 2011; several objectives: Ozaki et al., GECCO 2020).

    The random numbers depend on the study's seed and the trial's number alone: any worker draws the same for a trial,
    and two workers that start at once draw different settings.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._sampler = TPESampler(seed=0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler = TPESampler(seed=derive_seed(self._seed, "trial", trial.number) % 2**32)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)


def suggest(trial: Trial, vary: dict[str, Range | Choices]) -> dict[str, Any]:
    """Draw a value for each varied key; a retry gets the settings of the trial that it repeats."""
    settings: dict[str, Any] = {}
    for key, values in vary.items():
        if not isinstance(values, Range):
            # Optuna's choices must be scalars, so lists go to it as text.
            by_text = {json.dumps(value): value for value in values}
            settings[key] = by_text[trial.suggest_categorical(key, list(by_text))]
        elif isinstance(values.low, int) and isinstance(values.high, int):
            settings[key] = trial.suggest_int(key, values.low, values.high, log=values.log)
        else:
            settings[key] = trial.suggest_float(key, values.low, values.high, log=values.log)
    return settings
