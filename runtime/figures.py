"""Writing drawings: each as SVG for print and as PNG for everything else."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from .files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", stem: Path) -> list[Path]:
    """Write a figure, the same bytes for the same figure.

    Args:
        figure: With a canvas.
        stem: The files without their suffixes.

    Returns:
        The SVG and the PNG file.

    Raises:
        UserError: A file cannot be written.
    """
    files = []
    for form, metadata in (("svg", {"Date": None}), ("png", {})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=150, metadata=metadata)
        path = stem.with_suffix(f".{form}")
        write_atomically(path, buffer.getvalue())
        files.append(path)
    return files
