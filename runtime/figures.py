"""Figures as files: SVG for print and PNG for everything else."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from .files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: "Figure", stem: Path) -> list[Path]:
    """Write a figure to an SVG and a PNG file; equal figures give equal bytes.

    Args:
        figure: Figure with a canvas that can draw both formats.
        stem: Path of the files without their suffixes.

    Returns:
        The paths of the SVG and the PNG file.

    Raises:
        UserError: If a file cannot be written.
    """
    files = []
    for form, metadata in (("svg", {"Date": None}), ("png", {})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=form, dpi=150, metadata=metadata)
        path = stem.with_suffix(f".{form}")
        write_atomically(path, buffer.getvalue())
        files.append(path)
    return files
