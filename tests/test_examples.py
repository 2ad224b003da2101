"""The examples run, and say what they should."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, real_data

EXAMPLES = ROOT / "examples"


def run(script: str, *arguments: str, folder: Path) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_tested_here_or_with_the_segmenter() -> None:
    tests = "".join(
        (ROOT / "tests" / name).read_text() for name in ("test_examples.py", "test_segmenter.py")
    )
    examples = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")]
    assert not [path.name for path in examples if f'"{path.name}"' not in tests]


def test_the_notebook_is_kept_without_its_output() -> None:
    cells = json.loads((EXAMPLES / "granules.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    for cell in code:
        ast.parse("".join(cell["source"]))


@pytest.mark.docs  # a kernel, and a minute
def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient").NotebookClient
    notebook = nbformat.read(EXAMPLES / "granules.ipynb", as_version=4)
    nbformat.validate(notebook)
    place = {"metadata": {"path": str(tmp_path)}}
    client(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    said = [str(cell["outputs"]) for cell in code]
    assert "granules" in said[1]
    assert "image/png" in said[2]
    assert "F1 0." in said[5]
    assert (tmp_path / "granules_labels.tif").is_file()


def test_two_conditions_are_told_apart(tmp_path: Path) -> None:
    said = run("compare_conditions.py", "--output", str(tmp_path / "out"), folder=tmp_path)
    assert "p:               0.029" in said  # the least possible of four and four cells
    assert len((tmp_path / "out" / "cells.csv").read_text().splitlines()) == 9


@pytest.mark.slow
def test_a_segmenter_of_your_own_is_found_by_name(tmp_path: Path) -> None:
    said = run("new_segmenter.py", folder=tmp_path)
    assert said.count("precision") == 3


@pytest.mark.docs  # a minute
def test_another_object_is_trained(tmp_path: Path) -> None:
    source = real_data("bbbc050")  # skips, with the reason, where it is absent
    folder = tmp_path / "nuclei"
    folder.mkdir()
    for name in ("Emb1_t251", "Emb3_t251"):
        for kind in ("image", "labels"):
            shutil.copy(source / f"{name}_{kind}.mrc", folder)
    said = run("train_on_nuclei.py", str(folder), "--steps", "2", "--slices", "5", folder=tmp_path)
    assert said.count("$ isgseg-") == 4
    scores = tmp_path / "outputs" / "nuclei" / "evaluate" / "metrics.json"
    assert scores.is_file()
