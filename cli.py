"""The command line: its commands in groups, and one line for every mistake."""

import contextlib
import io
import itertools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from . import __version__
from .commands.look import config, genotypes, latency, networks, visualize
from .commands.train import adapt, evaluate_task, finetune, meta_init, search, train, tune
from .commands.use import align, app_, compare, evaluate, export, fuse, import_, push, scenes
from .runtime.errors import UserError, printable
from .runtime.terminal import leads

# As `--help` lists them.
GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Use": (fuse, app_, align, evaluate, compare, export, push, import_, scenes),
    "Train": (train, search, meta_init, adapt, finetune, evaluate_task, tune),
    "Look": (networks, visualize, genotypes, latency, config),
}
_LONGEST_LINE = 1000  # characters of an error; a longer one, which repeats a long value, loses its middle
_SOURCES = "--sources"
_SPINS = "1000"  # by benchmarks/spinning.py
_UsageError: Any = typer.BadParameter.__base__  # of click or of typer, by the version of typer
_debug = False


def _name(command: Callable[..., None]) -> str:
    return command.__name__.strip("_").replace("_", "-")


class Groups(TyperGroup):
    """The whole command line: its help lists the commands by group, and wrong words are mistakes like any other."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command line and end the process; raise a `UserError` for words that fit no command."""
        try:
            sys.exit(super().main(*arguments, **{**options, "standalone_mode": False}))
        except _UsageError as error:
            message = error.format_message()
            if message == error.ctx.get_help():  # there are no words at all
                typer.echo(message, err=True)
                sys.exit(error.exit_code)
            raise UserError(f"{message.rstrip('.')}; see `{error.ctx.command_path} --help`") from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the part of the help that lists the commands."""
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl([(_name(command), str(command.__doc__).partition("\n")[0]) for command in commands])


class Command(TyperCommand):
    """A command whose --sources takes all words that follow, up to the next option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words of a command line, with --sources before each word that it takes."""
        words: list[str] = []
        taking = False
        for given in args:
            word = given
            if given.startswith(f"{_SOURCES}="):
                words.append(_SOURCES)
                taking, word = True, given.partition("=")[2]
            elif word.startswith("-"):
                if words and words[-1] == _SOURCES:
                    raise UserError(f"{_SOURCES} names nothing; name two or more sources")
                taking = word == _SOURCES
            elif taking and words[-1] != _SOURCES:
                words.append(_SOURCES)
            words.append(word)
        return super().parse_args(ctx, words)


app = typer.Typer(
    name="timfuse",
    cls=Groups,
    help="Find, train and use compact image-fusion networks.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in itertools.chain(*GROUPS.values()):
    app.command(_name(_command), cls=Command)(_command)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"timfuse {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    operators: Annotated[
        list[Path] | None,
        typer.Option(
            "--operators",
            metavar="FILE",
            help="Python file that registers operators or task networks of your own; is run.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug
    if operators:
        from .downstream.registered import load_extensions

        for file in operators:
            load_extensions(file)


def _thread_died(died: threading.ExceptHookArgs) -> None:
    if not isinstance(died.exc_value, OSError):
        threading.__excepthook__(died)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake is reported in one line, with exit code 2.

    Args:
        arguments: Arguments after `timfuse`; None for those of the process.
    """
    # Threads that wait for each other do so busily for a short while. The usual while is so long that beside another
    # program they take each other's cores. OpenMP reads this when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    # TensorBoard writes in a thread of its own. If the disk is full, the next line of the history reports that too.
    threading.excepthook = _thread_died
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the names of files may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        # Only the first of the processes that torchrun starts reports.
        with contextlib.redirect_stdout(sys.stdout if leads() else io.StringIO()), warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # what libraries warn of is for programmers
            app(arguments)
    except (UserError, OSError, MemoryError, RuntimeError, ValueError) as error:
        line = _line_of(error)
        if _debug or not line:
            raise
        # Before the processes of a machine work together, all of them raise the same error; one of them reports it.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            if len(line) > _LONGEST_LINE:
                line = f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 2 :]}"
            typer.echo(f"error: {line}", err=True)
        sys.exit(2)


def _line_of(error: Exception) -> str:
    """Describe an error that is not a defect in one line; "" for any other."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return printable(f"cannot use {error.filename}: {error.strerror}" if error.filename else error.strerror)
    if str(error).startswith("embedded null"):
        return "a path holds the character NUL, which no name of a file can hold; choose another name"
    # Both are pathlib's.
    if str(error).startswith("Symlink loop from"):
        return printable(f"{error}; remove the link")
    if str(error).startswith("Could not determine home directory"):
        return "there is no such user as a path names after ~; write the whole path"
    # The second and the third are torch's, for the CPU and for CUDA.
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return "there is not enough memory for this; lower data.crop, data.batch_size, the network or the images"
    return ""
