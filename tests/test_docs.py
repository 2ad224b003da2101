"""The prose: links lead somewhere, options exist, words are the standard ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir

from isgseg.config import CONFIG_DIR

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
)
# Words of earlier versions; the changelog names those that were keys.
PRIVATE = re.compile(
    r"\b(picture|pictures|intruders?|roads?|meant to reach|support|waist|labelling|views"
    r"|spurious|fates?|caps|of now|as it was|(?<!ground )truths?)\b"
)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_to_files(path: Path) -> None:
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_words_are_the_standard_ones(path: Path) -> None:
    text = path.read_text()
    if path.name == "CHANGELOG.md":
        text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    found = [line for line in text.splitlines() if PRIVATE.search(line)]
    assert not found


def test_every_file_that_reliability_names_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = set(re.findall(r"tests/\w+(?:\.py|/)", text))
    assert named
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]


def test_the_map_names_every_folder_of_the_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    package = ROOT / "src" / "isgseg"
    folders = {path.parent.name for path in package.glob("*/*.py")}
    assert not [folder for folder in sorted(folders) if f"`{folder}/`" not in text]
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert not [module for module in sorted(modules) if f"`{module}`" not in text]


def test_the_map_names_every_benchmark() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    parts = {"console", "contenders", "record", "report"}
    parts |= {"methods_rows", "methods_cost", "methods_table"}
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - parts
    assert not [script for script in sorted(scripts) if f"`{script}.py`" not in text]


def test_the_options_of_prediction_in_the_readme_are_keys() -> None:
    text = (ROOT / "README.md").read_text()
    table = text.partition("| option | default | effect |")[2].partition("\n\n")[0]
    options = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(options) > 8
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        for option in options:
            compose("predict", [option, "volumes=cell.mrc"])
