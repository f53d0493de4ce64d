"""HTML pages in tests: their structure, and reports without what was measured."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Structure(HTMLParser):
    """Checks that tags nest and collects identifiers, attributes, texts and the data."""

    def __init__(self, text):
        super().__init__()
        self.open, self.identifiers, self.attributes, self.data, self.title, self.texts = [], [], [], "", "", []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += attributes
        self.identifiers += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append((tag, dict(attributes).get("id")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        self.texts.append(text)
        if self.open and self.open[-1] == ("script", "data"):
            self.data += text
        if self.open and self.open[-1][0] == "title":
            self.title += text


def untimed(report: Path) -> str:
    """Read the report of a search, and leave out its milliseconds, which are measured anew in each run."""
    return re.sub(r"[\d.,]+ ms", "ms", report.read_text(encoding="utf-8"))
