"""DOT text as SVG and PNG, by the graphviz library that comes with pygraphviz."""

import os
import subprocess
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

from ..runtime.errors import UserError

# Only the PNG gets the resolution, which would change the size of an SVG too.
_PROGRAM = """
import sys
from pygraphviz import AGraph

for stem in sys.argv[1:]:
    AGraph(f"{stem}.dot").draw(f"{stem}.svg", prog="dot")
    AGraph(f"{stem}.dot").draw(f"{stem}.png", prog="dot", args="-Gdpi=160")
"""
# matplotlib's font serves machines that have none; other alphabets need fonts of the machine.
_FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{matplotlib}</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""


def render(texts: Mapping[str, str]) -> dict[str, bytes]:
    """Draw graphs from DOT text by name, and return the contents of NAME.dot, NAME.svg and NAME.png by file name.

    Graphviz runs in a process of its own, because the C library may print messages or crash.

    Raises:
        UserError: If graphviz cannot draw a text.
    """
    import matplotlib

    with TemporaryDirectory() as folder:
        fonts = Path(folder, "fonts.conf")
        fonts.write_text(_FONTS.format(matplotlib=escape(str(Path(matplotlib.get_data_path(), "fonts", "ttf")))))
        for name, text in texts.items():
            Path(folder, f"{name}.dot").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-P", "-c", _PROGRAM, *texts],
            cwd=folder,
            env={**os.environ, "FONTCONFIG_FILE": str(fonts)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
            raise UserError(f"graphviz cannot draw the network: {reason}; try to install pygraphviz again")
        files = [f"{name}.{form}" for name in texts for form in ("dot", "svg", "png")]
        return {file: Path(folder, file).read_bytes() for file in files}
