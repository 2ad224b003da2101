"""The prose: links lead somewhere, options exist, words are the standard ones."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir

import isgseg
from isgseg.config import CONFIG_DIR, checked
from isgseg.overrides import modernize, with_key

BUILT = ("docs/project", "docs/results", "docs/reference/commands")  # by docs/conf.py
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
    ]
    if not str(path.relative_to(ROOT)).startswith(BUILT)
)
FILES = {"predict": "volumes", "compare": "summaries"}  # keys of files without one
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


def test_every_page_is_in_the_index() -> None:
    """The index of the site lists each page, or a pattern that holds it."""
    docs = ROOT / "docs"
    listed = re.findall(r"^([\w/*]+)$", (docs / "index.md").read_text(), re.MULTILINE)
    pages = {
        path.relative_to(docs).with_suffix("").as_posix() for path in PAGES if docs in path.parents
    }
    assert not [p for p in sorted(pages - {"index"}) if not any(fnmatch(p, e) for e in listed)]


def test_every_extra_is_told_of() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    text = (ROOT / "docs" / "start" / "install.md").read_text()
    assert not [extra for extra in extras if f"`{extra}`" not in text]


def test_the_version_is_said_alike() -> None:
    version = isgseg.__version__
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version} - " in (ROOT / "CHANGELOG.md").read_text()


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
    parts = {"console", "contenders", "launches", "oracle", "peaks", "record", "report"}
    parts |= {"methods_rows", "methods_cost", "methods_table", "methods_whole"}
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - parts
    assert not [script for script in sorted(scripts) if f"`{script}.py`" not in text]


def test_the_options_of_prediction_are_keys() -> None:
    text = (ROOT / "docs" / "howto" / "prediction.md").read_text()
    table = text.partition("| option | default | effect |")[2].partition("\n\n")[0]
    options = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(options) > 8
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        for option in options:
            compose("predict", [option, "volumes=cell.mrc"])


def command_lines(path: Path) -> list[str]:
    """The command lines of isgseg in the code blocks of a page."""
    blocks = re.findall(
        r"^ *```(?:bash|text)?\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL
    )
    text = "\n".join(blocks).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("isgseg-")]


@pytest.mark.parametrize("path", [page for page in PAGES if command_lines(page)], ids=name)
def test_every_command_line_is_accepted(path: Path) -> None:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        for line in command_lines(path):
            program, *typed = shlex.split(line, comments=True)
            command = program.removeprefix("isgseg-")
            left_out = {"--help", "--config-dir", "--config-path", "hparams_search=optuna"}
            if left_out & set(typed) or "$" in line:
                continue  # of a folder of the reader, of Optuna, or of a loop
            if typed[0].startswith("manifest="):
                typed.append("volumes=x.mrc")  # as the manifest would say
            typed = [
                part for part in typed if not part.startswith(("hydra.", "hydra/")) and part != "-m"
            ]
            if "-m" in line.split():  # one value of the sweep
                typed = [re.sub(r"(=[^,\[]+),.*", r"\1", part) for part in typed]
            if any(part.startswith("manifest=") for part in typed):
                typed.append("volumes=cell.mrc")  # which the manifest names
            arguments, old = modernize(command, with_key(FILES.get(command, ""), typed))
            assert not old, line
            try:
                checked(command, compose(command, ["paths.output_dir=out", *arguments]))
            except Exception as error:
                raise AssertionError(f"{name(path)}: {line}: {error}") from error
