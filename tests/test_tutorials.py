"""The site builds without a warning, its links lead somewhere, and tutorials run as they are typed.

Minutes: only with `pytest -m docs`, which `make tutorials` runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

pytestmark = [pytest.mark.docs, pytest.mark.timeout(1800)]
DOCS = ROOT / "docs"
TUTORIALS = ("own_tomogram", "fine_tune", "napari", "biology", "python", "cluster")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def follow(page: Path, folder: Path) -> None:
    """Does what a page says: shell blocks and Python blocks in their order, in a folder."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    namespace: dict[str, object] = {"__name__": "__main__"}
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert blocks
    for language, code in blocks:
        if language == "python":
            exec(compile(code, str(page), "exec"), namespace)
            continue
        run = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=folder,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, f"{code}\n{run.stdout}\n{run.stderr}"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the first labels were made."""
    folder = tmp_path_factory.mktemp("start")
    follow(DOCS / "start" / "first_labels.md", folder)
    return folder


def test_first_labels(sample: Path) -> None:
    for file in ("labels/phantom_1000_labels.tif", "tables/phantom_1000_report.html"):
        assert (sample / file).is_file()
    assert (sample / "scores" / "failures.png").is_file()


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorial(name: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(sample / "sample", tmp_path / "sample")
    monkeypatch.chdir(tmp_path)
    follow(DOCS / "tutorials" / f"{name}.md", tmp_path)


class Links(HTMLParser):
    """The links and the anchors of a page.

    Attributes:
        links: what `href` and `src` name.
        anchors: every `id`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if value and key in ("href", "src"):
                self.links.append(value)
            elif value and key == "id":
                self.anchors.add(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with warnings as errors."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    build = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        str(folder / "trees"),
    ]
    run = subprocess.run(
        [*build, str(DOCS), str(folder / "html")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return folder / "html"


def broken(pages: dict[Path, Links], site: Path) -> Iterator[str]:
    """Links to files or anchors of the site that are not there."""
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                yield f"{path.relative_to(site)}: {link}"
                continue
            anchors = pages[target].anchors if target in pages else None
            if parts.fragment and anchors is not None and unquote(parts.fragment) not in anchors:
                yield f"{path.relative_to(site)}: {link}"


def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    pages = {}
    for path in site.rglob("*.html"):
        pages[path.resolve()] = page = Links()
        page.feed(path.read_text(encoding="utf-8"))
    assert len(pages) > 30
    assert not list(broken(pages, site.resolve()))


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loading = re.compile(
        r"""<(?:script|img|iframe)[^>]+src=["'](?:https?:)?//|<link[^>]+rel=["']stylesheet["'][^>]+href=["'](?:https?:)?//"""
    )
    assert not [path.name for path in site.rglob("*.html") if loading.search(path.read_text())]
