from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from test_granules import ball

from isgseg.analysis.meshes import write_meshes

trimesh = pytest.importorskip("trimesh")

SIZE = (40.0, 30.0, 20.0)
CENTRES = {7: (8, 10, 12), 300: (8, 10, 40)}


def two_balls() -> npt.NDArray[np.uint16]:
    labels = np.zeros((17, 22, 60), np.uint16)
    for label, centre in CENTRES.items():
        labels[ball(labels.shape, centre, 150, SIZE)] = label
    return labels


@pytest.mark.parametrize("size", [SIZE, None])
def test_a_library_reads_closed_surfaces_with_their_numbers(
    tmp_path: Path, size: tuple[float, float, float] | None
) -> None:
    path = write_meshes(tmp_path / "out" / "cell_granules.ply", two_balls(), size)
    mesh = trimesh.load_mesh(path, process=False)
    faces = mesh.metadata["_ply_raw"]["face"]["data"]["label"].ravel()
    assert sorted(set(faces.tolist())) == list(CENTRES)
    for label, (z, y, x) in CENTRES.items():
        part = mesh.submesh([np.flatnonzero(faces == label)], append=True)
        scale = np.array(size or (1, 1, 1)) / (1000 if size else 1)
        np.testing.assert_allclose(part.bounds.mean(axis=0), (np.array([z, y, x]) * scale)[::-1])
        assert part.is_watertight
        assert part.is_winding_consistent
        # Marching cubes cut corners, by some percent; inside out it would be negative.
        voxels = np.count_nonzero(two_balls() == label) * scale.prod()
        assert 0.8 * voxels < part.volume < voxels
    colours = np.unique(mesh.visual.vertex_colors[:, :3], axis=0)
    assert len(colours) == 2


def test_no_granules_is_a_file_that_opens(tmp_path: Path) -> None:
    path = write_meshes(tmp_path / "none.ply", np.zeros((3, 4, 5), np.uint16), SIZE)
    assert b"element face 0" in path.read_bytes()


def test_a_granule_at_the_edge_and_of_one_voxel_is_closed(tmp_path: Path) -> None:
    labels = np.zeros((3, 4, 5), np.uint32)
    labels[0, 0, 0] = 4_000_000_000
    mesh = trimesh.load_mesh(write_meshes(tmp_path / "one.ply", labels, SIZE))
    assert mesh.is_watertight
    assert mesh.metadata["_ply_raw"]["vertex"]["data"]["label"].max() == 4_000_000_000
