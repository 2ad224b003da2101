from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, Compose
from scipy import stats

from isgseg.analysis.comparison import difference_table, too_few
from isgseg.analysis.difference import cliffs_delta_interval, compare
from isgseg.compare import compare as run_compare
from isgseg.errors import InputError
from isgseg.overrides import with_key

LOW, HIGH = np.arange(1.0, 5.0), np.arange(11.0, 15.0)


def of(reference: Any, other: Any, permutations: int = 9999, confidence: float = 0.95) -> Any:
    return compare(np.asarray(reference), np.asarray(other), permutations, confidence, 0)


def test_four_and_four_cells_apart_have_the_least_p_there_can_be() -> None:
    found = of(LOW, HIGH)
    assert found.exact
    assert found.p == found.smallest_p == pytest.approx(2 / math.comb(8, 4))
    assert found.difference == 10
    assert found.cliffs_delta == found.cliffs_delta_high == 1
    assert 0 < found.cliffs_delta_low < 1  # a bootstrap would say 1: no pair overlaps


def test_three_and_three_cells_can_prove_nothing() -> None:
    found = of(LOW[:3], HIGH[:3])
    assert found.p == pytest.approx(0.1)
    assert (found.difference_low, found.difference_high) == (-math.inf, math.inf)


def test_equal_cells_have_no_difference() -> None:
    found = of([2.0] * 4, [2.0] * 5)
    assert (found.p, found.difference, found.cliffs_delta) == (1, 0, 0)


def test_a_comparison_the_other_way_round_has_the_other_sign() -> None:
    first, second = np.array([1.0, 4, 2, 7, 3]), np.array([5.0, 3, 9, 8])
    there, back = of(first, second), of(second, first)
    assert there.p == pytest.approx(back.p)
    assert there.difference == pytest.approx(-back.difference)
    assert there.difference_low == pytest.approx(-back.difference_high)
    assert there.cliffs_delta_low == pytest.approx(-back.cliffs_delta_high)


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_holds_zero_where_p_is_above_its_level(seed: int) -> None:
    """The interval and the test are two sides of one thing."""
    random = np.random.default_rng(seed)
    first, second = random.normal(0, 1, 5), random.normal(1.4, 1, 6)
    found = of(first, second)
    assert (found.p > 0.05) == (found.difference_low < 0 < found.difference_high)
    edge = found.difference_low
    for step, rejected in ((-1e-6, True), (1e-6, False)):
        assert (of(first + edge + step, second).p <= 0.05) == rejected


def test_drawn_exchanges_agree_with_counted_ones() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(0, 1, 8), random.normal(1, 1, 8)
    counted, drawn = of(first, second, 20_000), of(first, second, 9_999)
    assert counted.exact
    assert not drawn.exact
    assert drawn.p == pytest.approx(counted.p, abs=0.02)
    assert drawn.difference_low == pytest.approx(counted.difference_low, abs=0.1)


def test_the_interval_of_cliffs_delta_is_newcombes() -> None:
    """Its ends solve the equation of method 5, and it narrows with more cells."""
    low, high = cliffs_delta_interval(0.5, 6, 7, 0.95)
    for end in (low, high):
        theta, average = (end + 1) / 2, (6 + 7) / 2 - 1
        spread = 1 + average * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        z = (0.75 - theta) / math.sqrt(theta * (1 - theta) * spread / 42)
        assert abs(z) == pytest.approx(stats.norm.ppf(0.975), abs=1e-6)
    more = cliffs_delta_interval(0.5, 60, 70, 0.95)
    assert low < more[0] < 0.5 < more[1] < high
    assert cliffs_delta_interval(-1, 4, 4, 0.95)[0] == -1


def test_p_is_uniform_where_nothing_differs_and_intervals_hold_the_difference() -> None:
    """Skewed values, unequal numbers of cells; 150 comparisons."""
    random = np.random.default_rng(0)
    p, held = [], 0
    for _ in range(150):
        first, second = random.lognormal(0, 0.5, 5), random.lognormal(0, 0.5, 6)
        found = of(first, second, 500, 0.9)
        p.append(found.p)
        held += found.difference_low <= 0 <= found.difference_high
    assert stats.kstest(p, "uniform").pvalue > 0.05
    assert held / 150 == pytest.approx(0.9, abs=0.07)


def cells(**measures: list[float]) -> pd.DataFrame:
    conditions = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    return pd.DataFrame({"condition": conditions, **measures})


def test_each_condition_is_compared_with_the_reference_and_p_is_adjusted() -> None:
    random = np.random.default_rng(2)
    shifted = [*LOW, *HIGH, *(LOW + 0.5)]
    noise = random.normal(0, 1, 12).tolist()
    table = difference_table(
        cells(size=shifted, other=noise),
        {"size": "nm", "other": ""},
        "a",
        permutations=999,
        confidence=0.95,
        seed=0,
    )
    assert table[["measure", "reference", "condition"]].to_numpy().tolist() == [
        ["size", "a", "b"],
        ["size", "a", "c"],
        ["other", "a", "b"],
        ["other", "a", "c"],
    ]
    ranks = table["p"].rank(method="first")
    by_hand = [  # Benjamini and Hochberg: the least of p * tests / rank from here on
        min((table["p"] * 4 / ranks)[ranks >= rank].min(), 1) for rank in ranks
    ]
    assert table["p_adjusted"].tolist() == pytest.approx(by_hand)
    assert table["p"].idxmin() == 0


def test_a_measure_that_a_condition_lacks_is_not_tested() -> None:
    table = difference_table(
        cells(gap=[1, 2, 3, 4, 5, *[math.nan] * 3, 6, 7, 8, 9]),
        {"gap": "nm"},
        "a",
        permutations=999,
        confidence=0.95,
        seed=0,
    )
    assert table["cells"].tolist() == [1, 4]
    assert table["p"].isna().tolist() == [True, False]
    assert "not tested" in too_few(table)[0]


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a summary as isgseg-analyse does: `write("cell", measures={"count": 3.0})`."""

    def written(name: str, measures: dict[str, float | None], /, **other: Any) -> Path:
        content = {
            "isgseg": "0.1",
            "volume": name,
            "labels": f"{name}_labels.tif",
            "sha256": {"volume": f"hash of {name}", "labels": None},
            "voxel_size_nm": [30.0, 30.0, 30.0],
            "settings": {"chance": {"placements": 99}, "structures": {"cell": f"{name}_c.tif"}},
            "warnings": [],
            "measures": {
                key: {"value": value, "unit": "nm", "about": "", "chance": None}
                for key, value in measures.items()
            },
            "curves": {},
            **other,
        }
        folder = tmp_path / "analyse" / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{Path(name).stem}_summary.json"
        path.write_text(json.dumps(content))
        return path

    return written


@pytest.fixture
def study(tmp_path: Path, write: Write) -> list[str]:
    """Eight cells of two conditions that differ in size and not in shape, as overrides."""
    rows = ["volume,condition"]
    for number in range(8):
        fed = number % 2
        write(f"cell{number}.mrc", {"size": 200.0 + 40 * fed + number, "shape": number // 2 * 1.0})
        rows.append(f"cell{number},{'fed' if fed else 'fasted'}")
    (tmp_path / "conditions.csv").write_text("\n".join(rows))
    return [
        f"summaries={tmp_path}/analyse/*/*_summary.json",
        f"conditions={tmp_path}/conditions.csv",
        f"output_dir={tmp_path}/out",
    ]


def test_cells_tests_and_figure(config: Compose, study: list[str]) -> None:
    paths = run_compare(config("compare", *study))
    table = pd.read_csv(paths["cells"])
    assert len(table) == 8
    assert table["condition"].tolist() == ["fasted"] * 4 + ["fed"] * 4
    tests = pd.read_csv(paths["tests"]).set_index("measure")
    assert tests.loc["size", "difference"] == 41
    assert tests.loc["size", "p"] == pytest.approx(2 / 70)
    assert tests.loc["size", "p_adjusted"] == pytest.approx(4 / 70)
    assert tests.loc["shape", "difference"] == 0
    assert tests.loc["shape", "p"] == 1
    assert paths["figure"].stat().st_size > 10_000


@pytest.mark.parametrize(
    ("override", "change"),
    [
        ("reference=fed", {"reference": ["fed"], "difference": [-41.0]}),
        ("measures=[size]", {"measure": ["size"]}),
        ("confidence=0.9", {"difference_low": [37.0]}),
        ("permutations=99", {"exact": [True]}),
    ],
)
def test_keys_change_the_tests(
    config: Compose, study: list[str], override: str, change: dict[str, list[Any]]
) -> None:
    paths = run_compare(config("compare", *study, "measures=[size]", override))
    tests = pd.read_csv(paths["tests"])
    for column, values in change.items():
        assert tests[column].tolist() == values


def test_more_permutations_and_another_seed(config: Compose, study: list[str]) -> None:
    """More than 99 of 70 ways are all of them; with fewer than all the seed decides."""
    values = []
    rows = [f"cell{i},{'a' if i < 6 else 'b'}" for i in range(12)]
    folder = Path(study[1].partition("=")[2]).parent
    (folder / "conditions.csv").write_text("volume,condition\n" + "\n".join(rows))
    template = json.loads((folder / "analyse/cell0.mrc/cell0_summary.json").read_text())
    random = np.random.default_rng(0)
    for number in range(12):
        name = f"cell{number}"
        content = {
            **template,
            "volume": name,
            "sha256": {"volume": name},
            "measures": {"size": {"value": random.normal(), "unit": "nm"}},
        }
        (folder / f"{name}_summary.json").write_text(json.dumps(content))
    given = [f"summaries={folder}/*_summary.json", *study[1:], "overwrite=true"]
    for override in ("permutations=99", "permutations=9999", "seed=7"):
        more = ["permutations=99"] if override == "seed=7" else []
        tests = pd.read_csv(run_compare(config("compare", *given, *more, override))["tests"])
        values.append((tests["p"].item(), tests["exact"].item()))
    assert [exact for _, exact in values] == [False, True, False]
    assert values[0] != values[2]


def test_mistakes_are_named_and_write_nothing(
    tmp_path: Path, config: Compose, study: list[str], write: Write
) -> None:
    table = tmp_path / "conditions.csv"
    good = table.read_text()

    def fails(reason: str, *overrides: str, conditions: str = good) -> None:
        table.write_text(conditions)
        with pytest.raises(InputError, match=reason):
            run_compare(config("compare", *study, *overrides))
        table.write_text(good)

    fails(r"no row for cell7\.mrc", conditions=good.replace("cell7,fed", ""))
    fails("no cell of condition starved", conditions=good + "\ncell99,starved")
    fails("has no column condition", conditions=good.replace("condition", "group", 1))
    fails("row 9.* must not be empty", conditions=good.replace("cell7,fed", "cell7,"))
    fails("a cell has one condition", conditions=good + "\ncell7,fasted")
    fails("has no row", conditions="volume,condition\n")
    fails("8 cell.* of 1 condition", conditions=good.replace("fasted", "fed"))
    fails(r"reference=fat: no such condition; choose fasted or fed", "reference=fat")
    fails(r"measures=sise: no summary has it; did you mean size\?", "measures=[sise]")
    fails("no file matches", f"summaries={tmp_path}/nothing/*.json")
    fails("no such file", f"conditions={tmp_path}/none.csv")
    fails("is no JSON", f"summaries={table}")
    one = f"{tmp_path}/analyse/cell0.mrc/cell0_summary.json"
    fails(
        r"1 cell\(s\) of 1 condition",
        f"summaries={one}",
        conditions="volume,condition\ncell0.mrc,fasted",
    )
    again = write("again", {"size": 1.0}, volume="cell3.mrc")
    fails(r"are of one cell, cell3\.mrc")
    again = write("again", {"size": 1.0}, sha256={"volume": "hash of cell3.mrc"})
    fails(r"again_summary\.json and .*cell3_summary\.json are of one cell")
    for other, reason in {
        "voxel_size_nm": r"voxel size of again is not known",
        "isgseg": "isgseg=null",
        "measures": r"measures\.size\.value=big: must be a number",
    }.items():
        wrong = {"size": {"value": "big", "unit": "nm"}} if other == "measures" else None
        again = write("again", {"size": 1.0}, **{other: wrong})
        fails(reason, conditions=good + "\nagain,fed")
    write("again", {"size": 1.0}, measures={"size": {"value": 1.0, "unit": "px"}})
    fails("size has the units px in again and nm in", conditions=good + "\nagain,fed")
    again.write_text(again.read_text().replace("1.0", "NaN"))
    fails("NaN is no number of JSON")
    assert not (tmp_path / "out").exists()


def test_what_makes_cells_hard_to_compare_is_said(
    config: Compose, study: list[str], write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    run_compare(config("compare", *study))
    assert not [said for said in ("Versions", "Voxel", "Settings") if said in caplog.text]
    write("cell0.mrc", {"size": 200.0}, isgseg="0.2", voxel_size_nm=[37.0, 37.0, 37.0])
    write("cell1.mrc", {"size": 241.0}, settings={"chance": {"placements": 9}})
    run_compare(config("compare", *study, "overwrite=true"))
    assert "Versions of isgseg differ (cells): 0.1 (7), 0.2 (1)" in caplog.text
    assert "Voxel sizes differ" in caplog.text
    assert "chance.placements is" in caplog.text
    assert "structures.cell is" in caplog.text  # one cell has no such structure


def test_too_few_cells_are_said(
    tmp_path: Path, config: Compose, study: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "conditions.csv"
    table.write_text("volume,condition\ncell0,a\ncell1,b\ncell2,a\ncell3,b\ncell4,c")
    some = [f"{tmp_path}/analyse/cell{i}.mrc/cell{i}_summary.json" for i in range(5)]
    run_compare(config("compare", *study, f"summaries=[{','.join(some)}]"))
    assert "b (2 cells) against a (3), 2 measures: too few cells" not in caplog.text
    assert "b (2 cells) against a (2), 2 measures: too few cells" in caplog.text
    assert "c (1 cells) against a (2), 2 measures: not tested" in caplog.text
    assert "2 tests of so few cells: if a single measure differs, its adjusted p is" in caplog.text


def test_cells_of_one_volume_are_told_apart_by_their_numbers(
    tmp_path: Path, config: Compose, write: Write
) -> None:
    (tmp_path / "c.csv").write_text("volume,condition\na,x\nb,y")
    given = [f"summaries={tmp_path}/analyse/*/*.json", f"conditions={tmp_path}/c.csv"]
    for name in "ab":
        for cell in (1, 2):
            one = {"volume": name, "sha256": {"volume": name}, "settings": {"cell": cell}}
            write(f"{name}{cell}", {"size": 1.0 * cell}, **one)
    assert len(pd.read_csv(run_compare(config("compare", *given))["cells"])) == 4
    write("b2", {"size": 2.0}, volume="b", sha256={"volume": "b"}, settings={"cell": None})
    with pytest.raises(InputError, match="of one cell"):
        run_compare(config("compare", *given, "overwrite=true"))


def test_names_are_matched_whole_before_they_are_matched_without_suffix(
    tmp_path: Path, config: Compose, write: Write
) -> None:
    for name in ("a.mrc", "a.tif", "b.mrc", "b.tif"):
        write(name, {"size": float(len(name))})
    (tmp_path / "c.csv").write_text("volume,condition\na.mrc,x\na.tif,y\nb.mrc,x\nb.tif,y")
    given = [f"summaries={tmp_path}/analyse/*/*.json", f"conditions={tmp_path}/c.csv"]
    cells = pd.read_csv(run_compare(config("compare", *given))["cells"])
    assert dict(zip(cells["volume"], cells["condition"], strict=True)) == {
        "a.mrc": "x",
        "a.tif": "y",
        "b.mrc": "x",
        "b.tif": "y",
    }


def test_a_comparison_is_replaced_only_when_asked(config: Compose, study: list[str]) -> None:
    first = run_compare(config("compare", *study))["tests"].read_bytes()
    with pytest.raises(FileExistsError, match="set overwrite=true"):
        run_compare(config("compare", *study, "confidence=0.5"))
    again = run_compare(config("compare", *study, "confidence=0.5", "overwrite=true"))
    assert again["tests"].read_bytes() != first


def test_files_without_a_key() -> None:
    assert with_key("summaries", ["a.json", "seed=1"]) == ["summaries=a.json", "seed=1"]
    assert with_key("summaries", ["a", "b 'c'"]) == [r"summaries=['a','b \'c\'']"]
    for arguments in (["--help"], ["seed=1", "a.json"], ["~paths"], []):
        assert with_key("summaries", arguments) == arguments
    assert with_key("", ["a.json"]) == ["a.json"]


def test_the_command_takes_a_glob_as_its_first_argument(tmp_path: Path, study: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "isgseg.compare", study[0].partition("=")[2], study[1]],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (tests,) = tmp_path.glob("outputs/compare/*/comparison_tests.csv")
    assert str(tests.relative_to(tmp_path)) in run.stdout
