"""The comparison as one HTML page without other files: any two images under a slider, and the metrics."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import Pair
from ..data.embedded_images import QUALITY, figure, jpeg_address
from ..runtime.errors import printable
from ..runtime.html_text import filled
from .comparison_rows import REGION_COLOURS, Row, labels, read_rows
from .evaluation import Evaluation
from .evaluation_table import definition, headings, legend, mean_texts, meanings, rank_texts
from .methods import Methods
from .zoom_regions import Region

_TEMPLATE = Path(__file__).with_name("page.html")
_LONGEST = 1600  # pixels


def comparison_page(
    pairs: Sequence[Pair],
    methods: Methods,
    *,
    evaluation: Evaluation | None = None,
    zoom: Sequence[Region] = (),
    pictures: Sequence[Path] = (),
) -> str:
    """Make a page that shows any two of the sources and the fused images under a slider.

    The page contains its images and scripts and loads nothing.

    Args:
        zoom: Regions to offer in every pair; default: two in each, where the methods differ most.
        pictures: Image files for the end of the page, such as the curves of a training.

    Raises:
        UserError: If a file cannot be read, the images of a pair differ in size, or a region exceeds an image.
    """
    data = {
        "labels": labels(pairs, methods),
        "colours": REGION_COLOURS,
        "pairs": [_pair(row) for row in read_rows(pairs, methods, zoom)],
        "scores": evaluation and _scores(evaluation, [printable(pair.name) for pair in pairs]),
    }
    note = f"Images are JPEG of quality {QUALITY}, at most {_LONGEST} pixels long; the files hold every bit."
    parts = {
        "note": note,
        "pictures": "".join(map(figure, pictures)),
        # A script element ends at the first "</", even within a text.
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return filled(_TEMPLATE, parts)


def _pair(row: Row) -> dict[str, Any]:
    height, width = row.images[0].shape[:2]
    return {
        "name": row.name,
        "width": width,
        "height": height,
        "images": [jpeg_address(image, _LONGEST) for image in row.images],
        "regions": [[x / width, y / height, w / width, h / height] for x, y, w, h in row.regions],
    }


def _scores(evaluation: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Collect the means over all images, and the values of each shown pair that was evaluated."""
    positions = {name: index for index, name in enumerate(evaluation.images)}
    return {
        "metrics": headings(evaluation),
        "definitions": [definition(metric) for metric in evaluation.metrics],
        "methods": [{"name": name, "trivial": name in evaluation.trivial} for name in evaluation.methods],
        "count": len(evaluation.images),
        "legend": f"{meanings(evaluation)}; {legend(evaluation)}",
        "mean": _table(evaluation),
        "pairs": [_table(evaluation.of_image(positions[name])) if name in positions else None for name in names],
    }


def _table(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "texts": mean_texts(evaluation),
        "places": evaluation.places.tolist(),
        "ranks": rank_texts(evaluation),
    }
