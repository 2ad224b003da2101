from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from isgseg.errors import InputError
from isgseg.io.pairing import find_images, find_pairs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> list[str]:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return list(names)


def names(pairs: list[tuple[Path, Path]]) -> list[tuple[str, str]]:
    return [(str(image), str(label)) for image, label in pairs]


def test_globs_pair_by_name_where_sorting_does_not(folder: Path) -> None:
    touch("cell1.mrc", "cell10.mrc", "cell2.mrc")
    touch("cell1_labels.mrc", "cell10_labels.mrc", "cell2_labels.mrc")
    expected = [(f"cell{i}.mrc", f"cell{i}_labels.mrc") for i in (1, 2, 10)]
    assert names(find_pairs("cell*.mrc", "cell*_labels.mrc")) == expected
    assert names(find_pairs("*.mrc", ["*_labels.mrc"])) == expected


@pytest.mark.parametrize(
    ("volume", "label"),
    [
        ("cell1_image.mrc", "cell1_labels.mrc"),
        ("cell1.mrc", "cell1_seg.tif"),
        ("cell1_raw.rec", "cell1-mask.npy"),
        ("Cell_01.mrc", "cell1_GT.tif"),
        ("cell1.mrc.gz", "cell1_granules.mrc"),
        ("cell1.ome.tif", "cell1_labels_manual.ome.tif"),
        ("image_1.mrc", "label_1.mrc"),
        ("cell1.mrc", "truth/cell1.mrc"),
        ("cell1.mrc", "cell1_ground_truth.mrc"),
        ("cell 1 (a).mrc", "cell_1_a_labels.mrc"),
        ("783_5.mrc", "783_5_labels.mrc"),
    ],
)
def test_names_that_belong_together(folder: Path, volume: str, label: str) -> None:
    touch(volume, label, "other.mrc", "other_labels.mrc")
    pairs = find_pairs(["other.mrc", volume], [label, "other_labels.mrc"])
    assert names(pairs) == [("other.mrc", "other_labels.mrc"), (volume, label)]


def test_folders_tell_equal_names_apart(folder: Path) -> None:
    for cell in ("a", "b"):
        touch(f"{cell}/image.mrc", f"{cell}/labels.mrc")
        touch(f"x/images/{cell}/1.mrc", f"x/labels/{cell}/1.mrc")
    assert names(find_pairs("?/image.mrc", "?/labels.mrc")) == [
        ("a/image.mrc", "a/labels.mrc"),
        ("b/image.mrc", "b/labels.mrc"),
    ]
    assert names(find_pairs("x/images/*/1.mrc", "x/labels/*/1.mrc")) == [
        ("x/images/a/1.mrc", "x/labels/a/1.mrc"),
        ("x/images/b/1.mrc", "x/labels/b/1.mrc"),
    ]


def test_a_list_keeps_its_order(folder: Path) -> None:
    volumes = touch("cell9.mrc", "cell1.mrc", "cell4.mrc")
    labels = touch("cell4_labels.mrc", "cell9_labels.mrc", "cell1_labels.mrc")
    assert names(find_pairs(volumes, labels)) == [
        (name, name.replace(".", "_labels.")) for name in volumes
    ]


def test_lists_whose_names_say_nothing_pair_by_order(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volumes, labels = touch("b.mrc", "a.mrc"), touch("first.tif", "second.tif")
    assert names(find_pairs(volumes, labels)) == [("b.mrc", "first.tif"), ("a.mrc", "second.tif")]
    assert "paired by order" in caplog.text
    with pytest.raises(InputError, match=r"b\.mrc.*first\.tif"):
        find_pairs("?.mrc", labels)
    with pytest.raises(InputError, match=r"b\.mrc.*first\.tif"):
        find_pairs(volumes, labels, ordered=False)
    with pytest.raises(InputError, match="2 volumes and 1 label files cannot be paired"):
        find_pairs(volumes, labels[:1])
    assert names(find_pairs("a.mrc", "first.tif")) == [("a.mrc", "first.tif")]


@pytest.mark.parametrize(
    ("volumes", "labels"),
    [
        (["cell1.mrc", "x.mrc"], ["y.mrc", "cell1_labels.mrc"]),
        (["cell1.mrc", "cell2.mrc"], ["gt2_b.mrc", "gt1_b.mrc"]),
    ],
)
def test_an_order_that_contradicts_the_names_is_refused(
    folder: Path, volumes: list[str], labels: list[str]
) -> None:
    touch(*volumes, *labels)
    with pytest.raises(InputError, match="names say otherwise"):
        find_pairs(volumes, labels)


@pytest.mark.parametrize(
    ("volumes", "labels", "named"),
    [
        (["cell1.mrc", "cell2.mrc"], ["cell1_labels.mrc"], r"without label file: .*cell2\.mrc"),
        (["cell1.mrc"], ["cell1_labels.mrc", "cell2_labels.mrc"], r"without volume: .*cell2_lab"),
        (["c1_raw.mrc", "c1_lac.mrc"], ["c1_labels.mrc"], "more than one may belong"),
        (["c1.mrc"], ["c1_labels.mrc", "c1_seg.mrc"], r"c1_labels\.mrc.*c1_seg\.mrc"),
        (
            ["c1.mrc", "c01.mrc"],
            ["c001_seg.mrc", "c2_seg.mrc"],
            r"c01\.mrc.*c1\.mrc.*c001_seg\.mrc",
        ),
        (["c1.mrc", "c1_filtered.mrc"], ["c1_labels.mrc"], r"c1_filtered\.mrc"),
        (["c1.mrc", "c01.mrc"], ["c01_seg.mrc", "c001_seg.mrc"], r"c1\.mrc.*c001_seg\.mrc"),
    ],
)
def test_what_is_ambiguous_or_left_over_is_named(
    folder: Path, volumes: list[str], labels: list[str], named: str
) -> None:
    touch(*(f"v/{name}" for name in volumes), *(f"l/{name}" for name in labels))
    with pytest.raises(InputError, match=named) as caught:
        find_pairs("v/*.mrc", "l/*.mrc")
    assert "Name files alike" in str(caught.value)


def test_spelling_decides_where_numbers_agree(folder: Path) -> None:
    touch("c1.mrc", "c01.mrc", "c1_labels.mrc", "c01_labels.mrc")
    pairs = dict(names(find_pairs("c*.mrc", "c*_labels.mrc")))
    assert pairs == {"c1.mrc": "c1_labels.mrc", "c01.mrc": "c01_labels.mrc"}


def test_files_that_both_globs_match_are_taken_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch("a.mrc", "b.mrc", "a_labels.mrc", "b_labels.mrc")
    expected = [("a.mrc", "a_labels.mrc"), ("b.mrc", "b_labels.mrc")]
    with caplog.at_level(logging.INFO):
        assert names(find_pairs("*.mrc", "*_labels.mrc")) == expected
    assert "volumes= and labels= both match" in caplog.text
    assert names(find_pairs("?.mrc", "*.mrc")) == expected
    assert names(find_pairs("*.mrc", "*.mrc")) == expected
    with pytest.raises(InputError, match="name the same files"):
        find_pairs("a.mrc", "./a.mrc")
    with pytest.raises(InputError, match="name the same files"):
        find_pairs(["a.mrc"], ["b_labels.mrc", "a.mrc"])


def test_every_pair_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch("a.mrc", "b.mrc", "a_pred.tif", "b_pred.tif")
    with caplog.at_level(logging.INFO):
        find_pairs("*.mrc", "*.tif", "prediction")
    assert "Pair 1 of 2: a.mrc with a_pred.tif" in caplog.text
    assert "Pair 2 of 2: b.mrc with b_pred.tif" in caplog.text


def test_messages_name_the_key_of_the_role(folder: Path) -> None:
    touch("a.mrc", "b.mrc", "a_pred.tif")
    with pytest.raises(InputError, match=r"1 prediction files.*predicted=\["):
        find_pairs(["a.mrc", "b.mrc"], "a_pred.tif", "prediction")


def test_any_set_of_cells_pairs_right(folder: Path) -> None:
    """Whatever the numbers and the order in which a file system lists them."""
    chosen = random.Random(0).sample(range(3000), 40)
    touch(*(f"v/Cell_{i:04d}.mrc" for i in chosen), *(f"l/cell{i}-labels.tif" for i in chosen))
    pairs = names(find_pairs("v/*.mrc", "l/*.tif"))
    assert pairs == [(f"v/Cell_{i:04d}.mrc", f"l/cell{i}-labels.tif") for i in sorted(chosen)]


def test_a_glob_over_volumes_leaves_labels_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = touch("a.mrc", "a_labels.mrc", "a_organelles.mrc", "b.mrc", "c_labels.mrc")
    assert [str(path) for path in find_images("*.mrc")] == ["a.mrc", "b.mrc", "c_labels.mrc"]
    assert "a_labels.mrc, a_organelles.mrc" in caplog.text
    assert [str(path) for path in find_images(files)] == files
    touch("b_labels.mrc")
    Path("c_labels.mrc").unlink()
    assert names(find_pairs("*.mrc", "?_labels.mrc")) == [
        ("a.mrc", "a_labels.mrc"),
        ("b.mrc", "b_labels.mrc"),
    ]
