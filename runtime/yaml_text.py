"""YAML as text: plain data only, the scalars of YAML 1.2, and errors that name the line."""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from .errors import UserError
from .files import read_text

DEEPEST = 50
"""Largest number of levels of nested mappings and lists; deeper ones are no content of a file of timfuse."""

_DIGITS = sys.float_info.max_10_exp


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping, such as the config of a run.

    Raises:
        UserError: If the file cannot be read, is no YAML or holds something else.
    """
    content = parse_yaml(read_text(path), str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no mapping; it is damaged or no file of timfuse")
    return content


def parse_yaml(text: str, source: str, *, numbered: bool = False) -> Any:
    """Parse YAML safely, with the scalars of YAML 1.2: `1e-3` is a number, `no` and `1:30` are texts.

    Args:
        source: Name of the text in an error, such as its file.
        numbered: Whether whole numbers may be keys too.

    Returns:
        Dictionaries with text keys, lists, texts, numbers, booleans and None.

    Raises:
        UserError: If there is a syntax error, a duplicate key, a key that is not text, a reference or a tag; the
            message begins with `source:line`.

    Example:
        >>> parse_yaml("{rate: 1e-3, flip: no}", "example")
        {'rate': 0.001, 'flip': 'no'}
    """
    try:
        # The loaders derive from SafeLoader: they build plain data and run nothing.
        return yaml.load(text, Loader=_NumberedLoader if numbered else _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        words = _one_line(", ".join(filter(None, (error.context, error.problem))))
        raise UserError(f"{source}{line}: not valid YAML: {words}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{source}: not valid YAML: {_one_line(error)}") from None


def dump_yaml(content: Any) -> str:
    """Write plain data as YAML that `parse_yaml` reads back.

    Args:
        content: Dictionaries with text keys, lists, texts, numbers, booleans and None.

    Returns:
        YAML in block style in the order of the content, with lists of plain values on one line.

    Example:
        >>> print(dump_yaml({"cells": [{"kind": "successive", "operators": ["identity", "no"]}]}), end="")
        cells:
        - kind: successive
          operators: [identity, no]
    """
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2, unique keys, and no references, tags or deep nesting."""

    depth = 0

    key_kinds: tuple[str, ...] = ("str",)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse references, which can expand a few lines to gigabytes, tags, which ask for types, and deep nesting."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor or event.tag:
            raise _error("anchors (&), aliases (*) and tags (!) are not read; write plain YAML", event)
        if self.depth > DEEPEST:
            raise _error("nested too deeply; write it flatter", event)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Refuse halves of characters, which UTF-8 does not have, and whole numbers beyond those of any computation."""
        text = super().construct_scalar(node)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise _error("a text or a name must be in UTF-8; choose another name", node)
        if node.tag.endswith(":int") and len(text) > _DIGITS:
            raise _error(f"a number must have at most {_DIGITS} digits", node)
        return text

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that occurs twice or is not text, which the safe loader accepts."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag.removeprefix("tag:yaml.org,2002:") not in self.key_kinds:
                raise _error("a key must be text; put it in quotes", key)
            if key.value in seen:
                raise _error(f"the key {key.value} occurs twice; remove one", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _NumberedLoader(_Loader):
    """The same with whole numbers as keys."""

    key_kinds = ("str", "int")


def _one_line(words: object) -> str:
    return " ".join(str(words).split())


def _error(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


class _Dumper(yaml.SafeDumper):
    """The safe dumper with lists of plain values on one line, and line ends of Unicode in double quotes."""

    def represent_scalar(self, tag: str, value: str, style: str | None = None) -> yaml.ScalarNode:
        """Escape line ends that are no newline, which the loader would read as spaces."""
        return super().represent_scalar(tag, value, '"' if _LINE_ENDS.search(value) else style)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """Write a list of plain values on one line, and a list of mappings on several."""
        plain = not any(isinstance(item, (dict, list)) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=plain)

    def ignore_aliases(self, data: Any) -> bool:
        """Write a value in full each time it occurs."""
        return True


_LINE_ENDS = re.compile("[\r\x85\u2028\u2029]")
_SCALARS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9_]*)\.[0-9]*|(0|[1-9][0-9_]*)(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}

for _class in (_Loader, _Dumper):
    # The dumper knows the same scalars, so that it quotes exactly the texts that the loader would misread.
    _class.yaml_implicit_resolvers = {}
    for _name, (_pattern, _first) in _SCALARS.items():
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), _first)
