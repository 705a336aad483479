"""Hooks of the site (``mkdocs.yml``): pages from the top of the repository, links between all of them, the reference.

Pages link to one another as they lie in the repository, so that they can be read there. The site has the same pages at
other places: links are rewritten, and a link to a file that is no page becomes its words. A comment
``<!-- generated: NAME -->`` of a reference page is replaced by what the code declares; nothing of it is typed by hand.
A comment ``<!-- file: PATH -->`` is replaced by the file, so that a page and an example say nothing twice.
"""

from __future__ import annotations

import ast
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keisei_lightning.config.reference import as_yaml, reference

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "RESULTS.md": "results/index.md",
    "examples/README.md": "examples.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages outside ``docs``, and where they are in the site."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_TERM = re.compile(r"^\*\*(.+?)\.\*\*", re.MULTILINE)
_METRIC = re.compile(r"`((?:self_play|train|eval|league)/[^`]+)`")
_FILE = re.compile(r"^<!-- file: (\S+) -->$", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|data|attr|mod|exc):<code>(~?)([\w.]+)</code>")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that stand outside ``docs``."""
    from mkdocs.structure.files import File

    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite links, give the glossary's entries anchors, fill in what is generated, and show files."""
    place = page.file.src_uri
    if place == "glossary.md":
        markdown = _TERM.sub(lambda term: f'<a id="{_slug(term[1])}"></a>{term[0]}', markdown)
    for name, make in GENERATED.items():
        markdown = markdown.replace(f"<!-- generated: {name} -->", make())
    return rewritten(_FILE.sub(lambda found: _shown(ROOT / found[1]), markdown), place)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Docstrings are written for Sphinx too: make its roles links, and take its double colons away."""

    def link(found: re.Match[str]) -> str:
        name = found[2]
        words = name.rpartition(".")[2] if found[1] else name
        target = name if name.startswith("keisei_lightning.") else f"keisei_lightning.{name}"
        return f'<autoref identifier="{target}" optional><code>{words}</code></autoref>'

    return _ROLE.sub(link, html).replace("<p>::</p>", "").replace("::</p>", ":</p>")


def rewritten(markdown: str, place: str) -> str:
    """A page's text with links as they are in the site.

    Args:
        markdown: the text, with links as they are in the repository.
        place: of the page in the site.
    """
    source = {page: source for source, page in PAGES.items()}.get(place, f"docs/{place}")

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if not path or re.match(r"\w+:", path):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if path in PAGES:
            path = PAGES[path]
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        else:
            return words  # a file of the repository, which the site does not have
        return f"{picture}[{words}]({posixpath.relpath(path, posixpath.dirname(place) or '.')}{hash_}{anchor})"

    blocks = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith("```") else _LINK.sub(link, block) for block in blocks)


def configuration() -> str:
    """A table for each section."""
    return "\n".join(_sections())


def _sections() -> Iterator[str]:
    for section in reference():
        yield f"## {f'`{section.name}`' if section.name else 'The run'}\n\n{section.sentence}\n"
        rows = ((_code(k.name), _code(as_yaml(k.default)), k.legal("null"), k.sentence) for k in section.keys)
        yield _table("key | default | may be | what it does", rows)


def metrics() -> str:
    """Every metric that the glossary explains: the sentence that does, and the entry that it is in."""
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows: dict[str, list[tuple[str, ...]]] = {"self_play": [], "train": [], "eval": [], "league": []}
    for paragraph in glossary.split("\n\n"):
        if term := _TERM.match(paragraph):
            text = " ".join(paragraph[term.end() :].split())
            for sentence in re.split(r"(?<=[.;]) (?=[A-Z`])", text):
                for name in _METRIC.findall(sentence):
                    entry = f"[{term[1]}](../glossary.md#{_slug(term[1])})"
                    rows[name.partition("/")[0]].append((_code(name), entry, sentence))
    return "\n".join(f"## `{part}/`\n\n{_table('metric | entry | in its words', rows[part])}" for part in rows)


def players() -> str:
    """The makers of the package's entry points, with their docstrings, and the options that engines share."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    makers = project["entry-points"]["keisei_lightning.players"]
    parts = [f"## `{name}`\n\n::: {maker.replace(':', '.')}" for name, maker in sorted(makers.items())]
    return "\n\n".join([*parts, "## Options of engines\n\n::: keisei_lightning.evaluation.usi.players.EngineOptions"])


def errors() -> str:
    """The module of errors: its tree, and each class."""
    return "::: keisei_lightning.errors\n    options:\n      heading_level: 2\n      show_root_heading: false"


def api() -> str:
    """Every public name, under the sub-package that the package's face imports it from."""
    face = ast.parse((ROOT / "keisei_lightning" / "__init__.py").read_text(encoding="utf-8"))
    packages: dict[str, list[str]] = {}
    for node in ast.walk(face):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keisei_lightning."):
            package = (node.module or "").split(".")[1]
            packages.setdefault(package, []).extend(alias.name for alias in node.names if alias.name != "lazy_names")
    del packages["errors"]  # they have a page of their own
    return "\n\n".join(
        f"## `{package}`\n\n" + "\n\n".join(f"::: keisei_lightning.{name}" for name in names)
        for package, names in packages.items()
    )


GENERATED: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "metrics": metrics,
    "players": players,
    "errors": errors,
    "api": api,
}


def _shown(file: Path) -> str:
    language = {".py": "python", ".yaml": "yaml"}[file.suffix]
    return f"```{language}\n{file.read_text(encoding='utf-8')}```"


def _table(header: str, rows: Any) -> str:
    cells = header.split(" | ")
    lines = [f"| {header} |", "|" + "---|" * len(cells)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _slug(term: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", term.lower()).strip("-")
