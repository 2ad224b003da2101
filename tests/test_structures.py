"""Masks of structures: files, class maps, holes, several cells, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from isgseg.analysis.cells import choose, counts, filled, number_cells
from isgseg.analysis.class_maps import PHANTOM, map_masks
from isgseg.analysis.structures import Structures, of_one_cell, read_structures
from isgseg.errors import InputError
from isgseg.io.volumes import write_volume
from isgseg.phantom import ORGANELLES, make_phantom

SHAPE = (12, 20, 30)
Bools = npt.NDArray[np.bool_]


def box(*sides: tuple[int, int], shape: tuple[int, ...] = SHAPE) -> Bools:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def written(folder: Path, **masks: Any) -> dict[str, Any]:
    """Settings that name a file of each mask."""
    settings: dict[str, Any] = dict.fromkeys(("map", "names", "cell", "nucleus", "mitochondria"))
    for name, mask in masks.items():
        settings[name] = str(folder / f"{name}.tif")
        write_volume(settings[name], mask.astype(np.uint8), (30, 30, 30))
    return settings


def read(settings: dict[str, Any], cell: int | None = None) -> Structures:
    return read_structures(settings, SHAPE, (30.0, 30.0, 30.0), cell)


def test_files_are_masks_of_any_name(tmp_path: Path) -> None:
    cell, nucleus, er = (
        box((1, 11), (1, 19), (1, 29)),
        box((4, 8), (5, 9), (5, 9)),
        box((2, 4), (12, 15), (3, 9)),
    )
    found = read(written(tmp_path, cell=cell * 255, nucleus=nucleus, er=er))
    assert list(found.masks) == ["cell", "nucleus", "er"]
    assert found.number == 1
    assert found.warnings == ()
    assert found.cytoplasm is not None
    assert found.accessible is not None
    assert (found.cytoplasm == cell & ~nucleus).all()
    assert (found.accessible == cell & ~nucleus & ~er).all()


def test_nothing_is_given(tmp_path: Path) -> None:
    found = read(written(tmp_path))
    assert found == Structures({}, None, None, ())
    assert found.cytoplasm is None
    assert found.accessible is None


def test_what_does_not_belong_to_the_volume_is_refused(tmp_path: Path) -> None:
    settings = written(tmp_path, nucleus=np.ones((12, 20, 31), bool))
    with pytest.raises(InputError, match=r"structures\.nucleus=.*\(12, 20, 31\).*\(12, 20, 30\)"):
        read(settings)
    settings = {**written(tmp_path), "er": str(tmp_path / "none.tif")}
    with pytest.raises(InputError, match=r"structures\.er=.*none\.tif: no such file"):
        read(settings)
    write_volume(tmp_path / "t.mrc", np.full(SHAPE, 0.5, np.float32), None)
    with pytest.raises(InputError, match=r"structures\.er=.*not whole numbers"):
        read({**written(tmp_path), "er": str(tmp_path / "t.mrc")})
    with pytest.raises(InputError, match=r"structures\.cell"):
        read({**written(tmp_path), "membrane": str(tmp_path / "t.mrc")})
    with pytest.raises(InputError, match="cell=2: no mask of cells"):
        read(written(tmp_path), cell=2)


def test_another_voxel_size_is_said(tmp_path: Path) -> None:
    settings = written(tmp_path, cell=box((1, 11), (1, 19), (1, 29)))
    found = read_structures(settings, SHAPE, (40.0, 40.0, 40.0), None)
    assert len(found.warnings) == 1
    assert "30.0" in found.warnings[0]
    assert "40.0" in found.warnings[0]


def test_overlaps_and_empty_masks_are_said_and_kept(tmp_path: Path) -> None:
    cell = box((1, 11), (1, 19), (1, 29))
    nucleus, mitochondria = box((4, 8), (5, 9), (5, 9)), box((4, 8), (5, 9), (8, 20))
    found = read(
        written(tmp_path, cell=cell, nucleus=nucleus, mitochondria=mitochondria, er=cell & False)
    )
    assert any("nucleus and mitochondria overlap in 16 voxels" in text for text in found.warnings)
    assert any("er has no voxel" in text for text in found.warnings)
    assert len(found.warnings) == 2
    assert (found.masks["mitochondria"] == mitochondria).all()


def test_what_lies_outside_of_the_cell_is_said_and_left_out(tmp_path: Path) -> None:
    cell, rod = box((1, 11), (1, 19), (1, 15)), box((4, 8), (5, 9), (10, 20))
    found = read(written(tmp_path, cell=cell, mitochondria=rod))
    assert any("50% of mitochondria lies outside" in text for text in found.warnings)
    assert (found.masks["mitochondria"] == (rod & cell)).all()


def test_holes_are_filled() -> None:
    whole = box((2, 10), (2, 18), (2, 28))
    hollow = whole & ~box((4, 8), (5, 9), (5, 9))
    assert (filled(hollow) == whole).all()
    assert (filled(whole) == whole).all()
    assert not filled(np.zeros(SHAPE, bool)).any()
    open_one = whole & ~box((4, 12), (5, 9), (5, 9))  # a bay is outside
    assert (filled(open_one) == open_one).all()
    assert filled(np.ones(SHAPE, bool)).all()


def test_a_mask_of_the_cytoplasm_is_that_of_the_cell_with_its_nucleus() -> None:
    """Also where the nucleus is cut by the volume's edge, so that its hole is open."""
    whole, nucleus = box((0, 10), (2, 18), (2, 28)), box((0, 8), (5, 9), (5, 9))
    found = of_one_cell({"cell": whole & ~nucleus, "nucleus": nucleus})
    assert (found.masks["cell"] == whole).all()


def test_of_several_cells_the_one_in_the_middle_is_taken() -> None:
    left, right = box((1, 11), (1, 19), (1, 8)), box((1, 11), (1, 19), (10, 29))
    speck = box((0, 1), (0, 1), (9, 10))
    both = {"cell": left | right | speck, "mitochondria": box((3, 5), (3, 5), (2, 28))}
    found = of_one_cell(both)
    assert (found.masks["cell"] == right).all()
    assert (found.masks["mitochondria"] == (both["mitochondria"] & right)).all()
    assert any("2 cells are in view; the numbers are those of cell 1" in w for w in found.warnings)
    assert found.cells is not None
    assert set(np.unique(found.cells)) == {0, 1, 2}
    other = of_one_cell(both, cell=2)
    assert (other.masks["cell"] == left).all()
    with pytest.raises(InputError, match="cell=3: choose 1 or 2"):
        of_one_cell(both, cell=3)


def test_numbers_of_a_cell_mask_are_cells_even_where_they_touch() -> None:
    given = np.zeros(SHAPE, np.uint16)
    given[1:11, 1:19, 1:20], given[1:11, 1:19, 20:29] = 3, 7
    assert (number_cells(given) == given).all()
    assert choose(number_cells(given), None) == 3
    found = of_one_cell({"cell": given > 0}, cells=given, cell=7)
    assert (found.masks["cell"] == (given == 7)).all()
    with pytest.raises(InputError, match="numbers up to 300"):
        number_cells(np.where(given == 7, 300, given))


def test_one_number_that_is_not_1_is_a_mask() -> None:
    given = box((1, 11), (1, 19), (1, 8)) | box((1, 11), (1, 19), (10, 29))
    assert (number_cells(given.astype(np.uint8) * 255) == number_cells(given)).all()


def test_cells_that_touch_are_told_apart_by_the_membrane_between_them() -> None:
    data = np.zeros(SHAPE, np.uint16)
    data[1:11, 1:19, 1:29] = 2
    data[2:10, 2:18, 2:13], data[2:10, 2:18, 15:28] = 1, 1
    data[4:7, 5:8, 12:14] = 5  # an organelle in the membrane
    found = map_masks("m.tif", data, {1: "cytoplasm", 2: "membrane", 5: "er"})
    cells = number_cells(found.masks["cell"], found.core)
    assert set(np.unique(cells)) == {0, 1, 2}
    assert ((cells > 0) == (data > 0)).all()
    left, right = cells[2:10, 2:18, 2:12], cells[2:10, 2:18, 16:28]
    assert {*np.unique(left), *np.unique(right)} == {1, 2}
    assert len(np.unique(left)) == len(np.unique(right)) == 1


def test_class_maps_by_names(tmp_path: Path) -> None:
    data = np.zeros(SHAPE, np.uint16)
    data[1:11, 1:19, 1:29], data[4:8, 5:9, 5:9] = 1, 2
    data[2:4, 12:15, 3:9], data[5:6, 12:15, 3:9], data[0, 0, 0] = 3, 4, 9
    settings = written(tmp_path, map=data)
    settings["names"] = {1: "cytoplasm", 2: "nucleus", 3: "mitochondria", 4: "mitochondria"}
    found = read(settings)
    assert list(found.masks) == ["nucleus", "mitochondria", "cell"]
    assert (found.masks["mitochondria"] == ((data == 3) | (data == 4))).all()
    assert (found.masks["cell"] == ((data > 0) & (data < 9))).all()
    assert any("without a name, taken as outside of the cell: 9" in w for w in found.warnings)
    # A file goes before the map.
    settings["nucleus"] = written(tmp_path, nucleus=box((4, 8), (5, 9), (5, 7)))["nucleus"]
    assert read(settings).masks["nucleus"].sum() == 4 * 4 * 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (None, r"nothing says what its numbers stand for \(it holds 0, 1, 99\)"),
        ("phantom", "nothing says what its numbers stand for"),
        ({5: "nucleus"}, "holds 0, 1 or 99, but structures.names names 5"),
    ],
)
def test_a_map_whose_numbers_are_not_known_is_refused(
    tmp_path: Path, names: Any, said: str
) -> None:
    data = np.zeros(SHAPE, np.uint16)
    data[1:11, 1:19, 1:29], data[0, 0, 0] = 1, 99
    with pytest.raises(InputError, match=said):
        read({**written(tmp_path, map=data), "names": names})


def test_a_map_without_a_cell_names_none() -> None:
    data = box((4, 8), (5, 9), (5, 9)).astype(np.uint16)
    found = map_masks("m.tif", data, {1: "mitochondria", 0: "background"})
    assert list(found.masks) == ["mitochondria"]


def test_the_map_of_a_phantom_is_understood_by_its_name(tmp_path: Path) -> None:
    made = make_phantom(3, shape=(24, 120, 120), neighbours=(2, 2))
    path = tmp_path / "phantom_3_organelles.mrc"
    write_volume(path, made.organelles, made.voxel_size)
    settings = {**written(tmp_path), "map": str(path)}
    found = read_structures(settings, made.labels.shape, made.voxel_size)
    assert {"cell", "nucleus", "mitochondria"} <= found.masks.keys()
    assert found.cells is not None
    inside = found.cells > 0
    outside = [ORGANELLES[name] for name in ("outside", "bead", "capillary", "debris", "bleb")]
    assert not (inside & np.isin(made.organelles, outside)).sum() > 0.02 * inside.sum()
    assert inside[made.labels > 0].mean() > 0.98
    assert found.masks["nucleus"].any()
    assert not (found.masks["nucleus"] & ~found.masks["cell"]).any()


def test_every_class_of_a_phantom_is_thought_of() -> None:
    outside = {"outside", "bead", "capillary", "blank", "debris", "bleb"}
    assert outside | PHANTOM.keys() == ORGANELLES.keys()
    assert not outside & PHANTOM.keys()


def test_counts_of_whole_numbers() -> None:
    image = np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.uint16)
    assert (counts(image) == np.bincount(image.ravel())).all()
    assert counts(image > 4).sum() == image.size
