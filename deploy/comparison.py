"""Writes a comparison of methods: the picture sheet and the page."""

import io
from collections.abc import Sequence
from pathlib import Path

from ..data import Pair
from ..runtime.files import make_folder, write_atomically
from ..runtime.progress import Progress
from .comparison_page import comparison_page
from .comparison_sheet import comparison_sheet
from .evaluation import evaluate
from .methods import Methods
from .zoom_regions import Region


def write_comparison(
    pairs: Sequence[Pair],
    methods: Methods,
    output: Path,
    *,
    zoom: Sequence[Region] = (),
    pictures: Sequence[Path] = (),
    task: str = "infrared-visible",
) -> list[Path]:
    """Write the picture sheet, and the page with the metrics of the pairs.

    Args:
        output: A .png file for the sheet alone, a .html file for the page alone, or a folder for both.
        zoom: Regions to enlarge in every pair; default: two in each, where the methods differ most.
        pictures: Image files for the end of the page, such as the curves of a training.
        task: What is fused, which decides by what methods are ranked.

    Raises:
        UserError: As `evaluate` and `comparison_sheet`, or if a file cannot be written.

    Example:
        >>> import tempfile
        >>> from timfuse.data import match_pairs, write_scenes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pairs = match_pairs(*write_scenes(Path(folder), 1, height=64, width=64, seed=0))
        ...     [file.name for file in write_comparison(pairs, {"copy": [pairs[0].first]}, Path(folder))]
        ['sheet.png', 'page.html']
    """
    wanted = {".png": [output], ".html": [output]}.get(
        output.suffix.lower(), [output / "sheet.png", output / "page.html"]
    )
    make_folder(wanted[0].parent)
    for path in wanted:
        if path.suffix.lower() == ".png":
            with Progress(len(pairs), "drawing", unit="pairs") as progress:
                sheet = comparison_sheet(pairs, methods, zoom=zoom, progress=progress)
            picture = io.BytesIO()
            sheet.save(picture, "PNG")
            write_atomically(path, picture.getvalue())
        else:
            with Progress(len(pairs), "scoring", unit="pairs") as progress:
                evaluation = evaluate(pairs, methods, task=task, progress=progress)
            page = comparison_page(pairs, methods, evaluation=evaluation, zoom=zoom, pictures=pictures)
            write_atomically(path, page)
    return wanted
