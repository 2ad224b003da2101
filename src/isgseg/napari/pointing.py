"""Where in the labels the pointer is, in 2D and in 3D, and how a viewer shows a place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Place = tuple[float, float, float]


def label_under(layer: Any, event: Any) -> int:
    """The label under the pointer; 0 is none."""
    place = place_under(layer, event)
    if place is None:
        return 0
    voxel = tuple(int(i) for i in np.round(place))
    inside = all(0 <= i < side for i, side in zip(voxel, layer.data.shape, strict=True))
    return int(layer.data[voxel]) if inside else 0


def place_under(layer: Any, event: Any) -> Place | None:
    """The voxel under the pointer, (z, y, x); in 3D the first labelled one that is looked at.

    Args:
        layer: of labels.
        event: of napari's mouse, or its cursor: `position`, `view_direction`, `dims_displayed`.
    """
    shown = list(event.dims_displayed)
    if len(shown) < 3 or event.view_direction is None:
        z, y, x = (float(i) for i in layer.world_to_data(event.position))
        return z, y, x
    near, far = layer.get_ray_intersections(event.position, event.view_direction, shown)
    if near is None or far is None:
        return None
    steps = int(np.ceil(2 * np.linalg.norm(np.asarray(far) - near))) + 1
    ray = np.linspace(near, far, steps)
    voxels = np.clip(np.round(ray).astype(int), 0, np.array(layer.data.shape) - 1)
    hits = np.flatnonzero(layer.data[tuple(voxels.T)])
    if not len(hits):
        return None
    z, y, x = (float(i) for i in voxels[hits[0]])
    return z, y, x


class Cursor:
    """The viewer's cursor, as an event of the mouse."""

    def __init__(self, viewer: Any) -> None:
        self.position = viewer.cursor.position
        self.view_direction = viewer.cursor._view_direction
        self.dims_displayed = viewer.dims.displayed


def go_to(
    viewer: Any, layer: Any, place: Sequence[float], across: float, fit: bool = False
) -> None:
    """Shows a place in the middle of the view.

    Args:
        viewer: napari's.
        layer: of labels.
        place: (z, y, x), voxels.
        across: how much of the surroundings is to be seen, voxels.
        fit: zoom to that in any case; False: a zoom that is not far from it stays as it is.
    """
    world = np.asarray(layer.data_to_world(place), float)
    viewer.dims.point = tuple(world)
    camera = viewer.scene.camera
    camera.center = tuple(world[list(viewer.dims.displayed)])
    wanted = min(viewer.canvas.size) / (float(np.max(layer.scale)) * max(across, 24))
    if fit or not wanted / 2.5 < camera.zoom < wanted * 4:
        camera.zoom = wanted
