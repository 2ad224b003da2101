"""`--help` says what a command does, with examples that work and every key with its comment."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Compose

from isgseg.config import checked
from isgseg.help import help_text, sections
from isgseg.overrides import modernize, with_key

COMMANDS = ("prepare", "doctor", "train", "tune", "evaluate", "predict", "analyse", "compare")
FILES = {"predict": "volumes", "compare": "summaries"}  # keys of files without one


@pytest.mark.parametrize("command", COMMANDS)
def test_a_paragraph_and_three_examples_come_first(command: str) -> None:
    own = sections(command)[0]
    assert len(own.text) > 80
    assert own.text.endswith(".")
    assert len(own.examples) >= 3
    assert all(example.startswith(f"isgseg-{command} ") for example in own.examples)
    said = help_text(command, width=100)
    assert said.index(own.text.split(".")[0][:60]) < said.index(own.examples[0])
    assert said.index(own.examples[-1]) < said.index("Keys")
    wrapped = re.sub(r"^  isgseg-.*$|^  \S+$", "", said, flags=re.M)  # examples and keys are not
    assert max(map(len, wrapped.splitlines())) <= 100


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_is_accepted(config: Compose, command: str) -> None:
    for example in sections(command)[0].examples:
        typed = [given for given in shlex.split(example)[1:] if given != "-m"]
        if "-m" in shlex.split(example):  # one of the values of a sweep
            typed = [re.sub(r"(=[^,\[]+),.*", r"\1", given) for given in typed]
        typed = [f"{given}x.mrc" if given.endswith("=...") else given for given in typed]
        if typed[0].startswith("manifest="):
            typed.append("volumes=x.mrc")  # as the manifest would say
        arguments, old = modernize(command, with_key(FILES.get(command, ""), typed))
        assert not old
        checked(command, config(command, *arguments))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_is_there_with_its_comment(config: Compose, command: str) -> None:
    """Of what Hydra composes, other than Hydra's own and where runs lie."""
    keys = {key.name: key for section in sections(command) for key in section.keys}
    nested = "callbacks.volume_score.segmentation."  # named as a group

    def leaves(content: object, prefix: str = "") -> list[str]:
        if not isinstance(content, dict) or not content:
            return [prefix[:-1]]
        inner = [(name, value) for name, value in content.items() if not name.startswith("_")]
        return [leaf for name, value in inner for leaf in leaves(value, f"{prefix}{name}.")]

    from omegaconf import OmegaConf

    given = {"prepare": ["source=volumes"]}.get(command, [])
    content = OmegaConf.to_container(config(command, *given))
    expected = {
        leaf
        for leaf in leaves(content)
        if not leaf.startswith(("paths.", "hydra.", nested)) and leaf not in ("task_name", "")
    }
    expected.discard("source")
    like_best = {
        leaf
        for leaf in expected - keys.keys()  # files of checkpoints repeat the keys of the first
        if re.sub(r"^callbacks\.(final|every_5_epochs)\.", "callbacks.best.", leaf) in keys
    }
    assert expected - like_best <= keys.keys()
    assert all(keys[name].comment for name in expected - like_best)
    if command == "train":
        assert f"behind {nested[:-1]}." in help_text(command, width=200)


def test_a_chosen_group_is_shown_with_its_values() -> None:
    said = help_text("train", ["model=resnet10"], width=200)
    assert "model=resnet10 (or resnet18, resnet50, torchvision, unet)" in said
    assert re.search(r"model.network.backbone=resnet10\s+resnet10 \| resnet18", said)
    assert re.search(r"model.network.fpn_channels=64\s+width", said)
    assert "model=resnet50 (or" in help_text("train", ["model=no_such"], width=200)
    assert "phantom.train_seeds=[" in help_text("prepare", ["source=phantom"], width=200)


def test_the_console_script_prints_it_and_starts_no_run(tmp_path: Path) -> None:
    typed = [sys.executable, "-m", "isgseg.predict", "--help"]
    done = subprocess.run(typed, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.startswith("isgseg-predict\n")
    assert "  isgseg-predict cell.mrc output_dir=labels\n" in done.stdout
    assert not done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["lr=0.005.mrc", "cell (1).mrc", "Zelle_ß, 2.mrc", "783_5", "a'b.mrc", "-x [1].mrc"]
)
def test_a_file_that_is_there_needs_no_key_whatever_its_name(
    config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    Path("other.mrc").touch()
    for typed, meant in (([name], name), ([name, "other.mrc"], [name, "other.mrc"])):
        arguments, _ = modernize("predict", with_key("volumes", [*typed, "format=mrc"]))
        cfg = config("predict", *arguments)
        assert cfg.volumes == meant
        assert cfg.format == "mrc"
