from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Compose
from hydra.core.override_parser.overrides_parser import OverridesParser

from isgseg.analyse import analyse_all, for_tasks
from isgseg.analyse import plan as plan_analyses
from isgseg.batch.launch import Batch, launch, launcher_of
from isgseg.batch.records import collected_warnings, note_failure, read_record, recorded
from isgseg.batch.tasks import all_awaited
from isgseg.batch.work import Item, Work
from isgseg.errors import InputError
from isgseg.inference.manifest import read_manifest
from isgseg.inference.method import Granules
from isgseg.inference.predictor import Predictor
from isgseg.io.volumes import find_volumes, write_volume
from isgseg.overrides import modernize
from isgseg.predict import plan, predict

SIZE = (30.0, 30.0, 30.0)
Segment = Callable[..., Granules]


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three volumes, and of labels of one of them, by hand."""
    monkeypatch.chdir(tmp_path)  # a network under outputs/ would be taken, such as the demo's
    folder = tmp_path / "cells"
    noise = np.random.default_rng(0).normal(100, 5, (3, 40, 40)).astype(np.float32)
    for name in ("cell2", "cell10", "cell1"):
        write_volume(folder / f"{name}.mrc", noise, SIZE)
    write_volume(folder / "cell1_labels.mrc", np.zeros((3, 40, 40), np.uint16), SIZE)
    return folder


@pytest.fixture
def segment(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Finds two granules in any volume, without the network; volumes in the list fail."""
    failing: list[str] = []

    def found(_self: Predictor, volume: Any, name: str = "") -> Granules:
        if name in failing:
            raise InputError(f"{name}: no")
        labels = np.zeros(volume.data.shape, np.uint16)
        labels[:, 5:9, 5:9], labels[:, 20:25, 20:25] = 1, 2
        return Granules(labels, np.ones(2), np.ones(2), np.full(2, 3))

    monkeypatch.setattr(Predictor, "segment", found)
    return failing


def options(folder: Path, out: Path, *more: str) -> list[str]:
    return [f"volumes={folder}", f"output_dir={out}", "device=cpu", "progress=false", *more]


def summary(out: Path, command: str = "predict") -> pd.DataFrame:
    table = pd.read_csv(out / f"{command}_summary.csv", keep_default_na=False)
    table["volume"] = [Path(name).name for name in table["volume"]]
    return table


def test_a_folder_of_cells_is_labelled_and_summed_up(
    cells: Path, tmp_path: Path, config: Compose, segment: list[str]
) -> None:
    segment.append("cell2.mrc")
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"1 of 3 volumes were not labelled: .*cell2\.mrc: no"):
        predict(config("predict", *options(cells, out)))
    table = summary(out)
    assert table["volume"].tolist() == ["cell1.mrc", "cell2.mrc", "cell10.mrc"]
    assert table["status"].tolist() == ["labelled", "failed", "labelled"]
    assert table["granules"].tolist() == ["2", "", "2"]
    assert table["reason"].tolist() == ["", "cell2.mrc: no", ""]
    assert table["device"][0].startswith("cpu")
    assert "never seen a real cell" in table["warnings"][0]
    record = read_record(out / "cell2_predict_unfinished.json")
    assert record is not None
    assert record["status"] == "failed"


def test_a_second_run_does_the_failed_ones_alone(
    cells: Path, tmp_path: Path, config: Compose, segment: list[str]
) -> None:
    segment.append("cell2.mrc")
    out = tmp_path / "out"
    with pytest.raises(InputError):
        predict(config("predict", *options(cells, out)))
    before = {path: path.stat().st_mtime_ns for path in out.glob("cell1*")}
    assert len(before) == 6
    segment.clear()
    assert [item.volume.name for item in plan(config("predict", *options(cells, out))).todo] == [
        "cell2.mrc"
    ]
    assert len(predict(config("predict", *options(cells, out)))) == 3
    assert {path: path.stat().st_mtime_ns for path in out.glob("cell1*")} == before
    assert summary(out)["status"].tolist() == ["labelled"] * 3
    assert not list(out.glob("*unfinished*"))
    with pytest.raises(InputError, match="made with another threshold"):
        predict(config("predict", *options(cells, out, "threshold=0.9")))


def test_the_summary_is_of_all_volumes_in_the_folder_whoever_did_them(
    cells: Path, tmp_path: Path, config: Compose, segment: list[str]
) -> None:
    out = tmp_path / "out"
    both = options(cells, out)
    predict(config("predict", *options(cells / "cell10.mrc", out)))
    assert not (out / "predict_summary.csv").exists()
    predict(config("predict", f"++volumes=[{cells}/cell1.mrc,{cells}/cell2.mrc]", *both[1:]))
    assert summary(out)["volume"].tolist() == ["cell1.mrc", "cell2.mrc", "cell10.mrc"]


def test_a_summary_of_someone_else_stays(
    cells: Path, tmp_path: Path, config: Compose, segment: list[str]
) -> None:
    theirs = tmp_path / "out" / "predict_summary.csv"
    theirs.parent.mkdir()
    theirs.write_text("mine\n")
    with pytest.raises(InputError, match="was not written by isgseg-predict"):
        predict(config("predict", *options(cells, theirs.parent)))
    assert theirs.read_text() == "mine\n"


def test_a_record_says_what_was_begun_and_what_failed(tmp_path: Path) -> None:
    path, volume = tmp_path / "cell_predict_unfinished.json", tmp_path / "cell.mrc"
    with recorded(path, "predict", volume, str):
        record = read_record(path)
        assert record is not None
        assert record["status"] == "begun"
    assert not path.exists()
    with pytest.raises(KeyError), recorded(path, "predict", volume, repr):
        raise KeyError("x")
    record = read_record(path)
    assert record is not None
    assert record["reason"] == "KeyError('x')"
    path.write_text("mine")
    note_failure(path, "predict", volume, "no")
    assert path.read_text() == "mine"


def test_warnings_are_collected_once() -> None:
    import logging

    with collected_warnings() as found:
        for _ in range(2):
            logging.getLogger("isgseg.predict").warning("dim")
        logging.getLogger("isgseg.predict").error("gone")
        logging.getLogger("other").warning("not ours")
    assert found == ["dim"]


@pytest.mark.parametrize(
    ("arguments", "launcher"),
    [
        (["volumes='*.mrc'"], None),
        (["volumes='*.mrc'", "hydra/launcher=basic"], None),
        (["volumes='*.mrc'", "hydra/launcher=submitit_local"], "submitit_local"),
        (["-m", "volumes='*.mrc'", "hydra/launcher=submitit_slurm"], "submitit_slurm"),
        (["-m", "threshold=0.5,0.6", "hydra/launcher=submitit_slurm"], None),
    ],
)
def test_a_launcher_is_for_volumes_unless_there_is_another_sweep(
    arguments: list[str], launcher: str | None
) -> None:
    assert launcher_of(arguments) == launcher


def volumes_of(argv: list[str], key: str) -> list[str]:
    """The volumes of Hydra's sweep, of whose values each is a list of one."""
    (sweep,) = [word for word in argv if word.startswith(f"++{key}=")]
    override: Any = OverridesParser.create().parse_override(sweep)
    if not override.is_sweep_override():
        return [str(item) for item in override.value()]
    return [choice[0].text for choice in override.sweep_iterator(lambda choice: choice)]


def as_tasks(config: Compose, out: Path, killed: str = "") -> None:
    """What a launcher would do with `sys.argv`: each volume a task, of which one is killed."""
    for volume in volumes_of(sys.argv[1:], "volumes"):
        if volume.endswith(killed or "none"):
            continue
        with_list = [f"volumes=['{volume}']", *options(Path(), out)[1:]]
        try:
            predict(config("predict", *with_list))
        except InputError:
            assert len(volumes_of(sys.argv[1:], "volumes")) > 0  # the record has the reason


def test_volumes_become_tasks_and_what_became_of_each_is_said(
    cells: Path,
    tmp_path: Path,
    config: Compose,
    segment: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    typed = ["-m", *options(cells, out), "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    monkeypatch.setattr(sys, "argv", ["isgseg-predict", *typed])
    segment.append("cell2.mrc")
    batch = Batch("volumes", plan)
    run = functools.partial(as_tasks, config, out, killed="cell10.mrc")
    with pytest.raises(InputError, match="2 of 3 volumes were not labelled") as caught:
        launch("predict", typed, batch, "joblib", run)
    assert "cell2.mrc: no" in str(caught.value)
    assert "cell10.mrc (its task ended without a result" in str(caught.value)
    assert sys.argv[1] == "--multirun"
    assert "hydra.launcher.n_jobs=2" in sys.argv
    assert summary(out)["status"].tolist() == ["labelled", "failed", "failed"]
    segment.clear()
    launch("predict", typed, batch, "joblib", functools.partial(as_tasks, config, out))
    done = volumes_of(sys.argv[1:], "volumes")
    assert [Path(name).name for name in done] == ["cell2.mrc", "cell10.mrc"]
    assert summary(out)["status"].tolist() == ["labelled"] * 3
    assert read_manifest(out / "cell2_labels.json").granules == 2
    launch("predict", typed, batch, "joblib", lambda: pytest.fail("nothing is left to do"))


def test_without_a_folder_all_tasks_share_a_new_one(
    cells: Path,
    tmp_path: Path,
    segment: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = [f"volumes={cells}", f"paths.root={tmp_path}/outputs", "device=cpu"]
    monkeypatch.setattr(sys, "argv", ["isgseg-predict", *typed])
    with pytest.raises(InputError, match="3 of 3"):
        launch("predict", typed, Batch("volumes", plan), "joblib", lambda: None)
    assert "isgseg-predict: 0 of 3 finished, 0 failed" in capsys.readouterr().out
    (folder,) = (tmp_path / "outputs" / "predict").iterdir()
    assert f"output_dir='{folder}'" in sys.argv
    assert summary(folder)["status"].tolist() == ["failed"] * 3


def test_a_launcher_that_starts_nothing_is_one_error(
    cells: Path, tmp_path: Path, segment: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    typed = options(cells, out)
    monkeypatch.setattr(sys, "argv", ["isgseg-predict", *typed])

    def refused() -> None:
        raise RuntimeError("sbatch: error: invalid partition specified: gpus")

    with pytest.raises(InputError, match=r"did not start the tasks: .*invalid partition"):
        launch("predict", typed, Batch("volumes", plan), "submitit_slurm", refused)
    assert not out.exists()


def test_of_many_failures_the_first_are_named(tmp_path: Path) -> None:
    item = Item(tmp_path / "a.mrc", tmp_path / "a_labels.tif", tmp_path / "a.json")
    work = Work("predict", tmp_path, [item] * 30, [item] * 30, lambda _folder: [])
    with pytest.raises(InputError, match=r"9\.mrc \(no\) and 20 more; see .*summary\.csv"):
        work.finish({f"{number}.mrc": "no" for number in range(30)})


def test_all_tasks_are_awaited_though_one_died(monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("submitit.core.core")
    from submitit.core.utils import UncompletedJobError

    class Job:
        state, paths = "OUT_OF_MEMORY", type("Paths", (), {"stderr": Path("none.err")})

    def results(job: Any) -> Any:
        if job is dead:
            raise UncompletedJobError("no result")
        return [type("Return", (), {"return_value": None})]

    dead, monkeypatched = Job(), results
    monkeypatch.setattr(core.Job, "results", monkeypatched)
    outcomes: list[str | None] = []
    with all_awaited(outcomes):
        for job in (dead, Job()):
            core.Job.results(job)
    assert outcomes[0] is not None
    assert "state out_of_memory" in outcomes[0]
    assert outcomes[1] is None
    assert core.Job.results is monkeypatched


def test_a_launcher_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'isgseg\[cluster\]'"):
        launch("predict", [], Batch("volumes", plan), "submitit_slurm", lambda: None)


def test_a_volume_beyond_memory_is_no_damaged_file(tmp_path: Path) -> None:
    from isgseg.io.damage import described

    error = MemoryError("Unable to allocate 2.50 GiB for an array with shape (40, 4096, 4096)")
    assert described(tmp_path / "none.mrc", error).endswith(
        "; give it more memory, or cut the volume"
    )


def test_a_folder_holds_volumes_sorted_by_name(cells: Path) -> None:
    names = [path.name for path in find_volumes(cells)]
    assert names == ["cell1.mrc", "cell1_labels.mrc", "cell2.mrc", "cell10.mrc"]


@pytest.fixture
def labelled(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of isgseg-analyse for three volumes; no figure, which takes longest."""
    monkeypatch.setattr("isgseg.analysis.figures.granule_figure", _no_figure)
    labels = np.zeros((3, 40, 40), np.uint16)
    labels[1, 5:9, 5:9] = 1
    for name in ("cell1", "cell2", "cell10"):
        write_volume(tmp_path / "out" / f"{name}_labels.tif", labels, SIZE)
        write_volume(tmp_path / "masks" / f"{name}_cell.tif", np.ones_like(labels), SIZE)
    return [
        f"volume={cells}/cell?*.mrc",
        f"labels={tmp_path}/out/*_labels.tif",
        f"output_dir={tmp_path}/analysis",
        "report=false",
        "chance.placements=0",
    ]


def _no_figure(*arguments: Any, **_more: Any) -> None:
    Path(arguments[3]).parent.mkdir(exist_ok=True)
    Path(arguments[3]).write_bytes(b"")


def test_many_cells_are_analysed(
    labelled: list[str], tmp_path: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    mask = f"structures.cell='{tmp_path}/masks/{{name}}_cell.tif'"
    analyse_all(config("analyse", *labelled, mask))
    table = summary(tmp_path / "analysis", "analyse")
    assert table["volume"].tolist() == ["cell1.mrc", "cell2.mrc", "cell10.mrc"]
    assert table["status"].tolist() == ["analysed"] * 3
    assert table["granules"].tolist() == [1, 1, 1]
    content = json.loads((tmp_path / "analysis" / "cell10_summary.json").read_text())
    assert content["settings"]["structures"]["cell"].endswith("masks/cell10_cell.tif")
    assert content["seconds"] > 0
    analyse_all(config("analyse", *labelled, mask))
    assert "cell10.mrc: kept" in caplog.text
    with pytest.raises(InputError, match="exists, and was made with another structures"):
        analyse_all(config("analyse", *labelled))
    smaller = np.ones((3, 40, 40), np.uint8)
    smaller[:, 20:] = 0
    write_volume(tmp_path / "masks" / "cell2_cell.tif", smaller, SIZE)
    with pytest.raises(InputError, match=r"was made with another structures\.cell \(see cell2_"):
        analyse_all(config("analyse", *labelled, mask))


def test_a_cell_that_failed_is_analysed_again_alone(
    labelled: list[str], tmp_path: Path, config: Compose
) -> None:
    good = (tmp_path / "out" / "cell2_labels.tif").read_bytes()
    write_volume(tmp_path / "out" / "cell2_labels.tif", np.zeros((2, 9, 9), np.uint16), SIZE)
    with pytest.raises(InputError, match="1 of 3 volumes were not analysed"):
        analyse_all(config("analyse", *labelled))
    assert summary(tmp_path / "analysis", "analyse")["status"].tolist()[1] == "failed"
    (tmp_path / "out" / "cell2_labels.tif").write_bytes(good)
    (tmp_path / "analysis" / "cell2_granules.csv").write_text("of a run that was killed")
    todo = plan_analyses(config("analyse", *labelled)).todo
    assert [item.volume.name for item in todo] == ["cell2.mrc"]
    analyse_all(config("analyse", *labelled))
    assert summary(tmp_path / "analysis", "analyse")["status"].tolist() == ["analysed"] * 3


def test_one_structure_for_many_cells_is_refused(
    labelled: list[str], tmp_path: Path, config: Compose
) -> None:
    with pytest.raises(InputError, match=r"is one file for 3 volumes; write \{name\}"):
        analyse_all(config("analyse", *labelled, f"structures.cell={tmp_path}/cell.tif"))


def test_labels_of_tasks_are_named_after_their_volume(
    labelled: list[str], tmp_path: Path, config: Compose
) -> None:
    told = f"labels='{tmp_path}/out/{{name}}_labels.tif'"
    assert for_tasks(config("analyse", *labelled)) == [told]
    one = [f"volume=['{tmp_path}/cells/cell2.mrc']", told, *labelled[2:]]
    (item,) = plan_analyses(config("analyse", *one)).todo
    assert item.labels.name == "cell2_labels.tif"
    (tmp_path / "out" / "cell2_labels.tif").rename(tmp_path / "out" / "cell2_seg.tif")
    other = f"labels={tmp_path}/out/*.tif"
    with pytest.raises(InputError, match=r"not all labels are called alike; .*\{name\}"):
        for_tasks(config("analyse", *labelled, other))


def test_analyse_takes_volumes_too() -> None:
    assert modernize("analyse", ["volumes=cells"]) == (["volume=cells"], [])
    assert modernize("predict", ["volumes=cells"]) == (["volumes=cells"], [])


@pytest.mark.slow
def test_tasks_of_local_processes(cells: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    (cells / "cell2.mrc").write_bytes(b"no volume")
    out = tmp_path / "out"
    launcher = ["hydra/launcher=submitit_local", "hydra.sweeper.max_batch_size=2"]
    more = [f"paths.root={tmp_path}/outputs", *launcher]
    command = [sys.executable, "-m", "isgseg.predict", *options(cells, out, *more)]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    assert run.returncode == 1
    assert "1 of 3 volumes were not labelled" in run.stderr
    assert "cannot be read" in run.stderr
    assert summary(out)["status"].tolist() == ["labelled", "failed", "labelled"]
    assert len(list((tmp_path / "outputs" / "predict").glob("multirun/*/[0-2]/predict.log"))) == 3
