"""Loads Python files of the user that register operators, and tests every operator."""

import hashlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from ..genotypes.operator_names import operators_of
from ..runtime.errors import UserError, in_one_line
from .operator_trial import try_operator
from .registration import REGISTERED


def load_operators(path: Path, *, needed: bool = True) -> tuple[str, ...]:
    """Run a Python file that registers operators, test each of them, and return their ids.

    The file is a program with all rights of the user. Run only files that the user names.

    Args:
        needed: Whether the file has to register an operator.

    Raises:
        UserError: If the file cannot be read, fails or registers no operator that is needed, or an operator fails its
            tests; names the file and, if there is one, the line.

    Example:
        >>> import tempfile
        >>> text = 'import timfuse.operators as o, torch; o.register_operator("half")(lambda: torch.nn.AvgPool2d(1))'
        >>> with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        ...     print(text, file=file, flush=True)
        ...     load_operators(Path(file.name))
        ('half',)
    """
    before = dict(REGISTERED)
    _run(path)
    kinds = [kind for kind, registration in REGISTERED.items() if before.get(kind) is not registration]
    if needed and not kinds:
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
    # Python finds the module of a class by this name; no import does.
    module = ModuleType(f"timfuse_operators_{hashlib.sha256(file.encode()).hexdigest()[:12]}")
    module.__file__ = file
    sys.modules[module.__name__] = module
    try:
        exec(compile(source, file, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        message = str(error) if isinstance(error, UserError) else in_one_line(error)
        raise UserError(f"{path}{_line(error, path)}: {message}") from error


def _line(error: BaseException | None, path: Path) -> str:
    """Return the line of a file that an error comes from, as ", line 3", or nothing."""
    if error is None:
        return ""
    file = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    return f", line {lines[-1]}" if lines else ""
