"""Writing a comparison of methods: the picture sheet and the page."""

import io
from collections.abc import Sequence
from pathlib import Path

from ..data import Pair
from ..runtime.files import make_folder, write_atomically
from ..runtime.progress import Progress
from .evaluation import evaluate
from .methods import Methods
from .page import comparison_page
from .regions import Region
from .sheet import comparison_sheet


def write_comparison(
    pairs: Sequence[Pair],
    methods: Methods,
    output: Path,
    *,
    zoom: Sequence[Region] = (),
    pictures: Sequence[Path] = (),
    title: str = "Fused images",
) -> list[Path]:
    """Write the picture sheet and the page, the latter with the metrics of the pairs that it shows.

    Args:
        pairs: The source images, at least one pair.
        methods: For each method's name its fused images, in the order of the pairs.
        output: A .png file for the sheet alone, a .html file for the page alone, or a folder for both.
        zoom: Regions to enlarge in every pair; by default two per pair, where the methods differ most.
        pictures: Image files to show at the end of the page, such as the curves of a training.
        title: Heading of the page.

    Returns:
        The files.

    Raises:
        UserError: As `evaluate` and `rows.read_rows`, or if a file cannot be written.
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
                evaluation = evaluate(pairs, methods, progress=progress)
            page = comparison_page(pairs, methods, evaluation=evaluation, zoom=zoom, pictures=pictures, title=title)
            write_atomically(path, page)
    return wanted
