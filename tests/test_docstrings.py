"""Docstrings follow one template, and their examples run.

ruff checks the form of all docstrings (rules D, Google style). Beyond that, everything public has one, its arguments
exist, its entries say something, and each name that a package exports has an example.
"""

import doctest
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

import timfuse

PACKAGES = {
    module.name.removeprefix("timfuse."): module.ispkg
    for module in pkgutil.walk_packages([str(Path(timfuse.__file__).parent)], "timfuse.")
    if not module.name.startswith(("timfuse.tests", "timfuse.benchmarks", "timfuse.__main__"))
}
MODULES = sorted(PACKAGES)
SHORTEST_ENTRY = 28  # characters; less does not say more than the name


def load(name: str) -> ModuleType:
    return importlib.import_module(f"timfuse.{name}")


def entries(docstring: str, section: str) -> dict[str, str]:
    """Read the entries of a section in Google style, each on one line."""
    lines = inspect.cleandoc(docstring).splitlines()
    if f"{section}:" not in lines:
        return {}
    found: dict[str, str] = {}
    for line in lines[lines.index(f"{section}:") + 1 :]:
        if line and not line.startswith(" "):
            break
        if entry := re.fullmatch(r" {4}\*{0,2}(\w+): *(.*)", line):
            name, found[entry[1]] = entry[1], entry[2]
        elif line:
            found[name] += f" {line.strip()}"
    return found


def documented(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Walk the public functions, classes, methods and properties that a module defines.

    A method that overrides one of a base class, such as `forward`, may leave its docstring to that.
    """
    for name, value in vars(module).items():
        if name.startswith("_") or not callable(value) or getattr(value, "__module__", "") != module.__name__:
            continue
        yield name, value
        for attribute, member in vars(value).items() if inspect.isclass(value) else ():
            member = getattr(member, "__func__", member)  # of a class method or static method
            if attribute.startswith("_") and attribute != "__call__":
                continue
            overrides = any(attribute in vars(base) for base in value.__mro__[1:])
            kind = FunctionType | property | functools.cached_property
            if isinstance(member, kind) and (member.__doc__ or not overrides):
                yield f"{name}.{attribute}", member


def faults(name: str, value: object) -> Iterator[str]:
    """Say how a docstring departs from the template."""
    docstring = value.__doc__ or ""
    if not docstring:
        yield f"{name} has no docstring"
    arguments = entries(docstring, "Args")
    for argument in arguments.keys() - (inspect.signature(value).parameters if arguments else {}):
        yield f"{name} has no parameter {argument}"
    for argument, text in (arguments | entries(docstring, "Attributes")).items():
        if not re.match(r"[A-Z]", text):
            yield f"{name}, {argument}: {text!r} does not begin with a capital letter"
        if len(text) < SHORTEST_ENTRY:
            yield f"{name}, {argument}: {text!r} says too little; say more, or leave the entry out"


def test_the_template_is_checked():
    def function(first, second):
        """Do something.

        Args:
            first: Text of an entry that goes on for a
                second line.
            second: of the run.
            third: Third of the two parameters of this function.
        """

    text = "Text of an entry that goes on for a second line."
    assert entries(function.__doc__, "Args")["first"] == text
    assert [fault.partition(": ")[0] for fault in faults("function", function)] == [
        "function has no parameter third",
        "function, second",
        "function, second",
    ]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_follow_the_template(name):
    assert [fault for value in documented(load(name)) for fault in faults(*value)] == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, registrations):
    module = load(name)
    finder, runner = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner()
    tests = {test.name: test for test in finder.find(module)}
    # The finder takes what a decorator returns for a part of the decorator's module.
    for attribute, value in documented(module):
        if hasattr(value, "__wrapped__"):
            tests |= {test.name: test for test in finder.find(value, f"{module.__name__}.{attribute}", module)}
    for test in tests.values():
        runner.run(test)
    assert runner.summarize().failed == 0


@pytest.mark.parametrize("name", [name for name in MODULES if PACKAGES[name]])
def test_every_exported_name_has_an_example(name):
    package = load(name)
    parse = doctest.DocTestParser().get_examples
    exported = {each: getattr(package, each) for each in package.__all__}
    # The package's own example shows its constants, which have no docstring.
    in_package = " ".join(example.source for example in parse(package.__doc__))
    constants = {each for each, value in exported.items() if not (inspect.isclass(value) or inspect.isfunction(value))}
    shown = {each for each in constants if re.search(rf"\b{each}\b", in_package)}
    shown |= {each for each in exported.keys() - constants if parse(exported[each].__doc__)}
    # The example of a function also shows the type of its result.
    results = [
        inspect.signature(exported[each]).return_annotation for each in shown if inspect.isfunction(exported[each])
    ]
    assert [each for each, value in exported.items() if each not in shown and value not in results] == []
