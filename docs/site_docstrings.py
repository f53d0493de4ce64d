"""Reads the docstrings of the package for the site: plain text with doctests, not Markdown."""

import re
from typing import Any

from griffe import Extension, Module, Object

DOCTEST = re.compile(r"^( *)(>>> (?:.+\n?)+)", re.MULTILINE)
MARKUP = re.compile(r"^ .*$|(`[^`]*`)|[*<]", re.MULTILINE)  # indented lines, code, and what Markdown would interpret


class PlainDocstrings(Extension):
    """Shows doctests as code and signs as they are, and functions that have the name of their module."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            text, end, parts = obj.docstring.value, 0, []
            for doctest in DOCTEST.finditer(text):
                indent, code = doctest[1], doctest[2].rstrip("\n")
                parts += [_escaped(text[end : doctest.start()]), f"{indent}```pycon\n{indent}{code}\n{indent}```\n"]
                end = doctest.end()
            obj.docstring.value = "".join([*parts, _escaped(text[end:])])

    def on_module(self, *, mod: Module, **_: Any) -> None:
        """Let what a package imports from a module take the place of the module, where a function has its name."""
        exports = [str(name) for name in mod.exports or ()]
        modules = {name: mod.members[name] for name in exports if isinstance(mod.members.get(name), Module)}
        hidden = {module.path: module for module in modules.values()}
        for name in exports:
            member = mod.members.get(name)
            if name in modules:
                mod.members[name] = modules[name].members[name]
            elif member is not None and member.is_alias:
                module = hidden.get(member.target_path.rpartition(".")[0])
                if module is not None:
                    mod.members[name] = module.members[name]


def _escaped(text: str) -> str:
    return MARKUP.sub(lambda match: {"*": "\\*", "<": "&lt;"}.get(match[0], match[0]), text)
