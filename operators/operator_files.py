"""Python files of the user that register operators: run, and every operator tried before anything relies on it."""

import hashlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from ..genotypes.operator_names import operators_of
from ..runtime.errors import UserError
from .operator_trial import try_operator
from .registration import REGISTERED, in_one_line


def load_operators(path: Path) -> tuple[str, ...]:
    """Run a Python file that registers operators (see `register_operator`), and try each of them.

    The file is a program with all rights of the user: run only what the user names, never what a download names.

    Args:
        path: The file.

    Returns:
        The ids of the operators that it registers.

    Raises:
        UserError: The file cannot be read or run or registers nothing, or an operator is not what it has to be; names
            the file and, where there is one, the line.
    """
    before = dict(REGISTERED)
    _run(path)
    kinds = [kind for kind, registration in REGISTERED.items() if before.get(kind) is not registration]
    if not kinds:
        raise UserError(f'{path} registers no operator; write @register_operator("NAME") above a function in it')
    names = tuple(str(name) for kind in kinds for name in operators_of(kind))
    for name in names:
        try:
            try_operator(name)
        except UserError as error:
            raise UserError(f"{path}{_line(error.__cause__, path)}: {error}") from error
    return names


def _run(path: Path) -> None:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path given to --operators") from None
    file = str(path.resolve())
    # Under this name Python finds the module of a class, and no import ever does.
    module = ModuleType(f"timfuse_operators_{hashlib.sha256(file.encode()).hexdigest()[:12]}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, file, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        what = str(error) if isinstance(error, UserError) else in_one_line(error)
        raise UserError(f"{path}{_line(error, path)}: {what}") from error


def _line(error: BaseException | None, path: Path) -> str:
    """Say which line of a file an error comes from, where it comes from there."""
    if error is None:
        return ""
    file = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    return f", line {lines[-1]}" if lines else ""
