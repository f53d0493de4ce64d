"""Configuration: pydantic sections read from YAML, with one-line errors that name the key."""

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UserError
from .files import read_text
from .yaml_text import DEEPEST, dump_yaml, parse_yaml

SHIPPED_CONFIGS = Path(__file__).parents[1] / "configs"

# Types of many keys.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """One mapping of a config file: frozen, strictly typed, without other keys than the declared ones.

    Attributes:
        scaled_by_steps: Keys that grow and shrink with the section's `steps`; see `load_config`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    scaled_by_steps: ClassVar[tuple[str, ...]] = ()


_WORDS = {
    "Input should be a valid int": "must be an int",
    "Input should be a valid array": "must be a list",
    "Input should be an object": "must be a mapping of keys to values",
    "Input should be a valid ": "must be a ",
    "Input should be ": "must be ",
}

M = TypeVar("M", bound=Section)


def load_config(model: type[M], path: Path | None, overrides: Sequence[str] = ()) -> M:
    """Read a config file, the files it extends and the settings of the command line.

    Args:
        model: Section that describes the whole file.
        path: YAML file; None for the defaults alone. Its key `extends: other.yaml` names a file to start from, relative
            to this one or a shipped config. Mappings are merged key by key; anything else, lists too, is replaced. A
            mapping over a name keeps the name as its base: `loss.information=2` over `loss: quality` gives
            `loss: {base: quality, information: 2}`.
        overrides: Settings such as `search.steps=200`; the value is YAML. The last one wins. Where they set the
            `steps` of a section, its keys in `scaled_by_steps` change in proportion, unless they are set too.

    Raises:
        UserError: For the first problem found, with the key, its value, its place and the values that are allowed.

    Example:
        >>> from timfuse.training import TrainConfig
        >>> config = load_config(TrainConfig, None, ["train.steps=500", "data.crop=64"])
        >>> config.train.steps, config.train.warmup, config.data.crop
        (500, 8, 64)
    """
    files = _read_layers(resolve_config_path(path)) if path else []
    settings = [_override_layer(override) for override in overrides]
    # Without validation, which comes when all keys are there.
    scaled = _scaled(model.model_construct(), _merged(files), _merged(settings))
    layers = [*files, _Layer("scaled with the steps", scaled), *settings]
    merged = _merged(layers)
    try:
        # Through JSON, because only there do strict types take a list for a tuple and text for a path.
        return model.model_validate_json(json.dumps(merged))
    except ValidationError as error:
        raise UserError(_explain(error, model, merged, layers)) from None


def resolve_config_path(name: str | Path, folder: Path = Path()) -> Path:
    """Find a config by path or by the name of a shipped one.

    Args:
        name: A path, or the name of a shipped config (`search-demo`, with or without `.yaml` and a
            leading `configs/`).
        folder: Folder from which relative paths start.

    Raises:
        UserError: If there is no such file; the error lists the shipped configs.
    """
    path = folder / name
    if path.is_file():
        return path
    if Path(name).parent in (Path(), Path("configs")):
        shipped = SHIPPED_CONFIGS / f"{Path(name).name.removesuffix('.yaml')}.yaml"
        if shipped.is_file():
            return shipped
    known = ", ".join(sorted(file.stem for file in SHIPPED_CONFIGS.glob("*.yaml")))
    raise UserError(f"no config file {path}; give the path of a YAML file or a shipped config: {known}")


def config_to_yaml(config: Section) -> str:
    """Write a config with all defaults as YAML that `load_config` reads back to an equal config."""
    return dump_yaml(config.model_dump(mode="json"))


def config_hash(config: Section) -> str:
    """Return 12 hexadecimal digits that are the same for equal configs on every machine."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def dotted_items(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk nested mappings in order.

    Args:
        content: Nested dictionaries; anything else, lists and empty mappings too, is a leaf.
        prefix: Dotted key of the content itself, put before each key.

    Yields:
        The dotted key and the value of each leaf.

    Example:
        >>> list(dotted_items({"train": {"steps": 500, "clip": 5.0}, "seed": 0}))
        [('train.steps', 500), ('train.clip', 5.0), ('seed', 0)]
    """
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from dotted_items(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, content


class _Layer(NamedTuple):
    """One source of settings; later layers go over earlier ones."""

    source: str
    content: dict[str, Any]


def _read_layers(path: Path, readers: tuple[Path, ...] = ()) -> list[_Layer]:
    """Read a file and, before it, the files it extends."""
    if path.resolve() in readers:
        chain = " -> ".join(reader.name for reader in (*readers, path))
        raise UserError(f"{path}: a config must not extend itself ({chain}); remove one `extends`")
    content = parse_yaml(read_text(path), str(path)) or {}
    if not isinstance(content, dict):
        kind = {list: "list", str: "text", bool: "truth value"}.get(type(content), "number")
        raise UserError(f"{path}: a config is a mapping of keys to values (`key: value`), not a {kind}")
    base = content.pop("extends", None)
    if base is None:
        return [_Layer(str(path), content)]
    if not isinstance(base, str):
        raise UserError(f"{path}: extends = {_show(base)} must be the path of one YAML file")
    try:
        base_path = resolve_config_path(base, path.parent)
    except UserError as error:
        raise UserError(f"{path}: extends = {base}: {error}") from None
    return [*_read_layers(base_path, (*readers, path.resolve())), _Layer(str(path), content)]


def _override_layer(override: str) -> _Layer:
    """Turn `a.b=1` into {a: {b: 1}}."""
    dotted, equals, value = override.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    if not equals or not all(keys) or len(keys) > DEEPEST:
        raise UserError(f"--set {override}: write it as key=value, for example search.steps=200")
    source = f"--set {override}"
    return _Layer(source, reduce(lambda content, key: {key: content}, reversed(keys), parse_yaml(value, source)))


def _scaled(usual: Section, below: Any, above: Any) -> dict[str, Any]:
    """Return, nested, the scaled keys of each section whose `steps` the settings change.

    Args:
        usual: The section with its defaults.
        below: Content of the section in the files.
        above: Content of the section in the settings of the command line.
    """
    if not isinstance(above, dict):
        return {}
    below = below if isinstance(below, dict) else {}
    scaled: dict[str, Any] = {}
    for name in above:
        section = getattr(usual, name, None)
        if isinstance(section, Section) and (inner := _scaled(section, below.get(name), above[name])):
            scaled[name] = inner
    steps, before = above.get("steps"), below.get("steps", getattr(usual, "steps", None))
    for name in usual.scaled_by_steps:
        value = below.get(name, getattr(usual, name))
        if name not in above and all(type(number) is int and number > 0 for number in (steps, before, value)):
            # Rounded down, the warm-up stays shorter than the steps; validations of a short trial are at least 10 steps
            # apart, since they take longer than its steps.
            scaled[name] = value * steps // before if name == "warmup" else -(-value * steps // before)
            if name == "validate_every":
                scaled[name] = max(scaled[name], min(10, steps or 10))
    return scaled


def _merged(layers: Sequence[_Layer]) -> Any:
    return reduce(_merge, (layer.content for layer in layers), {})


def _merge(below: Any, above: Any) -> Any:
    """Merge mappings key by key; replace anything else, and a mapping by one that has a base of its own."""
    if isinstance(below, str):
        below = {"base": below}
    if not (isinstance(below, dict) and isinstance(above, dict)) or isinstance(above.get("base"), str):
        return above
    return below | {key: _merge(below[key], value) if key in below else value for key, value in above.items()}


def _explain(error: ValidationError, model: type[Section], merged: Any, layers: list[_Layer]) -> str:
    """Write the one line for the first problem, and count the others."""
    problems: dict[tuple[str | int, ...], list[Any]] = {}
    for detail in error.errors(include_url=False):
        place = _place(detail["loc"], merged, missing=detail["type"] == "missing")
        problems.setdefault(place, []).append(detail)
    place, details = next(iter(problems.items()))
    dotted = ".".join(map(str, place))
    source = _source(place, layers)
    where = f" ({source})" if source else ""
    # A value that fits no member of a union has one detail for each member.
    message = " or ".join(dict.fromkeys(_message(detail) for detail in details))
    match details[0]["type"]:
        case "extra_forbidden":
            line = f"unknown key {dotted}{where}{_suggest(place, model)}"
        case "missing":
            line = f"{dotted} is missing{where}; add it"
        case _ if not place:
            line = f"{message}{where}"
        case _:
            line = f"{dotted} = {_show(details[0]['input'])} {message}{where}"
    return line + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _message(detail: Any) -> str:
    """Rephrase pydantic's message so that it follows `key = value`."""
    message = str(detail["msg"]).removeprefix("Value error, ")
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _place(location: tuple[str | int, ...], content: Any, *, missing: bool) -> tuple[str | int, ...]:
    """Keep those parts of pydantic's location that are keys of the file, not names of union members."""
    place: list[str | int] = []
    for depth, part in enumerate(location):
        if _holds(content, part):
            content = content[part]
            place.append(part)
        elif missing and depth == len(location) - 1:
            place.append(part)
    return tuple(place)


def _source(place: tuple[str | int, ...], layers: list[_Layer]) -> str:
    """Name the last layer that has a place; for a missing key, the last of all."""
    for layer in reversed(layers):
        content: Any = layer.content
        for part in place:
            if not _holds(content, part):
                break
            content = content[part]
        else:
            return layer.source
    return layers[-1].source if layers else ""


def _holds(content: Any, part: str | int) -> bool:
    """Tell whether nested plain data has this key or index."""
    if isinstance(content, dict):
        return part in content
    return isinstance(content, list) and isinstance(part, int) and part < len(content)


def _suggest(place: tuple[str | int, ...], model: type[Section]) -> str:
    """Suggest the known keys that resemble an unknown one."""
    names = [str(part) for part in place]
    paths = list(_model_paths(model))
    siblings = [path[-1] for path in paths if path[:-1] == tuple(n for n in names[:-1] if not n.isdigit())]
    elsewhere = [".".join(path) for path in paths if path[-1] == names[-1]]
    nearest = difflib.get_close_matches(names[-1], siblings, n=1)
    if nearest:
        return f"; did you mean {'.'.join([*names[:-1], *nearest])}?"
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere[:3])}?"
    return f"; known keys here: {', '.join(siblings)}"


def _model_paths(model: type[Section], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Walk all keys of a model, and those of sections in a list or union as keys of its field."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        for section in sections_in(field.annotation):
            yield from _model_paths(section, (*prefix, name))


def sections_in(annotation: Any) -> list[type[Section]]:
    """Find the sections within an annotation such as `Section | None` or `list[Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in sections_in(argument)]


def _show(value: Any) -> str:
    """Show a value as a user would write it, in one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
