"""The comparison as one HTML page that needs nothing but itself: a before/after slider over all images."""

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..data import Pair, read_pixels
from .evaluation import Evaluation
from .methods import Methods
from .regions import Region
from .rows import REGION_COLOURS, Row, labels, read_rows
from .table import headings, legend, mean_texts

_TEMPLATE = Path(__file__).with_name("page.html")
_QUALITY = 95
_LONGEST = 1600  # pixels


def comparison_page(
    pairs: Sequence[Pair],
    methods: Methods,
    *,
    evaluation: Evaluation | None = None,
    zoom: Sequence[Region] = (),
    pictures: Sequence[Path] = (),
    title: str = "Fused images",
) -> str:
    """Make a page on which any two of the sources and the fused images lie under a slider.

    The page holds its images and scripts and loads nothing, so it can be mailed and opened offline.

    Args:
        pairs: The source images, at least one pair.
        methods: For each method's name its fused images, in the order of the pairs.
        evaluation: Metrics to show below the images.
        zoom: Regions to offer for every pair; by default two per pair, where the methods differ most.
        pictures: Image files to show at the end, such as the curves of a training.
        title: Heading of the page.

    Returns:
        The HTML text.

    Raises:
        UserError: As `rows.read_rows`, or a picture cannot be read.
    """
    data = {
        "labels": labels(pairs, methods),
        "colours": REGION_COLOURS,
        "pairs": [_pair(row) for row in read_rows(pairs, methods, zoom)],
        "scores": evaluation and _scores(evaluation, [pair.name for pair in pairs]),
    }
    note = f"Images are JPEG of quality {_QUALITY}, at most {_LONGEST} pixels long; the files hold every bit."
    parts = {
        "title": html.escape(title),
        "note": note,
        "pictures": "".join(map(_figure, pictures)),
        # A script element ends at the first "</", whatever it holds.
        "data": json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _TEMPLATE.read_text(encoding="utf-8"))


def _pair(row: Row) -> dict[str, Any]:
    height, width = row.images[0].shape[:2]
    return {
        "name": row.name,
        "width": width,
        "height": height,
        "images": [_data_address(image) for image in row.images],
        "regions": [[x / width, y / height, w / width, h / height] for x, y, w, h in row.regions],
    }


def _data_address(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _figure(path: Path) -> str:
    """Put a picture below the images, as its file is: curves would not stand JPEG."""
    pixels = read_pixels(path)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    address = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f'<figure class="card"><img src="{address}" alt="{html.escape(path.stem)}"></figure>'


def _scores(evaluation: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """Means over all images, and the values of each shown pair that was evaluated."""
    positions = {name: index for index, name in enumerate(evaluation.images)}
    return {
        "metrics": headings(evaluation),
        "methods": [{"name": name, "trivial": name in evaluation.trivial} for name in evaluation.methods],
        "count": len(evaluation.images),
        "legend": legend(evaluation),
        "mean": _table(evaluation),
        "pairs": [_table(evaluation.of_image(positions[name])) if name in positions else None for name in names],
    }


def _table(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "texts": mean_texts(evaluation),
        "places": evaluation.places.tolist(),
        "ranks": [f"{rank:.2f}" for rank in evaluation.mean_rank],
    }
