from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Compose
from omegaconf import DictConfig, OmegaConf

from isgseg.config import checked, plain, unique_folder
from isgseg.errors import InputError
from isgseg.overrides import RENAMED, as_text, modernize, modernize_config, renamed_key
from isgseg.schema import schema_of

NEEDED = {
    "prepare": ["source=phantom"],
    "doctor": ["data.root=x"],
    "train": ["data.root=x"],
    "tune": ["ckpt_path=x.pth", "data.root=x"],
    "evaluate": ["ckpt_path=x.pth", "data.root=x"],
    "predict": ["ckpt_path=x.pth", "volumes=x.mrc"],
    "analyse": ["volume=x.mrc", "labels=y.mrc"],
    "compare": ["summaries=x.json", "conditions=y.csv"],
}
OPEN = "logger."  # loggers check their arguments themselves


def leaves(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, content


@cache
def composed(command: str) -> dict[str, Any]:
    """A command's config as the command line makes it, resolved; it must not be changed."""
    from hydra import compose, initialize_config_dir

    from isgseg.config import CONFIG_DIR

    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose(command, ["paths.output_dir=out", *NEEDED[command]])
    return plain(cfg)


EVERY_KEY = [
    (command, key, value)
    for command in NEEDED
    for key, value in leaves(composed(command))
    if not key.startswith(OPEN)
]


def changed(command: str, key: str, value: Any) -> DictConfig:
    content = deepcopy(composed(command))
    *folders, last = key.split(".")
    entry = content
    for folder in folders:
        entry = entry[folder]
    entry[last] = value
    return OmegaConf.create(content)


def test_every_key_of_conf_has_a_comment() -> None:
    """In one file of its group at least: others repeat it with another value."""
    setting = re.compile(r"\s*(?P<key>(?!_)\w+): (?!&)")  # with a value, none of Hydra's own
    lines = [
        (path.parent.name, line)
        for path in sorted((ROOT / "conf").rglob("*.yaml"))
        if path.parent.name != "hydra"
        for line in path.read_text().splitlines()
    ]
    keys = [
        (group, found["key"], "#" in line)
        for group, line in lines
        if (found := setting.match(line))
    ]
    said = {(group, key) for group, key, commented in keys if commented}
    assert {(group, key) for group, key, _ in keys} == said


def refused(command: str, key: str, value: Any) -> str:
    with pytest.raises(InputError) as caught:
        checked(command, changed(command, key, value))
    return str(caught.value)


@pytest.mark.parametrize("command", NEEDED)
def test_what_conf_says_is_accepted(config: Compose, command: str) -> None:
    checked(command, config(command, *NEEDED[command]))


def choices() -> list[tuple[str, list[str]]]:
    groups = {
        "train": ("experiment", "model", "segmentation@callbacks.volume_score.segmentation"),
        "predict": ("segmentation",),
        "doctor": ("model",),
    }
    found = []
    for command, names in groups.items():
        for group in names:
            for path in sorted((ROOT / "conf" / group.partition("@")[0]).glob("*.yaml")):
                more = ["model.weights=w.pth"] * (path.stem == "finetune")
                found.append((command, [f"{group}={path.stem}", *more]))
    return [*found, ("train", ["logger=csv"]), ("train", ["logger=[]"]), ("prepare", [])]


@pytest.mark.parametrize(("command", "overrides"), choices(), ids=str)
def test_every_choice_of_a_group_is_accepted(
    config: Compose, command: str, overrides: list[str]
) -> None:
    needed = NEEDED[command] if command != "prepare" else ["volumes=a", "labels=b", "val=[a]"]
    checked(command, config(command, *needed, *overrides))


@pytest.mark.parametrize(("command", "key", "value"), EVERY_KEY)
def test_every_key_refuses_what_it_may_not_be(command: str, key: str, value: Any) -> None:
    assert key in refused(command, key, {"no": "such thing"})


NUMBERS = [
    case
    for case in EVERY_KEY
    if isinstance(case[2], (int, float)) and not isinstance(case[2], bool)
]


@pytest.mark.parametrize("wrong", ["abc", float("nan"), float("inf"), -1e30, True])
@pytest.mark.parametrize(("command", "key", "value"), NUMBERS)
def test_every_number_refuses_text_nan_infinity_and_what_is_far_out_of_range(
    command: str, key: str, value: float, wrong: Any
) -> None:
    if wrong is True and key == "trainer.fast_dev_run":
        pytest.skip("it may be true")
    assert key in refused(command, key, wrong)


@pytest.mark.parametrize("wrong", ["maybe", 3.5, "true"])
@pytest.mark.parametrize(
    ("command", "key", "value"), [case for case in EVERY_KEY if isinstance(case[2], bool)]
)
def test_every_switch_is_true_or_false(command: str, key: str, value: bool, wrong: Any) -> None:
    assert f"{key}={wrong}: must be true or false" in refused(command, key, wrong)


NAN = float("nan")


@pytest.mark.parametrize(
    ("command", "key", "value", "right"),
    [
        *[("predict", "threshold", value, "0 to 1") for value in (2, -1, NAN, 50)],
        ("evaluate", "threshold", 2, "0 to 1"),
        ("predict", "segmentation.mask_threshold", 2, "0 to 1"),
        ("predict", "segmentation.max_overlap", 7, "0 to 1"),
        ("predict", "segmentation.min_pixels", -5, "at least 1"),
        ("predict", "segmentation.min_slices", NAN, "a whole number at least 1"),
        ("predict", "segmentation.axes", "zz", "axes must be"),
        ("predict", "segmentation.separate", "maybe", "true or false"),
        ("predict", "fast", "abc", "true or false"),
        ("predict", "tta", 3, "1, 2, 4 or 8 or null"),
        ("predict", "device", "foo", "cuda"),
        ("predict", "format", "png", "tif, mrc, zarr or zarr-0.4"),
        ("predict", "normalization", {"method": "percentile", "low": 9, "high": 3}, "low"),
        ("predict", "normalization", {"method": "average"}, "mode, window"),
        ("predict", "normalization", {"method": "mode", "pwer": 2}, "did you mean power"),
        ("predict", "voxel_size", [30, NAN, 30], "finite|above 0"),
        ("predict", "voxel_size", [30, 30], "3"),
        ("predict", "volumes", "a\0b", "null byte"),
        ("train", "model.lr", NAN, "a finite number above 0"),
        ("train", "model.lr", 1e30, "at most 10"),
        ("train", "model.weight_decay", 1e9, "0 to 1"),
        ("train", "model.momentum", 5, "below 1"),
        ("train", "model.warmup_steps", -1, "at least 0"),
        ("train", "model.lr_step_epochs", 0, "at least 1"),
        ("train", "model.lr_gamma", "abc", "a number"),
        ("train", "model.lr_gamma", 1e9, "at most 1"),
        ("train", "trainer.gradient_clip_val", -1, "at least 0"),
        ("train", "trainer.precision", "bf16-true", "auto, 32-true, 16-mixed or bf16-mixed"),
        ("train", "trainer.max_time", "half an hour", "days:hours:minutes:seconds"),
        *[
            ("train", f"model.network.{key}", 0, "from 1 to")
            for key in ("rois", "proposals", "box_width")
        ],
        ("train", "model.network.anchor_sizes", [[-2], [4], [8]], "above 0"),
        ("train", "model.network.scael", 2, "did you mean scale"),
        ("train", "data.augment.scale", [1.1, 0.9], "smaller number first"),
        ("train", "data.augment.scale", [0.9, 1e9], "0.1 to 10"),
        ("train", "data.augment.noise", 50, "0 to 1"),
        ("train", "data.num_workers", 10**6, "0 to 256"),
        ("train", "callbacks.images.threshold", 2, "0 to 1"),
        ("train", "callbacks.volume_score.segmentation.max_gap", -1, "at least 0"),
        ("train", "optimised_metric", "val/f1", "did you mean optimized_metric"),
        ("evaluate", "diameters", [NAN], "finite|above 0"),
        ("evaluate", "diameters", [200, 100], "that rise"),
        ("evaluate", "data.diameters.nm", [200, 100], "that rise"),
        ("prepare", "normalization.power", NAN, "finite"),
        ("prepare", "patches.axes", ["z", "z"], "once"),
        ("prepare", "patches.z_context", -3, "0"),
        ("prepare", "source.phantom.train_seeds", [1, 1], "once"),
        ("prepare", "source.phantom.touching", [0.5, 0.2], "low <= high"),
        ("prepare", "source.phantom.granule_diameter", [120, "x"], "a number"),
        ("prepare", "source.phantom.bead_probability", 2, "from 0 to 1"),
        ("analyse", "voxel_size", -30, "above 0"),
        ("analyse", "slice", -1, "at least 0"),
    ],
)
def test_a_number_out_of_range_is_refused_with_key_and_range(
    command: str, key: str, value: Any, right: str
) -> None:
    said = refused(command, key, value)
    assert key in said
    assert re.search(right, said), said


def test_all_faults_are_named_at_once() -> None:
    cfg = changed("predict", "segmentation.max_gap", -1)
    cfg.threshold, cfg.tta = 2, 3
    with pytest.raises(InputError) as caught:
        checked("predict", cfg)
    said = str(caught.value)
    for key in ("threshold=2", "tta=3", "segmentation.max_gap=-1"):
        assert key in said


def test_other_peoples_classes_check_their_arguments_themselves() -> None:
    cfg = changed("train", "data", {"_target_": "their.Data", "folder": 3})
    cfg.callbacks.mine = {"_target_": "their.Callback", "beta": [1, 2]}
    checked("train", cfg)
    assert "callbacks.mine" in refused("train", "callbacks.mine", {"beta": 2})


def test_the_schemas_import_no_torch() -> None:
    script = (
        "import sys\nfrom isgseg.schema import schema_of\n"
        f"for name in {list(NEEDED)}:\n    schema_of(name)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert set(schema_of("analyse").model_fields) > {"volume", "labels"}


@pytest.mark.parametrize(
    ("command", "typed", "now"),
    [
        ("predict", "labelling=consensus", "segmentation=consensus"),
        ("predict", "labelling.gap=2", "segmentation.max_gap=2"),
        ("predict", "segmentation.waist=0.5", "segmentation.constriction=0.5"),
        ("predict", "labelling.support=0.5", "segmentation.hysteresis_ratio=0.5"),
        ("predict", "labelling.min_diameter=90", "segmentation.min_diameter_nm=90"),
        ("predict", "labelling.max_length=900", "segmentation.max_length_nm=900"),
        ("evaluate", "views=2", "tta=2"),
        ("train", "model.views=2", "model.tta=2"),
        ("train", "data.augment.drop_context=0", "data.augment.drop_z_context=0"),
        ("train", "callbacks.pictures.count=3", "callbacks.images.count=3"),
        ("train", "~callbacks.pictures", "~callbacks.images"),
        ("train", "experiment=documented", "experiment=baseline"),
        (
            "train",
            "labelling@callbacks.volume_score.labelling=consensus",
            "segmentation@callbacks.volume_score.segmentation=consensus",
        ),
        (
            "train",
            "callbacks.volume_score.labelling.gap=2",
            "callbacks.volume_score.segmentation.max_gap=2",
        ),
        ("prepare", "patches.context=2", "patches.z_context=2"),
        ("prepare", "data=phantom", "source=phantom"),
        ("prepare", "data.phantom.train_seeds=[3]", "source.phantom.train_seeds=[3]"),
        ("prepare", "data.phantom.touching=[0,1]", "source.phantom.touching=[0,1]"),
    ],
)
def test_names_of_the_last_release_still_work_with_a_warning(
    config: Compose, command: str, typed: str, now: str
) -> None:
    (changed,), (warning,) = modernize(command, [typed])
    assert changed == now
    assert typed in warning
    assert now in warning
    needed = ["source=phantom"] if "source.phantom" in now else NEEDED[command]
    checked(command, config(command, *needed, now))


@pytest.mark.parametrize(
    ("typed", "now"),
    [("logger=null", ["~logger"]), ("callbacks=null", ["~callbacks"]), ("experiment=null", [])],
)
def test_a_group_can_be_null(config: Compose, typed: str, now: list[str]) -> None:
    arguments, _ = modernize("train", [typed])
    assert arguments == now
    checked("train", config("train", *NEEDED["train"], *arguments))


def test_names_of_today_are_left_alone() -> None:
    typed = ["tta=2", "segmentation.max_gap=1", "-m", "--cfg", "experiment=baseline", "~logger"]
    assert modernize("predict", typed) == (typed, [])
    assert all(renamed_key(new) == new for _, new in RENAMED)


def test_old_names_in_peoples_own_files_work_too(config: Compose) -> None:
    cfg = config("train", *NEEDED["train"], "+model.views=4", "+callbacks.pictures.count=2")
    assert "pictures" in cfg.callbacks
    cfg = checked("train", cfg)
    assert cfg.model.tta == 4
    assert cfg.callbacks.images.count == 2
    assert "views" not in cfg.model
    content = {"model": {"tta": 1}}
    assert modernize_config(content) == []


@pytest.mark.parametrize("command", ["train", "doctor", "tune", "evaluate"])
@pytest.mark.parametrize("typed", ["data=phantom", "source=phantom"])
def test_synthetic_cells_are_asked_of_prepare(command: str, typed: str) -> None:
    with pytest.raises(InputError, match="isgseg-prepare source=phantom"):
        modernize(command, [typed])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("val=783_5", "783_5"),
        ("val=[a,783_5, 007]", ["a", "783_5", "007"]),
        ("val=1e5", "1e5"),
        ("volumes=cells (1)/a=b.mrc", "cells (1)/a=b.mrc"),
        ("volumes=it's.mrc", "it's.mrc"),
        ("volumes=[cell (1).mrc, 'b.mrc',7]", ["cell (1).mrc", "b.mrc", "7"]),
        ("volumes=cells/*.mrc", "cells/*.mrc"),
        ("volumes='a,b.mrc'", "a,b.mrc"),
        ("output_dir=2024", "2024"),
        ("data.root=2024_01", "2024_01"),
        ("ckpt_path=null", None),
        ("volumes=cost$5.mrc", "cost$5.mrc"),
    ],
)
def test_texts_stay_texts(typed: str, meant: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (changed,), _ = modernize("prepare", [typed])
    value = OverridesParser.create().parse_override(changed).value()
    plain = [str(item.text) if hasattr(item, "text") else item for item in _listed(value)]
    assert plain == _listed(meant)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [getattr(value, "text", value)]


def test_what_hydra_cannot_read_at_all_is_left_to_it() -> None:
    assert as_text("volumes=[a") in ("volumes=[a", "volumes='[a'")


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    folders = [unique_folder(str(tmp_path / "runs" / "now")) for _ in range(3)]
    assert folders == [str(tmp_path / "runs" / name) for name in ("now", "now_2", "now_3")]
    assert all(Path(folder).is_dir() for folder in folders)


FRAME = """
import sys
from isgseg.command import command
from isgseg.errors import InputError, InputFileNotFoundError

@command("doctor")
def main(cfg):
    {body}

main()
"""
Frame = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def frame(tmp_path: Path) -> Frame:
    """Runs a command whose function has that body."""

    def run(
        body: str, *arguments: str, cwd: Path = tmp_path, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        others = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
        return subprocess.run(
            [sys.executable, "-c", FRAME.format(body=body), "data.root=x", *arguments],
            cwd=cwd,
            env=others | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_two_commands_at_once_get_two_folders(frame: Frame, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        body = "from pathlib import Path; Path(cfg.output_dir, 'mine').touch(exist_ok=False)"
        runs = list(pool.map(frame, [body] * 2, ["hydra.verbose=false"] * 2))
    assert [run.returncode for run in runs] == [0, 0], runs
    assert len(list(tmp_path.rglob("mine"))) == 2


def test_the_log_has_the_name_of_the_command(frame: Frame, tmp_path: Path) -> None:
    assert frame("pass").returncode == 0
    assert [path.name for path in tmp_path.rglob("*.log")] == ["doctor.log"]


def test_what_a_user_can_mend_is_one_line_on_standard_error(frame: Frame) -> None:
    run = frame("raise InputFileNotFoundError('cell.mrc is not there')")
    assert run.returncode == 1
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.endswith("ERROR cell.mrc is not there")


def test_an_error_of_ours_keeps_its_traceback(frame: Frame) -> None:
    for error in ("ValueError", "OSError"):
        run = frame(f"raise {error}('a bug')")
        assert run.returncode == 1
        assert "Traceback" in run.stderr
        assert f"{error}: a bug" in run.stderr


def test_a_folder_without_the_right_to_it_is_said_in_one_line(frame: Frame) -> None:
    run = frame("raise PermissionError(13, 'Permission denied', 'closed/dataset.yaml')")
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert "ERROR closed/dataset.yaml: Permission denied; give a path that you may use" in line


def test_a_full_disk_and_an_interruption_are_said_in_one_line(frame: Frame) -> None:
    run = frame("raise OSError(28, 'No space left on device', 'out/x.png')")
    assert run.returncode == 1
    assert run.stderr.endswith("choose a folder on another disk\n")
    assert len(run.stderr.splitlines()) == 1
    run = frame("raise KeyboardInterrupt")
    assert run.returncode == 130
    assert run.stderr == "isgseg-doctor: interrupted\n"


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(["hydra.verbose=true"], {}), ([], {"HYDRA_FULL_ERROR": "1"})],
    ids=["debug", "full error"],
)
def test_who_asks_for_it_sees_where_an_error_was_raised(
    frame: Frame, arguments: list[str], environment: dict[str, str]
) -> None:
    run = frame("raise InputError('mend me')", *arguments, **environment)
    assert run.returncode == 1
    assert "Traceback" in run.stdout + run.stderr
    assert "mend me" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ring=abc"], "ring=abc: must be a whole number at least 1"),
        (["+rng=1"], "rng=1: unknown key; did you mean ring?"),
        (["rng=1"], "rng: unknown key; did you mean ring?"),
        (["optimizer=muon"], "optimizer: unknown key; did you mean model.optimizer?"),
        (["model=resnet99"], "resnet50"),
        (["output_dir=${nowhere}"], "${"),
        (["data.root=???"], "data.root=... must be given"),
        (["paths=null"], "a group needs one of its choices"),
        (["seed=9999999999"], "seed=9999999999: must be a whole number from 0 to 4294967295"),
    ],
)
def test_a_wrong_argument_is_said_before_any_work(
    frame: Frame, arguments: list[str], said: str
) -> None:
    run = frame("print('worked')", *arguments)
    assert run.returncode == 1
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""


def test_warnings_go_to_standard_error_and_the_rest_to_standard_output(frame: Frame) -> None:
    run = frame("import logging; logging.info('fine'); logging.warning('odd')")
    assert run.returncode == 0
    assert "fine" in run.stdout
    assert "odd" not in run.stdout
    assert run.stderr.endswith("WARNING odd\n")


@pytest.mark.parametrize("argument", ["paths.root=file/x", "hydra.run.dir=file/x"])
def test_a_folder_that_cannot_be_made_is_said_in_one_line(
    frame: Frame, tmp_path: Path, argument: str
) -> None:
    (tmp_path / "file").touch()
    run = frame("print('worked')", argument)
    assert run.returncode == 1
    assert "the folder of this run cannot be made" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""


def test_importing_isgseg_sets_no_variable() -> None:
    script = (
        "import os; before = dict(os.environ); import isgseg; assert dict(os.environ) == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
