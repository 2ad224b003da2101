"""How long a whole cell takes in napari: opening it, and the steps of proofreading.

A window is needed: on a machine without one,

    xvfb-run -a -s "-screen 0 1400x900x24" python benchmarks/napari_speed.py \
        --output benchmarks/results/napari_speed.json

Balls stand for granules. Each step is timed from the call until the window is drawn again.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from record import Result, add_output

from isgseg.analysis.granules import granule_table, write_table
from isgseg.io.volumes import write_volume
from isgseg.napari import steps

SIZE = (35.0, 35.0, 35.0)
RADII = (3, 6)  # voxels


def balls(shape: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """(z, y, x) uint16 labels: balls that do not overlap, two by two in touch."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    number = 0
    while number < count:
        radius = int(random.integers(*RADII))
        centre = [int(random.integers(radius + 1, side - 2 * radius - 8)) for side in shape]
        reach = [slice(c - radius, c + radius + 1) for c in centre]
        grid = np.indices([2 * radius + 1] * 3) - radius
        ball = (grid**2).sum(axis=0) <= radius**2
        for shift in (0, 2 * radius + 1):
            box = (*reach[:2], slice(reach[2].start + shift, reach[2].stop + shift))
            if number < count and not labels[box].any():
                number += 1
                labels[box][ball] = number
    return labels


def main() -> None:
    """Makes a cell on the disk, opens it, and works with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[473, 486, 473])
    parser.add_argument("--granules", type=int, default=2200)
    parser.add_argument("--repeats", type=int, default=3)
    add_output(parser)
    args = parser.parse_args()
    result = Result("A whole cell in napari, software rendering", seeds=[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, tuple(args.shape), args.granules)
        measure(result, folder, args.repeats)
    result.write(args.output)


def make(folder: Path, shape: tuple[int, ...], count: int) -> None:
    """Writes tomogram, labels and table."""
    labels = balls(shape, count, 0)
    volume = np.random.default_rng(0).normal(1, 0.05, shape).astype(np.float32)
    volume[labels > 0] += 0.5
    write_volume(folder / "cell.mrc", volume, SIZE)
    write_volume(folder / "cell_labels.tif", labels, SIZE)
    write_table(folder / "cell_granules.csv", granule_table(labels, volume, SIZE))


def measure(result: Result, folder: Path, repeats: int) -> None:
    """Adds the times."""
    import napari
    from qtpy.QtWidgets import QApplication

    from isgseg.napari.proofread_dock import Proofread

    viewer = napari.Viewer(show=True)
    app = QApplication.instance()

    canvas, drawn = viewer.window._qt_viewer.canvas, []
    canvas._scene_canvas.events.draw.connect(lambda _: drawn.append(1), position="last")

    def timed(act: Callable[[], Any]) -> float:
        start = time.perf_counter()
        drawn.clear()
        act()
        app.processEvents()
        if not drawn:  # nothing asked for it
            canvas.native.repaint()
            app.processEvents()
        return time.perf_counter() - start

    app.processEvents()
    dock = Proofread(viewer)
    viewer.window.add_dock_widget(dock, name="Proofread granules")
    opened = timed(lambda: viewer.open(str(folder), plugin="isgseg"))
    begun = timed(dock.begin)
    result.add("speed", "open the run folder", opened, "s", target="<= 10")
    result.add("speed", "begin the review: doubts of all granules", begun, "s")
    result.add("speed", "open and begin", opened + begun, "s", target="<= 10")
    for dimensions in (2, 3):
        viewer.dims.ndisplay = dimensions
        app.processEvents()
        add_steps(result, dock, timed, repeats, f" in {dimensions}D")
    viewer.close()


def add_steps(
    result: Result, dock: Any, timed: Callable[..., float], repeats: int, where: str
) -> None:
    """Adds the median times of the steps of proofreading."""
    times: dict[str, list[float]] = {"jump": [], "merge": [], "delete 100": [], "undo": []}
    for _ in range(repeats):
        order = steps.in_order(dock.session)
        times["jump"].append(timed(dock.forward))
        times["merge"].append(timed(lambda o=order: dock._do(steps.merge(dock.session, o[:2]))))
        hundred = order[10:110]
        times["delete 100"].append(timed(lambda h=hundred: dock._do(steps.delete(dock.session, h))))
        times["undo"].append(timed(dock.undo))
        dock.undo()
    for name, values in times.items():
        target = "<= 1"
        result.add("speed", f"{name}{where}", statistics.median(values), "s", target=target)


if __name__ == "__main__":
    main()
