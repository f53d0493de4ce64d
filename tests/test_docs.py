"""The documentation: its pages are in the navigation, and the site is built whole and needs no internet."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import timfuse

ROOT = Path(__file__).resolve().parents[1]
PAGES = {page.name for page in (ROOT / "docs").glob("*.md")}
LOADED = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="?([^" >]+)')
LINKED = re.compile(r'<(?:a|img|script|link)\b[^>]*?(?:src|href)="?([^" >]+)')
needs_mkdocs = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("material", "mkdocstrings", "latex2mathml")),
    reason="the extra docs is not installed",
)


def _pages(nav):
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in _pages(entry)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if Path(timfuse.__file__).resolve().parent == ROOT and (ROOT / ".venv").exists():
        pytest.skip("mkdocstrings would look for modules in .venv, too; `make docs` reads the installed package")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", ROOT / "mkdocs.yml"]
    done = subprocess.run([*command, "--site-dir", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_navigation_once():
    nav = _pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert len(set(nav)) == len(nav)
    assert set(nav) >= PAGES


@pytest.mark.slow
@needs_mkdocs
class TestSite:
    def test_every_link_leads_to_a_file(self, site):
        missing = [
            (page.name, link)
            for page in site.rglob("*.html")
            for link in LINKED.findall(page.read_text(encoding="utf-8"))
            if not re.match(r"[a-z]+:|#", link) and page.name != "404.html"
            if not (page.parent / link.partition("#")[0]).exists()
        ]
        assert missing == []

    def test_nothing_is_loaded_from_the_internet(self, site):
        loaded = {link for page in site.rglob("*.html") for link in LOADED.findall(page.read_text(encoding="utf-8"))}
        assert {link for link in loaded if "//" in link} == set()
        styles = [url for css in site.rglob("*.css") for url in re.findall(r"url\(([^)]+)\)", css.read_text())]
        assert [url for url in styles if re.match("[\"']?(https?:)?//", url)] == []

    def test_formulas_are_mathml(self, site):
        method = (site / "method.html").read_text(encoding="utf-8")
        assert method.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') >= 8
        assert "arithmatex" not in method

    def test_a_package_has_the_functions_that_it_exports(self, site):
        import timfuse.bilevel as package

        page = (site / "api" / "timfuse.bilevel.html").read_text(encoding="utf-8")
        functions = [name for name in package.__all__ if callable(getattr(package, name))]
        assert [name for name in functions if not re.search(rf'<h2 id="timfuse\.bilevel\.[a-z_.]*{name}"', page)] == []
        assert "&gt;&gt;&gt; " in re.sub("<[^>]+>", "", page)

    def test_the_search_finds_pages_without_a_server(self, site):
        assert "hypergradient" in (site / "search" / "search_index.js").read_text(encoding="utf-8")
