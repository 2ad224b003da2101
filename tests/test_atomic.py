from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isgseg.errors import InputError
from isgseg.io.atomic import remove_stale, replacing, scratch_beside
from isgseg.io.folders import locked, recover, replacing_parts


def listing(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as scratch:  # noqa: PT012
        scratch.write_text("half")
        raise KeyError
    assert listing(tmp_path) == {"a.txt": "old"}
    with replacing(path) as scratch:
        assert listing(tmp_path) == {"a.txt": "old", scratch.name: ""}
        scratch.write_text("new")
    assert listing(tmp_path) == {"a.txt": "new"}


@pytest.mark.parametrize("name", ["a.json", "a.png", "a.pth", "a.csv"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_full_disk_is_the_file_that_is_written(tmp_path: Path, name: str, number: int) -> None:
    with pytest.raises(InputError, match=rf"{name}: cannot be written") as caught:  # noqa: SIM117
        with replacing(tmp_path / name):
            raise OSError(number, os.strerror(number))
    assert type(caught.value) is InputError
    assert not listing(tmp_path)


def test_other_errors_of_the_block_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "a.json"):
        (tmp_path / "other.mrc").read_text()
    assert not isinstance(caught.value, InputError)
    assert "other.mrc" in str(caught.value)
    with pytest.raises(ConnectionResetError), replacing(tmp_path / "a.json"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"file.a\.json: cannot be written: .*; give a place"):  # noqa: SIM117
        with replacing(tmp_path / "file" / "a.json"):
            pass
    with (
        pytest.raises(InputError, match="folder: cannot be written"),
        replacing(tmp_path / "folder") as scratch,
    ):
        scratch.write_text("a")
    assert listing(tmp_path) == {"file": ""}
    with pytest.raises(InputError, match=r"cannot be written"), replacing(Path("x" * 300)):
        pass


def test_the_writer_sees_the_suffix_even_of_a_long_name(tmp_path: Path) -> None:
    for name in ("a.ome.tif", "b.mrc.gz", "x" * 230 + ".npy"):
        assert scratch_beside(tmp_path / name).name.endswith(name[-7:])
        with replacing(tmp_path / name) as scratch:
            scratch.write_text("1")
        assert (tmp_path / name).read_text() == "1"


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as scratch:
        scratch.write_text("1")
    (tmp_path / "b.txt").touch()
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert listing(tmp_path) == {"a.txt": "first"}


def dead_process() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    mine = scratch_beside(tmp_path / "a.txt")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-"))
    other_machine = dead.with_name(dead.name.replace(dead.name[8:16], "01234567"))
    users = [tmp_path / ".isgseg-notes.txt", tmp_path / "a.partial", tmp_path / ".12.a.txt"]
    folder = dead.with_name(dead.name + "folder")
    folder.mkdir()
    for path in (mine, dead, other_machine, *users):
        path.touch()
    remove_stale(tmp_path)
    assert set(tmp_path.iterdir()) == {mine, other_machine, *users, folder}
    dead.touch()
    with replacing(tmp_path / "b.txt") as scratch:
        scratch.write_text("")
    assert not dead.exists()


def fill(folder: Path, text: str, *, extra: bool = False) -> None:
    for name in ("one", "two", *(["three"] if extra else [])):
        (folder / name).mkdir()
        (folder / name / "data").write_text(text)
    (folder / "mark").write_text(text)


def replace(folder: Path, text: str, *, extra: bool = False) -> None:
    with replacing_parts(folder, lambda: None, mark="mark") as new:
        fill(new, text, extra=extra)


def test_parts_are_replaced_together_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    replace(folder, "old")
    assert listing(folder) == {"mark": "old", "one/data": "old", "two/data": "old"}
    (folder / "notes.txt").write_text("mine")
    replace(folder, "new", extra=True)
    assert listing(folder) == {
        **{name: "new" for name in ("mark", "one/data", "three/data", "two/data")},
        "notes.txt": "mine",
    }


def test_a_failed_block_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replacing_parts(tmp_path / "a", lambda: None, mark="mark"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    replace(tmp_path / "a", "old")
    before = listing(tmp_path)
    with pytest.raises(KeyError), replacing_parts(tmp_path / "a", lambda: None, mark="mark") as new:  # noqa: PT012
        fill(new, "new")
        raise KeyError
    assert listing(tmp_path) == before


def killed_at(number: int, function: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Runs the function in a process that dies at a rename; whether it came so far."""
    child = os.fork()
    if child == 0:
        count, rename = 0, os.rename

        def dying(source: Path, target: Path) -> None:
            nonlocal count
            count += 1
            if count == number:
                os._exit(9)
            rename(source, target)

        monkeypatch.setattr(os, "rename", dying)
        try:
            function()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("extra", [False, True])
def test_killed_at_any_rename_the_folder_is_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool, extra: bool
) -> None:
    kills = 0
    for number in range(1, 20):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        if old:
            replace(folder, "old")
        before = listing(folder)
        killed = killed_at(number, lambda f=folder: replace(f, "new", extra=extra), monkeypatch)  # type: ignore[misc]
        kills += killed
        texts = {n: t for n, t in listing(folder).items() if not n.startswith(".isgseg")}
        if "mark" in texts:  # what calls itself complete is
            assert {texts["one/data"], texts["two/data"]} == {texts["mark"]}
            assert ("three/data" in texts) == (extra and texts["mark"] == "new")
        with locked(folder):
            recover(folder)
        after = listing(folder)
        assert after["notes.txt"] == "mine"
        if killed:
            assert after == before
        replace(folder, "newest")
        assert listing(folder)["one/data"] == "newest"
        if not killed:
            break
    assert kills >= 4


def test_killed_while_putting_back_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(tmp_path, "old")
    before = listing(tmp_path)
    assert killed_at(6, lambda: replace(tmp_path, "new"), monkeypatch)

    def put_back() -> None:
        with locked(tmp_path):
            recover(tmp_path)

    for number in range(1, 9):
        if not killed_at(number, put_back, monkeypatch):
            break
    assert number > 2
    assert listing(tmp_path) == before


def test_one_process_at_a_time_fills_a_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from isgseg.io.folders import locked\n"
        f"with locked(Path({str(tmp_path)!r})): print('locked')"
    )
    with locked(tmp_path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another process is writing into it; wait for it" in other.stderr
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.stdout == "locked\n"
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="file is a file; give a folder"),
        locked(tmp_path / "file"),
    ):
        pass
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file" / "a"):
        pass
