"""The benchmark of methods: its command line, rows that are kept and merged, and a peer."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module as module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

BENCHMARKS = ROOT / "benchmarks"


pytestmark = pytest.mark.usefixtures("benchmark_scripts")


def balls(*middles: tuple[int, int, int], radius: float = 4.0) -> tuple[Any, Any]:
    """A grey volume with bright balls in mid-grey, and their labels."""
    grid = np.indices((24, 48, 48)).T[..., None, :] - np.array(middles)
    near = np.sqrt((grid**2).sum(-1)).T
    labels = np.where(near.min(0) <= radius, near.argmin(0) + 1, 0)
    random = np.random.default_rng(0)
    volume = 127 + 70 * (labels > 0) + random.normal(0, 4, labels.shape)
    return volume.astype(np.uint8), labels


def row(
    title: str, f1: float, seconds: float, cost: Any = (900.0, 890.0, 1000.0)
) -> dict[str, Any]:
    bins = [
        {"from_nm": 0.0, "to_nm": 100.0} | dict.fromkeys(COUNTS, 0),
        {"from_nm": 200.0, "to_nm": 250.0} | dict(zip(COUNTS, (10, 2, 9, 1), strict=True)),
        {"from_nm": 500.0, "to_nm": None} | dict(zip(COUNTS, (4, 4, 0, 0), strict=True)),
    ]
    scores = {
        "f1": f1,
        "f1_at": {"0.3": f1},
        "mean_average_precision": f1,
        "sq": 0.7,
        "count_error_relative": -0.05,
        "splits": 1,
        "merges": 2,
        "by_diameter": bins,
    }
    predict = {"seconds_a_slice": seconds, "memory_mb": 1000.0}
    train = {"cost": cost, "steps": 100}
    return {"title": title, "scores": scores, "train": train, "predict": predict, "minutes": 16.0}


COUNTS = ("ground_truth", "false_negatives", "predicted", "false_positives")


def test_the_command_line_takes_rows_and_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    methods = module("methods")
    args = methods.arguments(["unet", "log", "--folder", "keep", "--minutes", "4"])
    assert args.rows == ["unet", "log"]
    assert (args.minutes, args.threads, args.output) == (4.0, 1, None)
    assert args.folder.is_absolute()
    for wrong in (
        ["watershed", "--folder", "a"],
        ["unet"],
        ["unet", "--folder", "a", "--minutes=0"],
    ):
        with pytest.raises(SystemExit):
            methods.arguments(wrong)
    assert "--minutes must be above 0" in capsys.readouterr().err


def test_rows_of_a_folder_replace_those_of_a_result_and_the_others_stay(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "unet.json").write_text('{"title": "new"}')
    output = tmp_path / "methods.json"
    assert module("methods").merged(rows, output) == {"unet": {"title": "new"}}
    former = {"unet": {"title": "old", "whole": {"wall": 9.0}}, "log": {"title": "log"}}
    output.write_text(json.dumps({"details": {"rows": former}}))
    found = module("methods").merged(rows, output)
    assert found == {"unet": {"title": "new", "whole": {"wall": 9.0}}, "log": {"title": "log"}}


def test_a_stage_that_is_there_is_not_run_again(tmp_path: Path) -> None:
    kept = module("methods_cost").kept
    assert kept(tmp_path / "a" / "stage.json", lambda: (1.5, 2)) == [1.5, 2]
    assert kept(tmp_path / "a" / "stage.json", lambda: pytest.fail("ran twice")) == [1.5, 2]


def test_the_cost_of_a_command_is_its_own_processor_time_and_memory(tmp_path: Path) -> None:
    spent = module("methods_cost").spent
    line = [sys.executable, "-c", "b = bytearray(200_000_000); print('said')"]
    cost = spent(line, tmp_path / "log")
    assert cost.memory > 190
    assert 0 < cost.processor < 60
    assert (tmp_path / "log").read_text() == "said\n"
    with pytest.raises(RuntimeError, match="no such thing"):
        spent([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path / "log")


def test_a_training_is_as_long_as_its_trials_say_the_longest_above_all() -> None:
    within = module("methods_rows").steps_within
    assert within({2: 14.0, 10: 30.0}, 110.0) == 50  # 10 s to start, 2 s a step
    assert within({2: 14.0, 10: 30.0, 50: 70.0}, 110.0) == 90  # later ones take 1 s


def test_the_steps_of_a_row_fill_its_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, cost = module("methods_rows"), module("methods_cost").Cost
    runs: list[int] = []

    def steps(self: Any, args: Any, data: Any, steps: int, epochs: int, folder: Path) -> Any:
        runs.append(steps)
        early = min(steps, 10)
        return cost(0.0, 10 + 2.0 * early + 4.0 * (steps - early), 0.0)

    monkeypatch.setattr(rows.Isgseg, "steps", steps)
    monkeypatch.setattr(rows, "schedule", lambda steps, epochs, root: (epochs, steps // epochs))
    args = argparse.Namespace(minutes=20)
    data = rows.Data(tmp_path, [], [], [], tmp_path)
    found = rows.Isgseg("slower and slower").fit(args, data, tmp_path)
    assert runs == [2, 10, 74, 302]  # an eighth of (1200 - 10) / 2 steps; then 30 + 4 s * 290
    assert (found["steps"], found["cost"].processor) == (300, pytest.approx(1200, abs=20))


def test_a_row_has_minutes_of_its_own_or_those_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = module("methods")
    args = methods.arguments(["light", "--folder", str(tmp_path), "--minutes", "4"])

    def measured(self: Any, args: Any, data: Any, runs: Path, name: str) -> dict[str, Any]:
        return row(name, 0.5, 0.1) | {"minutes": args.minutes}

    monkeypatch.setattr(methods.methods_rows.Isgseg, "measure", measured)
    named = methods.methods_rows.ROWS
    assert methods.measure(args, None, named["light"], "light")["minutes"] == 4
    assert methods.measure(args, None, named["light-hour"], "light-hour")["minutes"] == 60
    assert args.minutes == 4


def test_f1_by_diameter_pools_bins() -> None:
    table = module("methods_table")
    found = table.f1_by_diameter(row("a", 0.8, 0.1)["scores"])
    assert found == [None, pytest.approx(16 / 19), None, 0.0]
    assert [table.span(edges) for edges in table.DIAMETERS] == [
        "< 200",
        "200 to 250",
        "250 to 300",
        "> 300",
    ]


def test_the_numbers_compare_the_second_method_and_the_best_peer() -> None:
    result = module("record").Result("Methods")
    rows = {
        "light": row("Mask R-CNN", 0.8, 0.4),
        "unet": row("U-Net", 0.79, 0.1),
        "stardist": row("StarDist", 0.6, 0.5),
        "log": row("LoG", 0.5, 0.05, None),
        "shipped": row("shipped", 0.9, 0.4, None),  # not of these minutes
        "light-hour": row("an hour", 0.9, 0.4),  # nor this one
    }
    module("methods_table").fill(result, rows)
    found = {number["name"]: number["value"] for number in result.numbers}
    assert found["F1 of Mask R-CNN less the U-Net's"] == pytest.approx(0.01)
    assert found["best of isgseg: F1 less the best peer's"] == pytest.approx(0.2)
    assert found["best of isgseg: time of prediction over the best peer's"] == pytest.approx(0.8)
    assert found["light-hour: count error, without its sign"] == pytest.approx(0.05)
    assert result.targets["light-hour: F1 in 3D at IoU .5"] == ">= 0.9"


def test_the_section_has_a_line_for_each_method() -> None:
    section = module("methods_table").section
    content = {
        "date": "2026-11-28",
        "machine": {"cpu": "a CPU"},
        "command": "python benchmarks/methods.py all",
        "details": {"rows": {"a": row("U-Net", 0.8, 0.1), "b": row("LoG", 0.5, 0.05, None)}},
    }
    text = section(content)
    assert "| U-Net | 0.800 | 0.800 | 0.800 | 0.700 | -5.0% | 1 | 2 |" in text
    assert "| LoG | none | 100 | 0.05 | 1,000 |" in text
    assert "16 minutes" in text
    assert "Nothing" in section(None)


def test_the_log_peer_finds_balls_and_tells_two_that_touch_apart() -> None:
    peer = module("run_log")
    volume, labels = balls((12, 12, 12), (12, 12, 20), (12, 34, 34))
    settings = peer.tune([volume], [labels])
    assert settings["f1"] == 1
    found = peer.segment(volume, settings["response"], settings["share"])
    assert peer.matched(found, labels).tolist() == [3, 3, 3]


def test_the_log_peer_finds_nothing_in_noise_and_reads_and_writes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = module("run_log")
    flat = np.full((12, 32, 32), 127, np.uint8)
    np.save(tmp_path / "cell.npy", flat)
    (tmp_path / "settings.json").write_text('{"response": 0.1, "share": 0.5}')
    files = f"--images {tmp_path}/cell.npy --model {tmp_path} --output {tmp_path}/out"
    monkeypatch.setattr("sys.argv", f"run_log.py predict {files}".split())
    peer.main()
    assert not np.load(tmp_path / "out" / "cell.npy").any()


def test_every_peer_says_what_its_environment_needs() -> None:
    rows = module("methods_rows")
    peers = {row.name for row in rows.ROWS.values() if isinstance(row, rows.Peer)}
    folders = {path.name: path for path in (BENCHMARKS / "peers").iterdir() if path.is_dir()}
    assert peers <= folders.keys()
    for name, folder in folders.items():
        assert (folder / "requirements.txt").read_text().strip()
        script = "run" if name in peers else "time"  # only the speed of its network is measured
        assert (folder / f"{script}_{name}.py").is_file()


@pytest.mark.parametrize(("threads", "count"), [(1, 0), (2, 2)])
def test_a_whole_cell_has_its_targets_on_two_cores(threads: int, count: int) -> None:
    whole = {"wall": 50.0, "processor": 90.0, "memory": 1500.0, "slices": 473, "threads": threads}
    result = module("record").Result("methods", [0])
    module("methods_table").fill(result, {"unet": row("U-Net", 0.6, 0.2) | {"whole": whole}})
    found = {n["name"]: n["value"] for n in result.numbers if "whole cell" in n["name"]}
    assert len(found) == count
    assert all(value < 1500 - 200 for value in found.values())
