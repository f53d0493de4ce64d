import os
import platform
import subprocess
import sys

import pytest

from timfuse.runtime import memory
from timfuse.runtime.memory import keep_freed_memory

# Counts the page faults of making and freeing one large block again and again.
FAULTS = """
import os, resource
from timfuse.runtime.memory import keep_freed_memory

def faults():
    bytearray(32 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        bytearray(32 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
os.environ["TIMFUSE_KEEP_MEMORY"] = "0"
keep_freed_memory()
refused = faults()
del os.environ["TIMFUSE_KEEP_MEMORY"]
keep_freed_memory()
print(usual, refused, faults())
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="there is no glibc here"
)
def test_freed_blocks_are_used_again_unless_the_user_says_no():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=os.environ)
    usual, refused, kept = map(int, done.stdout.split())
    if usual < 100:
        pytest.skip("huge pages leave too few faults to tell")
    assert refused > usual / 2
    assert kept < usual / 5


class Library:
    """A C library that knows some functions, as ctypes shows it."""

    def __init__(self, *functions):
        self.calls = []
        for name in functions:
            setattr(self, name, lambda *arguments: self.calls.append(arguments))


@pytest.mark.parametrize(
    ("system", "functions", "setting", "calls"),
    [
        ("linux", ["mallopt"], None, 2),
        ("linux", ["mallopt"], "1", 2),
        ("linux", ["mallopt"], "0", 0),
        ("linux", [], None, 0),
        ("darwin", ["mallopt"], None, 0),
        ("win32", ["mallopt"], None, 0),
    ],
)
def test_other_systems_are_left_alone(monkeypatch, system, functions, setting, calls):
    library = Library(*functions)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(memory.sys, "platform", system)
    monkeypatch.delenv("TIMFUSE_KEEP_MEMORY", raising=False)
    if setting is not None:
        monkeypatch.setenv("TIMFUSE_KEEP_MEMORY", setting)
    keep_freed_memory()
    assert len(library.calls) == calls
