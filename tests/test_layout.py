"""Rules of the layout, so that a newcomer can guess where things are and what imports what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

SOURCE = ROOT / "src" / "isgseg"
COMMANDS = {"prepare", "doctor", "train", "tune", "evaluate", "predict", "analyse", "compare"}
# Each may import those before it; what is in none of them (errors, schema) may be imported by all.
ORDER = (
    "io",
    "phantom",
    "instances",
    "data",
    "analysis",
    "models",
    "evaluation",
    "inference",
    "batch",
    "training",
    "napari",
)
WITHOUT_TORCH = ("io", "phantom", "instances", "analysis")
LINES_OF_A_MODULE, LINES_OF_A_FUNCTION = 250, 60


def modules(folder: str = "") -> list[Path]:
    return sorted((SOURCE / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(["isgseg", *path.relative_to(SOURCE).with_suffix("").parts])


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, also inside of functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def part(module: str) -> str:
    """The first name after `isgseg`."""
    return ([*module.split("."), ""])[1] if module.startswith("isgseg.") else ""


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_nothing_imports_a_command(path: Path) -> None:
    taken = {module for module in imports(path) if part(module) in COMMANDS}
    assert not taken


@pytest.mark.parametrize("folder", ORDER)
def test_imports_point_one_way(folder: str) -> None:
    later = set(ORDER[ORDER.index(folder) + 1 :])
    for path in modules(folder):
        taken = {module for module in imports(path) if part(module) in later}
        assert not taken, f"{name_of(path)} imports {sorted(taken)}"


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_torch_is_not_imported(folder: str) -> None:
    names = ", ".join(name_of(path).removesuffix(".__init__") for path in modules(folder))
    code = f"import sys, {names}; print([m for m in ('torch', 'lightning') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module", ["isgseg.models.settings", "isgseg.inference.settings", "isgseg.instances.settings"]
)
def test_settings_are_checked_without_torch(module: str) -> None:
    code = f"import sys, {module}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_modules_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_OF_A_MODULE


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Each function of a file, and its lines without its docstring."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if text else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_functions_are_short(path: Path) -> None:
    long = {name: lines for name, lines in functions(path) if lines > LINES_OF_A_FUNCTION}
    assert not long
