"""The outlines of all granules as one mesh, for ParaView, Blender, MeshLab and others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from skimage.measure import marching_cubes

from isgseg.analysis.figures import label_colours
from isgseg.analysis.voxels import Bools, GranuleVoxels, Ints, granule_voxels
from isgseg.io.atomic import replacing
from isgseg.io.formats import Array

VERTEX = np.dtype(
    [(axis, "<f4") for axis in "xyz"]
    + [(colour, "u1") for colour in ("red", "green", "blue")]
    + [("label", "<u4")]
)
FACE = np.dtype([("corners", "u1"), ("vertices", "<i4", (3,)), ("label", "<u4")])
HEADER = """ply
format binary_little_endian 1.0
comment outlines of granules by isgseg; x, y and z in {unit}; label is that of the table
element vertex {vertices}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
property uint label
element face {faces}
property list uchar int vertex_indices
property uint label
end_header
"""


def write_meshes(path: Path, labels: Array, voxel_size: Sequence[float] | None = None) -> Path:
    """Writes a binary PLY file with the outline of every granule; its folder is created.

    Each granule is a closed surface of its own, by marching cubes of its mask (Lewiner et al.
    2003). Vertices have x, y and z in um, the colour of the granule, and its `label`, the number
    that it has in the table; faces have the `label` too. The first voxel's centre is the origin.

    The meshes are for the eye. Marching cubes cut the corners of voxels, so that neither the volume
    inside a mesh nor its area is that of the table; the table's are nearer to the truth.

    Args:
        path: Of the file, `.ply`.
        labels: (z, y, x), unsigned integers, 0 is background.
        voxel_size: nm, (z, y, x); None leaves x, y and z in voxels.

    Raises:
        InputError: The file cannot be written.
    """
    side = np.ones(3) if voxel_size is None else np.array(voxel_size, dtype=np.float64) / 1000
    voxels = granule_voxels(labels)
    colours = np.round(255 * label_colours(voxels.labels[None])[0, :, :3]).astype(np.uint8)
    vertices, faces = [np.empty(0, VERTEX)], [np.empty(0, FACE)]
    count = 0
    for name, colour, (corner, mask) in zip(voxels.labels, colours, masks(voxels), strict=True):
        points, triangles, _, _ = marching_cubes(mask, 0.5)
        vertex = np.empty(len(points), VERTEX)
        vertex["z"], vertex["y"], vertex["x"] = ((points + corner) * side).T
        vertex["red"], vertex["green"], vertex["blue"] = colour
        vertex["label"] = name
        face = np.empty(len(triangles), FACE)
        face["corners"], face["label"] = 3, name
        face["vertices"] = triangles + count  # seen from outside they turn left, in x, y, z
        vertices.append(vertex)
        faces.append(face)
        count += len(vertex)
    header = HEADER.format(
        unit="voxels" if voxel_size is None else "um",
        vertices=count,
        faces=sum(map(len, faces)),
    )
    with replacing(path) as scratch, scratch.open("wb") as file:
        file.write(header.encode("ascii"))
        for part in (*vertices, *faces):
            file.write(part.tobytes())
    return path


def masks(voxels: GranuleVoxels) -> Iterator[tuple[Ints, Bools]]:
    """Each granule in a box of its own, with one voxel of background around it.

    Yields:
        (3,) place of the box's first voxel in the volume, z, y, x; and (z, y, x) the mask.
    """
    for own in np.split(voxels.places, voxels.starts[1:]) if len(voxels.starts) else ():
        corner = own.min(axis=0).astype(np.int64) - 1
        mask = np.zeros(own.max(axis=0) - corner + 2, bool)
        mask[tuple((own - corner).T)] = True
        yield corner, mask
