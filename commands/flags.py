"""The flags of the commands that run a config; each flag sets keys of the config."""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

CONFIGS = {
    "search": ("search", "SearchConfig"),
    "train": ("training", "TrainConfig"),
    "meta-init": ("meta_init", "MetaInitConfig"),
    "adapt": ("meta_init", "AdaptConfig"),
    "finetune": ("finetune", "FinetuneConfig"),
    "tune": ("tuning", "TuneConfig"),
}
"""Package and class of each command's config, which are imported late, because the help has to be quick."""

FLAGS = {
    "init": Annotated[str, Argument(metavar="RUN", help="A trained network; default: the best of the shipped.")],
    "data": Annotated[list[str], Option(metavar="DIR", help="Folder of pairs, may be repeated; default: synthetic.")],
    "task": Annotated[str, Option("--task", "-t", metavar="TASK", help="What is fused: infrared-visible, mri-ct, ...")],
    "run": Annotated[str, Option("--run", "-r", metavar="DIR", help="Folder of the run.")],
    "stretch": Annotated[bool, Option("--stretch", help="Stretch raw sensor counts and temperatures to all 16 bits.")],
    "steps": Annotated[int, Option(metavar="N", help="Number of steps; warm-up and validations scale with it.")],
    "pairs": Annotated[int, Option(metavar="N", help="Number of training pairs to adapt on; 0 for all.")],
    "seeds": Annotated[int, Option(metavar="N", help="Search N times, and keep the best on validation.")],
    "budget": Annotated[str, Option(metavar="COST", help="Largest cost: 10ms on this device, 5GFLOPs, 50kparams.")],
    "front": Annotated[str, Option(metavar="COSTS", help="Keep a network for each of these costs too: 5ms,10ms.")],
    "no_verify": Annotated[bool, Option("--no-verify", help="Keep the most probable network, without trainings.")],
    "downstream": Annotated[str, Option(metavar="detection|segmentation|none", help="What the fused images are for.")],
}
"""The flags that set keys of a config."""

_ALL = {"data": "data.root", "run": "run", "stretch": "data.stretch"}
_TASK = _ALL | {"task": "task"}
KEYS = {
    "search": _TASK
    | {"steps": "search.steps", "seeds": "seeds", "budget": "cost.budget"}
    | {"front": "cost.front", "no_verify": "verify.candidates=0", "downstream": "downstream.kind"},
    "train": _TASK | {"steps": "train.steps"},
    "meta-init": _ALL | {"steps": "meta.steps"},
    "adapt": _TASK | {"init": "init", "steps": "steps", "pairs": "data.pairs"},
    "finetune": _TASK | {"steps": "train.steps", "downstream": "downstream.kind"},
    "tune": _TASK | {"steps": "search.search.steps train.train.steps"},
}
"""The key that each flag of a command sets, or key and value; two keys are separated by a space."""

Config = Annotated[Path | None, Option("--config", "-c", metavar="FILE", help="YAML file or name of a shipped config.")]
Settings = Annotated[list[str] | None, Option("--set", "-s", metavar="KEY=VALUE", help="Set a key of the config.")]
Resume = Annotated[bool, Option("--resume", help="Go on with the run in the folder, to the bit.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace the run in the folder.")]


def read_config(command: str, file: Path | None, settings: list[str] | None) -> Any:
    """Read the config of a command, by default the shipped one of its name.

    Args:
        command: Name of the command, a key of `CONFIGS`.
        file: A YAML file, or the name of a shipped config.
        settings: Settings such as `train.steps=200`.

    Raises:
        UserError: If there is no such file, or a key or a value is wrong.
    """
    from ..runtime.config import load_config

    package, name = CONFIGS[command]
    model = getattr(import_module(f"..{package}", __package__), name)
    default = None if command == "adapt" else Path(command)  # the defaults of `adapt` are those of its class
    return load_config(model, file or default, settings or [])


def takes_config(command: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a decorator that replaces a function's first parameter, the config of a command, by flags of the table.

    Args:
        command: Name of the command, a key of `CONFIGS`.
    """
    keys = KEYS[command]

    def read(config: Path | None, settings: list[str] | None, **values: Any) -> Any:
        given = {name: value for name, value in values.items() if value not in (None, [])}
        flags = [_setting(key, value) for name, value in given.items() for key in keys[name].split()]
        return read_config(command, config, [*(settings or []), *flags])

    # The argument comes first, then the flags in the order of the table.
    forms = {name: form for name, form in FLAGS.items() if name in keys}
    return takes(forms | {"config": Config, "settings": Settings}, read)


def takes(forms: Mapping[str, Any], make: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a decorator that replaces a function's first parameter by options.

    Args:
        forms: Annotated type of each option, by name; every option may be left out.
        make: Function that makes the parameter of the values of the options, which are None where left out.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            first = make(**{name: values.pop(name) for name in forms})
            function(first, **values)

        kind = Parameter.KEYWORD_ONLY
        parameters = [Parameter(name, kind, default=None, annotation=form) for name, form in forms.items()]
        parameters += [own.replace(kind=kind) for own in list(signature(function).parameters.values())[1:]]
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        return command

    return decorate


def _setting(key: str, value: Any) -> str:
    if "=" in key:
        return key
    if key.endswith(".kind") and value == "none":
        return f"{key.removesuffix('.kind')}=null"
    return f"{key}={json.dumps(value[0] if isinstance(value, list) and len(value) == 1 else value)}"
