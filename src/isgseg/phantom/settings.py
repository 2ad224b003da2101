"""What a synthetic cell is drawn from: every range, once, with its unit and its limits."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from isgseg.errors import InputError

Range = tuple[float, float]
INFINITE = float(np.inf)
FRACTION = (0.0, 1.0)
CORRELATION = (0.0, 0.99)
# Settings lie from 0 upwards unless they are named here.
LIMITS: dict[str, tuple[float, float]] = {
    "character": FRACTION,
    "voxel_size": (1.0, 1000.0),
    "cell_diameter": (0.05, 3.0),
    "cell_elongation": (0.2, 5.0),
    "cell_stretch": (1.0, 5.0),
    "cell_taper": (0.0, 0.9),
    "cell_brightness": (0.0, 0.5),
    "nucleus_diameter": (0.05, 0.9),
    "reticulum": FRACTION,
    "mitochondria": FRACTION,
    "granule_diameter": (1.0, 10000.0),
    "granule_mean_diameter": (1.0, 10000.0),
    "granule_elongation": (1.0, 3.0),
    "granule_halo": FRACTION,
    "membrane_fraction": FRACTION,
    "membrane_depth": (1.0, 100000.0),
    "cluster_size": (1.0, 1000.0),
    "touching": FRACTION,
    "wedge_angle": (0.0, 90.0),
    "wedge_strength": FRACTION,
    "noise_correlation_x": CORRELATION,
    "noise_correlation_y": CORRELATION,
    "noise_correlation_z": CORRELATION,
    "blank_width": (0.0, 0.5),
}


@dataclass(frozen=True)
class PhantomSettings:
    """What a synthetic cell is drawn from.

    A range (low, high) is sampled once per cell, but for the diameters, thicknesses and contrasts
    marked *each*: every object draws its own. A number that is no range is a probability, but for
    `character`. LAC are per voxel and lie around the published ones of INS-1E cells (outside .0045,
    nucleus .0090, cytoplasm .0101, other organelles .0125, granules .0145 with their dimmer edges).

    Raises:
        ValueError: a range is not two ascending numbers within its limits, a probability is not
            within 0 to 1, or the shape is not three positive whole numbers.
    """

    shape: tuple[int, int, int] = (64, 486, 473)  # (z, y, x), voxels; z is cut out of the middle
    # 0: ranges are sampled one by one; 1: those of one trait (see `character.TRAITS`) together.
    character: float = 0.7
    voxel_size: Range = (30.0, 37.0)  # nm, the same along each axis
    # Cells
    cell_diameter: Range = (0.84, 1.08)  # of the main cell, fraction of the field's width
    cell_elongation: Range = (1.8, 2.3)  # height (z) over width
    cell_stretch: Range = (1.0, 1.7)  # length over width in the plane
    cell_taper: Range = (0.0, 0.5)  # narrowing from one end to the other, fraction of the width
    cell_roughness: Range = (0.02, 0.09)  # height of the outline's bumps, fraction of the radius
    cell_brightness: Range = (0.06, 0.24)  # sd of cells' brightness in one field, fraction
    neighbours: Range = (2, 5)  # number of further cells, cut by the field
    blebs: Range = (0.0, 0.03)  # vesicles that bud from the surface, per um3 of cytoplasm
    nucleus_diameter: Range = (0.45, 0.66)  # fraction of the cell's
    nucleoli: Range = (0, 3)  # number in each nucleus
    envelope: Range = (0.25, 0.9)  # nuclear envelope's contrast, fraction of the mitochondria's
    envelope_gap: Range = (0.0, 260.0)  # nm, between the envelope and the ER sheet along it
    lac_outside: Range = (0.0044, 0.0062)  # medium
    lac_cytoplasm: Range = (0.0099, 0.0103)  # cytosol
    lac_nucleus: Range = (0.0089, 0.0100)  # nucleoplasm
    lac_organelle: Range = (0.0120, 0.0138)  # mitochondria; membranes: between it and cytosol
    lac_granule: Range = (0.0154, 0.0192)  # median granule's core; blur leaves less on its label
    lac_lipid: Range = (0.0170, 0.0230)  # lipid droplets
    texture: Range = (0.025, 0.07)  # sd of the mottling, fraction of the value
    reticulum: Range = (0.04, 0.25)  # fraction of the cytoplasm at the nucleus taken by ER
    # Organelles
    mitochondria: Range = (0.03, 0.16)  # fraction of the cytoplasm's volume
    mitochondrion_thickness: Range = (230.0, 480.0)  # nm, each
    body_density: Range = (1.5, 7.0)  # lysosomes and endosomes, per um3 of cytoplasm
    body_diameter: Range = (140.0, 520.0)  # nm, each
    body_contrast: Range = (0.08, 0.7)  # each, fraction of the median granule's contrast
    body_mingling: Range = (0.1, 0.6)  # fraction of them among the granules
    ring_density: Range = (0.0, 0.12)  # multivesicular bodies, per um3 of cytoplasm
    ring_diameter: Range = (260.0, 900.0)  # nm, each
    lipid_density: Range = (0.0, 0.02)  # per um3 of cytoplasm
    lipid_diameter: Range = (250.0, 800.0)  # nm, each
    vacuole_density: Range = (0.003, 0.03)  # per um3 of cytoplasm
    vacuole_diameter: Range = (200.0, 1000.0)  # nm, each
    speck_density: Range = (0.2, 1.0)  # small bright spots, per um3 of cytoplasm
    speck_diameter: Range = (60.0, 130.0)  # nm, each
    # Granules
    granule_density: Range = (0.7, 2.0)  # per um3 of cytoplasm
    granule_diameter: Range = (160.0, 420.0)  # nm, each; of the sphere of the same volume
    granule_mean_diameter: Range = (220.0, 260.0)  # nm
    granule_elongation: Range = (1.05, 1.25)  # largest ratio of two axes
    granule_roughness: Range = (10.0, 22.0)  # nm, sd of the surface's height
    granule_contrast_spread: Range = (0.2, 0.32)  # sd of the logarithm of the contrast
    granule_halo: Range = (0.05, 0.3)  # fraction of granules with a soft edge
    membrane_fraction: Range = (0.3, 0.8)  # fraction of the clusters under the plasma membrane
    membrane_depth: Range = (300.0, 800.0)  # nm, over which the density there falls to 1/e
    cluster_size: Range = (4, 12)  # mean number of granules a cluster
    cluster_spread: Range = (230.0, 520.0)  # nm, sd of a cluster along each axis
    touching: Range = (0.08, 0.35)  # probability that a granule touches another of its cluster
    # Medium
    debris_density: Range = (0.0, 6.0)  # vesicles and scraps, per um3 of medium
    debris_diameter: Range = (100.0, 600.0)  # nm, each
    haze: Range = (0.0, 0.12)  # sd of the medium's unevenness, fraction of the cytoplasm's value
    # Imaging
    shading: Range = (0.01, 0.07)  # sd of the slow change of brightness over the field
    blur: Range = (32.0, 56.0)  # nm, sd of the point spread function
    wedge_angle: Range = (10.0, 25.0)  # degrees, half the angle of the missing wedge
    wedge_strength: Range = (0.0, 0.4)  # part of the signal lost in the wedge
    noise: Range = (0.046, 0.062)  # sd, fraction of the cytoplasm's value
    noise_growth: Range = (0.0, 1.2)  # by how much it is stronger at one edge
    noise_correlation_x: Range = (0.58, 0.66)  # between neighbours along x
    noise_correlation_y: Range = (0.34, 0.42)  # along y
    noise_correlation_z: Range = (0.39, 0.44)  # along z
    ring_strength: Range = (0.003, 0.012)  # sd of the rings, fraction of the cytoplasm's value
    line_noise: Range = (0.0, 0.02)  # sd of lines along x, fraction of the cytoplasm's value
    bead_probability: float = 0.25  # that a bead lies in the volume
    bead_diameter: Range = (2000.0, 6500.0)  # nm, cut to 45 % of the field
    lac_bead: Range = (0.03, 0.06)  # bead's rim
    capillary_probability: float = 0.2  # that the capillary's wall is in view
    lac_capillary: Range = (0.02, 0.035)  # wall
    blank_probability: float = 0.25  # that one or two edges are blank
    blank_width: Range = (0.005, 0.06)  # fraction of the field

    def __post_init__(self) -> None:
        check_shape(self.shape)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "Range":
                check_range(field.name, value)
                object.__setattr__(self, field.name, (float(value[0]), float(value[1])))
            elif field.name != "shape":
                check_probability(field.name, value)


def ranges() -> list[str]:
    """Names of the settings that are ranges, in order."""
    return [field.name for field in fields(PhantomSettings) if field.type == "Range"]


def check_range(name: str, bounds: Any) -> None:
    """Raises ValueError unless bounds are (low, high) within the setting's limits."""
    least, most = LIMITS.get(name, (0.0, INFINITE))
    if isinstance(bounds, (int, float, str)) or len(bounds) != 2 or not bounds[0] <= bounds[1]:
        raise InputError(f"{name} must be a range (low, high) with low <= high, got {bounds!r}")
    if bounds[0] < least or bounds[1] > most:
        raise InputError(f"{name} must lie within {least:g} to {most:g}, got {bounds!r}")


def check_probability(name: str, value: float) -> None:
    """Raises ValueError unless the value lies within 0 to 1."""
    if not 0 <= value <= 1:
        raise InputError(f"{name} must be a number from 0 to 1, got {value!r}")


def check_shape(shape: Any) -> None:
    """Raises ValueError unless the shape is three positive whole numbers."""
    if isinstance(shape, int) or len(shape) != 3 or any(n != int(n) or n < 1 for n in shape):
        raise InputError(f"shape must be three positive whole numbers (z, y, x), got {shape!r}")
