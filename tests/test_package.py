from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT
from empty_environment import empty_environment

from isgseg.config import CONFIG_DIR

IN_THE_WHEEL = [
    *("conf/predict.yaml", "napari.yaml", "py.typed"),
    *("analysis/report.html", "analysis/report_scene.js"),
    *("weights/isg_mask_rcnn_final.pth", "weights/isg_unet_final.pth"),
]
COMMANDS = ["prepare", "doctor", "train", "tune", "evaluate", "predict", "analyse", "compare"]


def test_a_checkout_uses_the_conf_that_people_edit() -> None:
    assert Path(CONFIG_DIR) == ROOT / "conf"


@pytest.mark.parametrize(("asked", "is_set"), [(None, "1"), ("0", "0")])
def test_a_command_asks_torch_for_large_pages_unless_the_user_says_otherwise(
    asked: str | None, is_set: str, tmp_path: Path
) -> None:
    variable = "THP_MEM_ALLOC_ENABLE"
    others = {key: value for key, value in os.environ.items() if key != variable}
    script = (
        "import os, sys; sys.argv = ['x', 'data.root=x']\n"
        "from isgseg.command import command\n"
        f"command('doctor')(lambda cfg: print(os.environ['{variable}']))()"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=others if asked is None else others | {variable: asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == is_set


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_because_torch_is_imported_late(command: str) -> None:
    script = (
        "import sys; sys.argv = ['x', '--help']\n"
        f"from isgseg.{command} import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'lightning', 'pandas', 'matplotlib', 'skimage'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"isgseg-{command}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_must_be_given_is_asked_for_in_one_line(command: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", f"isgseg.{command}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    said = run.stdout + run.stderr
    assert "Traceback" not in said
    assert "must be given" in said or "give volumes=, labels= and val=" in said


def label_and_analyse(python: str, folder: Path) -> None:
    """What a newcomer does with the network of the package; the files that it leaves."""
    volume, labels = "dataset/volumes/phantom_1000.mrc", "labels/phantom_1000_labels.tif"
    for arguments in (
        ["isgseg.predict", volume, "output_dir=labels", "device=cpu", "progress=false"],
        ["isgseg.analyse", f"volume={volume}", f"labels={labels}", "output_dir=tables"],
    ):
        run = subprocess.run(
            [python, "-m", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
    assert (folder / labels).is_file()
    assert (folder / "tables" / "phantom_1000_report.html").is_file()


@pytest.mark.slow
def test_the_wheel_carries_conf_and_runs_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)  # it would come before the wheel
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    python = empty_environment(tmp_path / "env", wheel)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    held = zipfile.ZipFile(wheel).namelist()
    for name in IN_THE_WHEEL:
        assert f"isgseg/{name}" in held
    empty = tmp_path / "empty"
    empty.mkdir()
    script = str(tmp_path / "env" / "bin" / "isgseg-prepare")
    overrides = [
        "source=phantom",
        "source.phantom.shape=[8,64,64]",
        "source.phantom.train_seeds=[0]",
    ]
    overrides += ["source.phantom.granule_density=[20,21]"]
    overrides += ["output_dir=dataset"]
    run = subprocess.run(
        [script, *overrides], cwd=empty, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (empty / "dataset" / "dataset.yaml").is_file()
    label_and_analyse(python, empty)
    for command in COMMANDS:
        arguments = [python, "-m", f"isgseg.{command}", "--cfg", "job"]
        run = subprocess.run(arguments, cwd=empty, capture_output=True, text=True, check=True)
        assert f"task_name: {command}" in run.stdout
    where = [python, "-c", "import isgseg.config as c; print(c.CONFIG_DIR)"]
    out = subprocess.run(where, cwd=empty, capture_output=True, text=True, check=True).stdout
    assert str(site / "isgseg" / "conf") == out.strip()


def test_the_lowest_versions_are_those_of_the_package() -> None:
    """`constraints-lowest.txt` pins what `pyproject.toml` allows at least."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ("parquet", "zarr", "hdf5", "report", "cluster")
    asked = project["dependencies"] + [
        one for extra in extras for one in project["optional-dependencies"][extra]
    ]
    lowest = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(asked), re.MULTILINE))
    text = (ROOT / "constraints-lowest.txt").read_text()
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, re.MULTILINE))
    assert len(lowest) == len(asked)
    for name, version in lowest.items():
        assert f"{pinned[name]}.".startswith(f"{version}."), name
