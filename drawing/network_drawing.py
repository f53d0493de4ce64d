"""Drawing a genotype: the network and each of its cells, as DOT text, SVG and PNG."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import graphviz

from ..genotypes.genotype import Genotype
from ..runtime.files import write_atomically
from .canvas import render_with_matplotlib
from .dot import dot_graph
from .picture import PNG_DPI, Picture, cell_picture, network_picture

_WITHOUT_GRAPHVIZ = (
    "drawn without graphviz, whose program 'dot' was not found; install graphviz to draw with it "
    "(Debian, Ubuntu: apt install graphviz; macOS: brew install graphviz; conda: conda install graphviz)"
)


@dataclass(frozen=True)
class Drawing:
    """What `draw` has made.

    Args:
        files: The files written, the network's first.
        note: What the user should know about how they were drawn, or None.
    """

    files: tuple[Path, ...]
    note: str | None


def draw(genotype: Genotype, folder: Path, parameters: Mapping[str, int] | None = None) -> Drawing:
    """Draw a network and each of its cells.

    Writes network.dot, network.svg and network.png into a folder, and the same three of cell_1, cell_2, ...
    The program `dot` of graphviz draws where it is installed; otherwise Python does.

    Args:
        genotype: The architecture.
        folder: Where the files go; made where it does not exist.
        parameters: Number of elements of every parameter of the built network, by the parameter's name;
            without it, the drawing tells no numbers of parameters.

    Returns:
        The files and a note.

    Raises:
        UserError: If a file cannot be written.
    """
    pictures = {"network": network_picture(genotype, parameters)}
    for index in range(len(genotype.cells)):
        pictures[f"cell_{index + 1}"] = cell_picture(genotype, index, parameters)
    files: list[Path] = []
    note: str | None = None
    for name, picture in pictures.items():
        contents, note = _render(picture)
        for form, content in contents.items():
            path = folder / f"{name}.{form}"
            write_atomically(path, content)
            files.append(path)
    return Drawing(tuple(files), note)


def _render(picture: Picture) -> tuple[dict[str, str | bytes], str | None]:
    dot = dot_graph(picture)
    source: dict[str, str | bytes] = {"dot": dot.source}
    try:
        svg = dot.pipe(format="svg", quiet=True)
        # The resolution changes the size of the SVG too, so it is set for the PNG alone.
        sharp = dot.copy()
        sharp.graph_attr["dpi"] = str(PNG_DPI)
        return {**source, "svg": svg, "png": sharp.pipe(format="png", quiet=True)}, None
    except graphviz.ExecutableNotFound:
        return {**source, **render_with_matplotlib(picture)}, _WITHOUT_GRAPHVIZ
    except subprocess.CalledProcessError as error:
        reason = " ".join((error.stderr or b"").decode(errors="replace").split()) or f"exit code {error.returncode}"
        return {
            **source,
            **render_with_matplotlib(picture),
        }, f"drawn without graphviz, whose 'dot' failed: {reason}"
