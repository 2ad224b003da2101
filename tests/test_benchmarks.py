"""The results of benchmarks, the page made from them, and the model card."""

from __future__ import annotations

import hashlib
import json
from importlib import import_module as module
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
MACHINE = {"cpu": "a CPU", "cores": 2, "flags": [], "threads": 1, "load": 1.0, "gpu": None}
WEIGHTS = ROOT / "src" / "isgseg" / "weights"


pytestmark = pytest.mark.usefixtures("benchmark_scripts")


def result(**changes: Any) -> dict[str, Any]:
    """A valid result with some fields changed; None removes one."""
    content = {
        "title": "Discs",
        "script": "benchmarks/discs.py",
        "command": "python benchmarks/discs.py",
        "commit": "0123456789ab",
        "date": "2026-11-28",
        "machine": MACHINE,
        "seeds": [0, 1, 2],
        "numbers": [{"group": "quality", "name": "discs: F1", "value": 0.9, "unit": ""}],
        "targets": {"discs: F1": ">= 0.85"},
        "details": {},
    }
    return {key: value for key, value in (content | changes).items() if value is not None}


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_every_script_finds_what_it_imports(path: Path) -> None:
    assert module(path.stem).__doc__


def test_there_are_results() -> None:
    assert RESULTS


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_every_result_has_the_needed_fields_and_a_script_that_exists(path: Path) -> None:
    content = json.loads(path.read_text())
    module("record").check(content, path.name)
    assert (ROOT / content["script"]).is_file()
    assert content["script"] in content["command"]
    assert content["commit"] != "unknown"
    figure = content["details"].get("figure")
    assert figure is None or (path.parent / figure).is_file()


def test_the_page_and_the_card_are_the_report_of_the_results() -> None:
    report = module("report")
    results = report.read_results()
    advice = "run: python benchmarks/report.py"
    assert report.PAGE.read_text() == report.page(results), advice
    card = report.CARD.read_text()
    assert card == report.with_section(card, report.card_section(results)), advice
    methods = report.METHODS.read_text()
    assert methods == report.with_section(methods, report.methods_tables(results)), advice
    front = report.FRONT.read_text()
    assert front == report.with_section(front, report.front_section(results)), advice
    # Every headline is a number that exists.
    headlines, _, beside = report.front_section(results).partition("\n\n")
    assert headlines.count("\n") + 1 == len(report.HEADLINES) + 2
    assert beside.count("\n") > 4  # methods, and the two lines of the table's head


def test_the_page_has_at_most_400_lines_and_the_command_of_every_run() -> None:
    page = (BENCHMARKS / "README.md").read_text()
    assert len(page.splitlines()) <= 400
    for path in RESULTS:
        assert json.loads(path.read_text())["command"] in page


def test_the_model_card_names_the_digest_of_each_network_in_the_package() -> None:
    networks = sorted(WEIGHTS.glob("*.pth"))
    assert networks
    card = (ROOT / "docs" / "model_card.md").read_text()
    for network in networks:
        assert hashlib.sha256(network.read_bytes()).hexdigest() in card, network.name


def test_the_page_shows_value_target_and_whether_it_is_reached() -> None:
    page = module("report").page({"discs": result(), "low": result(targets={"discs: F1": ">= 1"})})
    assert "| discs: F1 | 0.9 | ≥ 0.85 | yes | discs |" in page
    assert "| discs: F1 | 0.9 | ≥ 1 | **no** | low |" in page
    assert "| discs | Discs | `python benchmarks/discs.py` | 2026-11-28, `0123456789ab` |" in page
    assert "0 to 2" in page


def test_the_page_shows_the_table_of_a_result() -> None:
    table = {"caption": "Sizes.", "columns": ["d", "bias"], "rows": [["5", "NaN"], ["6", "1 %"]]}
    page = module("report").page({"discs": result(details={"table": table})})
    assert "## Discs\n\nSizes.\n\n| d | bias |\n| --- | --- |\n| 5 | NaN |\n| 6 | 1 % |\n" in page


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [
        (0.85, ">= 0.85", True),
        (0.84, ">= 0.85", False),
        (15.1, "<= 15", False),
        (-0.04, "within +- 0.05", True),
        (-0.06, "within +- 0.05", False),
    ],
)
def test_targets(value: float, target: str, expected: bool) -> None:
    assert module("record").reached(value, target) is expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": None}, "commit"),
        ({"host": "somewhere"}, "host"),
        ({"machine": {"cpu": "a CPU"}}, "machine"),
        ({"numbers": []}, "no numbers"),
        ({"numbers": [{"group": "looks", "name": "n", "value": 1.0, "unit": ""}]}, "group"),
        (
            {"numbers": [{"group": "speed", "name": "n", "value": float("nan"), "unit": ""}]},
            "finite",
        ),
        ({"targets": {"other": ">= 1"}}, "other"),
        ({"targets": {"discs: F1": "high"}}, "high"),
    ],
)
def test_a_result_that_cannot_be_shown_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        module("record").check(result(**changes), "discs.json")


def test_a_written_result_is_valid_and_names_no_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = module("record")
    script = BENCHMARKS / "linking.py"
    monkeypatch.setattr("sys.argv", [str(script), f"--weights={tmp_path}/a.pth", "--output", "x"])
    found = record.Result("Discs", seeds=[3])
    found.add("speed", "discs: time", 2.0, "s", target="<= 3")
    found.write(tmp_path / "results" / "discs.json")
    content = json.loads((tmp_path / "results" / "discs.json").read_text())
    record.check(content, "discs.json")
    assert content["script"] == "benchmarks/linking.py"
    assert content["command"].endswith("python benchmarks/linking.py --weights=a.pth --output x")
    assert str(tmp_path) not in json.dumps(content)
