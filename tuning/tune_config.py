"""Config of a study; the shipped file is configs/tune.yaml."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from ..data.stage_config import PairsSection, TaskConfig
from ..objectives import training_loss
from ..objectives.metrics import METRICS, ruler_of
from ..runtime.config import Positive, Section, dotted_items, load_config
from ..runtime.errors import UserError
from ..search import SearchConfig
from ..training import TrainConfig

S = TypeVar("S", bound=Section)

Number = int | Annotated[float, Field(allow_inf_nan=False)]


class TuneDataSection(PairsSection):
    """The pairs of both stages of a trial, which hold out the same validation pairs.

    Attributes:
        shares: Relative frequency of the pairs of each folder; null for all folders equally often.
    """

    shares: tuple[Positive, ...] | None = None


class Range(Section):
    """The numbers between two, whole numbers if both are whole.

    Attributes:
        low: Smallest number of the range.
        high: Largest number of the range.
        log: Whether the numbers are drawn evenly by their logarithm.
    """

    low: Number
    high: Number
    log: bool = False

    def samples(self) -> tuple[int | float, ...]:
        """Return the numbers that are checked before a study: the ends of the range, and the second whole number."""
        return (self.low, self.low + 1, self.high) if isinstance(self.low + self.high, int) else (self.low, self.high)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"must have low below high: {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"must have low above 0 for log, not {self.low}")
        return self


Choices = tuple[Any, ...]


class TuneConfig(TaskConfig):
    """One study.

    Attributes:
        run: Folder of this machine's trials and of the front.
        study: Name of the study in its storage.
        data: Image pairs, and how they are split, for both stages.
        search: The search of a trial, as for `timfuse search`.
        train: The training of the network that it finds, as for `timfuse train`.
        vary: Keys of this config to vary, such as `search.space.channels` or `train.loss.edges`, nested or dotted:
            for each a list of choices, or a range `{low: 1, high: 9, log: false}`; null for nothing.
        quality: Metrics of the task's ruler whose geometric mean on the validation pairs is maximised.
        cost: The cost to minimise: "milliseconds" as the search measures them, "GFLOPs" or "parameters"; null for
            quality alone.

    Example:
        >>> TuneConfig(search={"space": {"preset": "tim"}}, vary={"search.space": {"channels": (8, 16)}}).vary
        {'search.space.channels': (8, 16)}
    """

    stage: Literal["tune"] = "tune"
    run: Path = Path("runs/tune")
    task: str = "infrared-visible"
    study: Annotated[str, Field(min_length=1, max_length=100)] = "tune"
    data: TuneDataSection = TuneDataSection()
    search: SearchConfig = SearchConfig()
    train: TrainConfig = TrainConfig()
    vary: dict[str, Range | Choices]
    quality: Annotated[tuple[str, ...], Field(min_length=1)] = ("VIF", "Qabf", "MEF-SSIM")
    cost: Literal["milliseconds", "GFLOPs", "parameters"] | None = "milliseconds"

    @field_validator("vary", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: values for key, values in dict(_values(value)).items() if values is not None}

    @model_validator(mode="after")
    def _something_varies(self) -> Self:
        if not self.vary:
            raise ValueError("vary must name a key for trials to try, such as search.space.channels: [8, 16]")
        # Those that are to be small, as smears, cannot be maximised.
        known = [name for name in ruler_of(self.task) if METRICS[name].higher_is_better]
        for name in self.quality:
            if name not in known:
                raise ValueError(f"quality: unknown metric {name}; known here: {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _trials_can_be_made(self) -> Self:
        for stage, section in (("search", self.search), ("train", self.train)):
            usual = dict(dotted_items(type(section)().model_dump(mode="json")))
            for key, value in dotted_items(section.model_dump(mode="json")):
                if value != usual.get(key):
                    _refuse_own(f"{stage}.{key}", f"{stage}.{key}")
        self.stages({}, Path("trial"))
        for key, values in self.vary.items():
            _refuse_own(key, f"vary.{key}")
            for value in values.samples() if isinstance(values, Range) else values:
                try:
                    self.stages({key: value}, Path("trial"))
                except UserError as error:
                    raise UserError(f"vary.{key}: {error}") from None
        return self

    def stages(self, settings: Mapping[str, Any], folder: Path) -> tuple[SearchConfig, TrainConfig]:
        """Make the configs of the search and of the training of a trial.

        The training starts from fresh weights: on real pairs they were better after 300 steps than the weights of the
        search.

        Args:
            settings: Values of the keys of `vary` in the trial.
            folder: Folder of the trial, in which both run folders lie.

        Raises:
            UserError: If a setting belongs to neither stage, is out of its range, or does not fit the others.
        """
        found = str(folder / "search")
        own: dict[str, dict[str, Any]] = {
            "search": {"run": found},
            "train": {"run": str(folder / "train"), "genotype": found},
        }
        both = self.model_dump(mode="json", include=set(_BOTH))
        both |= {f"data.{key}": value for key, value in self.data.model_dump(mode="json").items()}
        varied: dict[str, dict[str, Any]] = {"search": {}, "train": {}}
        for dotted, value in settings.items():
            stage, _, key = dotted.partition(".")
            if stage not in varied or not key:
                raise UserError(f"{dotted} is of neither stage; keys to vary begin with search. or train.")
            varied[stage][key] = value
        usual = training_loss(self.task)
        losses = {"search": {"search.outer_loss": usual, "search.inner_loss": usual}, "train": {"loss": usual}}
        for stage, of_task in losses.items():  # varied weights change the task's loss where the config has no other
            given = dict(dotted_items(getattr(self, stage).model_dump(mode="json")))
            for key, loss in of_task.items():
                if given.get(key, loss) is None and any(name.startswith(f"{key}.") for name in varied[stage]):
                    own[stage][key] = asdict(loss)
        search = _section(SearchConfig, self.search.model_dump(mode="json"), both | own["search"] | varied["search"])
        if search.first_stage is not None:
            own["train"]["first_stage"] = str(search.first_stage)
        train = _section(TrainConfig, self.train.model_dump(mode="json"), both | own["train"] | varied["train"])
        return search, train

    def comparable(self) -> dict[str, Any]:
        """Return, by dotted key, the values that all trials of a study must share to be comparable."""
        content = dotted_items(self.model_dump(mode="json"))
        return {key: value for key, value in content if key not in (*_OWN, *_HARMLESS)}


_BOTH = ("seed", "device", "task", "sources", "colour")
_SHARED = (*_BOTH, *(f"data.{key}" for key in TuneDataSection.model_fields))
_OWN = (
    *(f"{stage}.{key}" for stage in ("search", "train") for key in ("run", *_SHARED)),
    *("search.seeds", "train.genotype", "train.init", "train.first_stage"),
)
_HARMLESS = (
    *("run", "study", "device", "data.root", "data.workers", "data.cache_megabytes"),
    *("search.search.checkpoint_every", "train.train.checkpoint_every"),
)


def _refuse_own(key: str, place: str) -> None:
    """Refuse a key of a stage that the study or the trial sets."""
    if key in _OWN:
        shared = key.partition(".")[2]
        raise UserError(f"{place} must be left out: " + (f"give {shared}" if shared in _SHARED else "a trial sets it"))


def _values(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Range | Choices | None]]:
    """Walk the choices and ranges of `vary`, nested or not, by dotted key."""
    for name, value in content.items():
        key = f"{prefix}{name}"
        if value is None or isinstance(value, (Range, tuple)):
            yield key, value
        elif isinstance(value, list) and len(value) > 1:
            yield key, tuple(value)
        elif isinstance(value, dict) and {"low", "high"} & set(value):
            try:
                yield key, _section(Range, {}, value)
            except UserError as error:
                raise UserError(f"vary.{key}: {error}") from None
        elif isinstance(value, dict):
            yield from _values(value, f"{key}.")
        else:
            raise UserError(
                f"vary.{key} = {json.dumps(value)} must be a list of two or more choices, or {{low: ..., high: ...}}"
            )


def _section(model: type[S], content: dict[str, Any], changes: Mapping[str, Any]) -> S:
    """Read a section as from a config, with changes by dotted key, so that errors name the key."""
    settings = [f"{key}={json.dumps(value)}" for key, value in (*content.items(), *changes.items())]
    try:
        return load_config(model, None, settings)
    except UserError as error:
        message = str(error)
        for setting in settings:
            message = message.replace(f" (--set {setting})", "")
        raise UserError(message) from None
