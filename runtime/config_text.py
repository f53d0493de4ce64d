"""A config as commented YAML: above each key its meaning, its kind and its range."""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from .config import Section, sections_in
from .yaml_text import dump_yaml

_WIDTH = 100
_KINDS = {"integer": "whole number", "string": "text", "boolean": "true or false", "object": "mapping"}
_BOUNDS = {
    "minimum": "at least {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "at most {:g}",
    "exclusiveMaximum": "below {:g}",
    "multipleOf": "a multiple of {:g}",
    "minItems": "at least {}",
    "minLength": "{} or more characters",
    "maxLength": "{} or fewer characters",
}
_ENTRY = re.compile(r"    (\w+): (.*)")


def commented_yaml(config: Section) -> str:
    """Write a whole config with comments, in the order of the model.

    Where a section is null, its keys follow as a comment. Keys of a kind of section that comes twice, such as a second
    loss, are explained where they come first.
    """
    title = inspect.cleandoc(type(config).__doc__ or "").partition("\n")[0]
    return "\n".join([f"# {title}", *_section_lines(config, set(), apart=True)]) + "\n"


def attribute_meanings(owner: type) -> dict[str, str]:
    """Read the meaning of each attribute, in one line, from the docstrings of a class and its base classes."""
    meanings: dict[str, str] = {}
    for base in reversed(owner.__mro__):
        _, _, entries = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        name = ""
        for line in entries.partition("\n\n")[0].splitlines():
            if entry := _ENTRY.fullmatch(line):
                name, meanings[entry[1]] = entry[1], entry[2]
            elif name:
                meanings[name] += f" {line.strip()}"
    return meanings


def describe_values(schema: dict[str, Any]) -> str:
    """Describe in words the values that a key may have.

    Args:
        schema: JSON schema of the key, as pydantic makes it.

    Example:
        >>> describe_values({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
        'whole number, at least 1; or null'
    """
    match schema:
        case {"anyOf": members}:
            words = "; or ".join(map(describe_values, members))
        case {"enum": choices}:
            words = ", ".join(map(str, choices))
        case {"const": choice}:
            words = str(choice)
        case {"prefixItems": items}:
            return f"list of {len(items)}: {describe_values(items[0])}"
        case {"type": "array", "items": items}:
            words = f"list of {describe_values(items)}"
        case {"format": "path"}:
            words = "path"
        case _:
            kind = schema.get("type", "object" if "$ref" in schema else "any value")
            words = _KINDS.get(kind, kind)
    return ", ".join([words, *(text.format(schema[key]) for key, text in _BOUNDS.items() if key in schema)])


def _section_lines(section: Section, explained: set[type], *, apart: bool = False) -> Iterator[str]:
    model, plain = type(section), section.model_dump(mode="json")
    schemas, meanings = model.model_json_schema()["properties"], attribute_meanings(model)
    comment = model not in explained
    explained.add(model)
    for name, field in model.model_fields.items():
        value = getattr(section, name)
        yield from [""] * apart
        if comment:
            yield from _comment(field.description or meanings.get(name, ""), schemas[name], plain[name])
        yield from _value_lines(name, value, plain[name], explained)
        for hidden in sections_in(field.annotation) if value is None else []:
            if hidden not in explained:
                yield from (f"# {line}" for line in _value_lines(name, hidden(), {}, explained))


def _comment(meaning: str, schema: dict[str, Any], value: Any) -> list[str]:
    if not isinstance(value, dict):
        usual = schema.get("default", value)
        default = "" if usual == value else f"; default {json.dumps(usual)}"
        meaning = f"{meaning} ({describe_values(schema)}{default})".lstrip()
    return [f"# {line}" for line in textwrap.wrap(meaning, _WIDTH, break_on_hyphens=False, break_long_words=False)]


def _value_lines(name: str, value: Any, plain: Any, explained: set[type]) -> Iterator[str]:
    if isinstance(value, Section):
        inner = _section_lines(value, explained)
    elif isinstance(value, dict) and any(isinstance(item, Section) for item in value.values()):
        inner = (line for key, item in value.items() for line in _value_lines(key, item, plain[key], explained))
    else:
        yield from dump_yaml({name: plain}).splitlines()
        return
    yield f"{name}:"
    yield from (f"  {line}" for line in inner)
