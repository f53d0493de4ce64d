"""What the site has beside the pages in docs: the README, files that pages link to, the API, and formulas as MathML."""

import html
import json
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r'(\]\(|src=")(?![a-z]+:)([^)"#\s]+)')
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
SHOWN = (".md", ".py", ".yaml", ".ipynb")  # of the files in a linked folder
_origins: dict[str, str] = {}  # by a page's place in the site, the file or folder of the repository


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README, what pages link to outside of docs, and a page for each package in the navigation."""
    _origins.clear()
    _origins.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    left = ["README.md", *(page for page in _pages(config.nav) if (ROOT / page).is_file()), *_origins.values()]
    seen = set(left)
    while left:
        path = left.pop()
        place, text = _place(path), _text(path)
        if not path.startswith("docs/"):
            source = {"content": text} if text else {"abs_src_path": str(ROOT / path)}
            files.append(File.generated(config, place, **source))
            _origins[place] = path
        targets = {_resolved(path, link) for _, link in LINK.findall(text)} if text else set()
        new = {target for target in targets - seen if (ROOT / target).exists()}
        seen |= new
        left += sorted(target for target in new if not target.startswith("docs/"))
    for page in _pages(config.nav):
        if page.startswith("api/"):
            name = page.removeprefix("api/").removesuffix(".md")
            files.append(File.generated(config, page, content=f"# {name}\n\n::: {name}\n"))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    origin = _origins.get(page.file.src_uri)
    if origin is None:
        return markdown
    if not origin.startswith("docs/"):
        page.meta["search"] = {"boost": 0.5}  # below the pages that explain

    def moved(match: re.Match[str]) -> str:
        place = _place(_resolved(origin, match[2]))
        return match[1] + posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(moved, markdown)


def on_page_content(content: str, **_: object) -> str:
    """Convert formulas."""

    def converted(match: re.Match[str]) -> str:
        return convert(html.unescape(match[2]), display="inline" if match[1] == "span" else "block")

    return FORMULA.sub(converted, content)


def _pages(nav: object) -> list[str]:
    """List the pages of a navigation."""
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in _pages(entry)]


def _resolved(path: str, link: str) -> str:
    """Return the path in the repository that a link in a file or in the list of a folder means."""
    folder = path if (ROOT / path).is_dir() else posixpath.dirname(path)
    return posixpath.normpath(posixpath.join(folder, link))


def _place(path: str) -> str:
    """Return the place in the site of a file or folder of the repository."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"{path}/index.md"
    return path if path.endswith((".md", ".png")) else f"{path}.md"


def _text(path: str) -> str | None:
    """Return the Markdown of a file, or the list of a folder; None for a picture."""
    if (ROOT / path).is_dir():
        found = [*(ROOT / path).glob("*"), *(ROOT / path).glob("*/README.md")]
        names = sorted(file.relative_to(ROOT / path).as_posix() for file in found if file.suffix in SHOWN)
        return "\n".join([f"# {path}\n", *(f"- [{name.removesuffix('/README.md')}]({name})" for name in names)])
    if path.endswith(".png"):
        return None
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".ipynb"):
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
        return "\n\n".join(_code("python", source) if kind == "code" else source for kind, source in cells)
    return text if path.endswith(".md") else f"# {path}\n\n{_code(Path(path).suffix[1:], text)}"


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
