"""HTML pages from templates, and texts in them."""

import html
import re
from collections.abc import Mapping
from pathlib import Path

from .errors import printable


def filled(template: Path, parts: Mapping[str, str]) -> str:
    """Fill a template: each {{name}} in it becomes the part of that name."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template.read_text(encoding="utf-8"))


def escaped(text: object) -> str:
    r"""Write a value as the text of an element or an attribute, whatever characters it has.

    Example:
        >>> escaped("a<b>\n")
        'a&lt;b&gt;\\n'
    """
    return html.escape(printable(str(text)))
