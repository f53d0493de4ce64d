"""What `--help` says, and that it says it at once."""

import os
import subprocess
import sys

import pytest
import typer

import timfuse
from timfuse.cli import app

# By name, the first line of the help of each command.
COMMANDS = {name: command.help.splitlines()[0] for name, command in typer.main.get_command(app).commands.items()}


def helped(*words):
    """Run a command line in a process of its own; return what it prints, and the slow packages that it imports."""
    program = (
        "import sys, contextlib\n"
        "from timfuse.cli import main\n"
        "with contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "print([name for name in ('torch', 'numpy') if name in sys.modules])"
    )
    command, environment = [sys.executable, "-c", program, *words], {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    *lines, imported = done.stdout.splitlines()
    return lines, imported


def test_the_help_lists_every_command_whole_and_imports_nothing_slow():
    lines, imported = helped("--help")
    assert imported == "[]"
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line.endswith(":")] == ["Options:", "Use:", "Train:", "Look:"]
    listed = dict(line.split(maxsplit=1) for line in lines[lines.index("Use:") :] if line.startswith("  "))
    assert next(iter(listed)) == "fuse"
    assert listed == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command(name):
    lines, imported = helped(name, "--help")
    assert imported == "[]"
    assert max(map(len, lines)) <= 80
    assert lines[2].strip() == COMMANDS[name]


def test_the_version(run):
    assert run("--version") == (0, f"timfuse {timfuse.__version__}\n", "")


def test_a_command_that_is_not_there(run):
    code, output, errors = run("fsue")
    assert (code, output) == (2, "")
    assert "No such command 'fsue'" in errors


def test_a_shell_completes_commands():
    environment = {**os.environ, "_TIMFUSE_COMPLETE": "complete_bash", "COMP_WORDS": "timfuse gen", "COMP_CWORD": "1"}
    code = "import sys; sys.argv[0] = 'timfuse'; from timfuse.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["genotypes"]
