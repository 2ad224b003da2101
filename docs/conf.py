"""The documentation site. `make docs` builds it, offline, into build/docs.

Pages that lie elsewhere in the repository (results, contributing, ...) are copied into this folder
first, and the pages of the commands are made of `conf/` and its comments. Links are written as on
the repository's own pages, and led to the copies here.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import isgseg

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

from command_pages import write_command_pages  # noqa: E402

project = "isgseg"
author = "the isgseg authors"
copyright = author
version = release = isgseg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_static"]
templates_path: list[str] = []
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "toc.empty_glob"]
nitpicky = False
autodoc_typehints = "signature"  # "description" breaks on names that end in _
autodoc_type_aliases = {
    name: name.rpartition(".")[2]
    for name in ("npt.ArrayLike", "Array", "Labels", "Floats", "Ints", "VoxelSize")
}
default_role = "literal"  # docstrings write code as Markdown does
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False  # types that end in _ would be taken for links
copybutton_exclude = ".linenos, .gp, .go"
pygments_style = "friendly"
pygments_dark_style = "monokai"

html_theme = "furo"
html_title = f"isgseg {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

# Pages of the repository, and where the site has them.
PAGES = {
    "benchmarks/README.md": "docs/results/benchmarks.md",
    "CONTRIBUTING.md": "docs/project/contributing.md",
    "CHANGELOG.md": "docs/project/changelog.md",
    "SECURITY.md": "docs/project/security.md",
}
PAGES |= {
    f"benchmarks/notes/{path.name}": f"docs/results/notes/{path.name}"
    for path in sorted((ROOT / "benchmarks" / "notes").glob("*.md"))
}
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def site_links(text: str, page: str, place: str) -> str:
    """The text of a page with its relative links led to where the site has their targets.

    Args:
        text: Markdown.
        page: the file that it is of, relative to the repository.
        place: the file of the site that it is shown in, relative to the repository.
    """

    def lead(match: re.Match[str]) -> str:
        target = os.path.normpath(os.path.join(os.path.dirname(page), match[1]))
        if (ROOT / target).is_dir():
            target += "/README.md"
        there = PAGES.get(target, target)
        return f"]({os.path.relpath(there, os.path.dirname(place))}{match[2] or ''})"

    return LINK.sub(lead, text)


def copy_pages() -> None:
    """Copies the pages that lie outside of this folder."""
    for page, place in PAGES.items():
        text = site_links((ROOT / page).read_text(encoding="utf-8"), page, place)
        target = ROOT / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def read_page(app: Any, docname: str, source: list[str]) -> None:
    """Leads the links of a page; Sphinx calls it for each."""
    page = f"docs/{docname}.md"
    if page not in PAGES.values():
        source[0] = site_links(source[0], page, page)


def setup(app: Any) -> None:
    """Sphinx calls it at the start."""
    copy_pages()
    write_command_pages(HERE / "reference" / "commands")
    app.connect("source-read", read_page)
