"""make_phantom: draw one cell's numbers, build the cell, and image it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.phantom.cell import Lac, make_cells
from isgseg.phantom.character import Numbers, draw_numbers
from isgseg.phantom.granules import paint_granules, place_granules, renumber
from isgseg.phantom.imaging import image_volume
from isgseg.phantom.mitochondria import paint_mitochondria
from isgseg.phantom.organelles import (
    paint_blebs,
    paint_bodies,
    paint_debris,
    paint_lipid,
    paint_rings,
    paint_specks,
    paint_vacuoles,
)
from isgseg.phantom.painting import paint_cells, shade_cells
from isgseg.phantom.places import Scene, map_cytoplasm
from isgseg.phantom.settings import PhantomSettings
from isgseg.phantom.surroundings import blank_edges, paint_bead, paint_capillary


@dataclass(frozen=True)
class Phantom:
    """A synthetic soft X-ray tomogram and its ground truth.

    Attributes:
        volume: (z, y, x) float32, LAC per voxel.
        labels: (z, y, x) uint16, granule numbers from 1, 0 is background.
        organelles: (z, y, x) uint8, class map; ORGANELLES maps names to its numbers.
        voxel_size: (z, y, x), nm.
    """

    volume: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint16]
    organelles: npt.NDArray[np.uint8]
    voxel_size: tuple[float, float, float]


def make_phantom(seed: int, settings: PhantomSettings | None = None, **changes: Any) -> Phantom:
    """Make a synthetic cell with granules: the same seed and settings give the same arrays.

    Noise, its correlation, and the number, size, contrast and distance of granules are fitted so
    that slices give the statistics of real ones by the same estimators: `lac_granule`, the
    diameters and the surface's roughness are what it takes, not measurements of granules.

    Args:
        seed: of every random choice.
        settings: ranges; None takes the defaults.
        **changes: settings by name, in place of those of `settings`.

    Raises:
        ValueError: a setting is out of its limits.
        TypeError: there is no such setting.
    """
    settings = replace(settings or PhantomSettings(), **changes)
    seeds = np.random.SeedSequence(seed).spawn(8)
    layout, paint, fill, place, crowd, extras, imaging, dice = map(np.random.default_rng, seeds)
    numbers = draw_numbers(dice, settings)
    chances = dice.uniform(size=3)
    cells, owners, scene = _lay_out(layout, paint, settings, numbers)
    paint_vacuoles(fill, scene)
    paint_lipid(fill, scene)
    paint_rings(fill, scene)
    paint_mitochondria(fill, scene)
    granules = place_granules(place, scene)
    paint_granules(scene.volume, scene.labels, scene.organelles, granules)
    paint_bodies(crowd, scene, [granule.body.centre for granule in granules])
    paint_specks(crowd, scene)
    paint_blebs(extras, scene)
    paint_debris(extras, scene)
    shade_cells(extras, scene.volume, owners, cells, numbers["shading"])
    _image(extras, imaging, scene, chances)
    renumber(scene.labels, scene.organelles)
    nm = scene.voxel_size
    return Phantom(scene.volume, scene.labels, scene.organelles, (nm, nm, nm))


def _lay_out(
    layout: np.random.Generator,
    paint: np.random.Generator,
    settings: PhantomSettings,
    numbers: Numbers,
) -> tuple[list[Any], npt.NDArray[np.uint8], Scene]:
    """Cells with nuclei and cytosol, which cell owns which voxel, and what is to be filled."""
    z, y, x = (int(n) for n in settings.shape)
    shape, nm = (z, y, x), numbers["voxel_size"]
    names = ("outside", "cytoplasm", "nucleus", "organelle", "granule", "lipid")
    lac = Lac(**{name: numbers[f"lac_{name}"] for name in names})
    cells = make_cells(layout, shape, numbers)
    volume = np.empty(shape, dtype=np.float32)
    organelles, owners = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    paint_cells(paint, volume, organelles, owners, cells, lac, nm, numbers)
    cytoplasm = map_cytoplasm(cells, shape, margin=int(0.5 * settings.granule_diameter[1] / nm) + 1)
    labels = np.zeros(shape, dtype=np.uint16)
    return cells, owners, Scene(volume, labels, organelles, cytoplasm, lac, nm, settings, numbers)


def _image(
    extras: np.random.Generator,
    imaging: np.random.Generator,
    scene: Scene,
    chances: npt.NDArray[np.float64],
) -> None:
    """Add what covers the cell, and image all of it, in place."""
    settings, numbers, lac, nm = scene.settings, scene.numbers, scene.lac, scene.voxel_size
    arrays = scene.volume, scene.labels, scene.organelles
    wall, bead, blank = chances
    if wall < settings.capillary_probability:
        paint_capillary(extras, *arrays, lac=numbers["lac_capillary"], outside=lac.outside)
    if bead < settings.bead_probability:
        diameter = numbers["bead_diameter"] / nm
        paint_bead(extras, *arrays, diameter=diameter, lac=numbers["lac_bead"])
    image_volume(imaging, scene.volume, lac.cytoplasm, nm, numbers)
    if blank < settings.blank_probability:
        blank_edges(extras, *arrays, width=numbers["blank_width"])
