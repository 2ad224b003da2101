"""make_phantom: draw one cell's parameters, build the cell, and image it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isgseg.phantom.cell import Lac, make_cells, paint_cells
from isgseg.phantom.granules import paint_granules, place_granules, renumber
from isgseg.phantom.imaging import image_volume
from isgseg.phantom.organelles import map_cytoplasm, paint_organelles, paint_specks
from isgseg.phantom.surroundings import blank_edges, paint_bead, paint_capillary

Range = Sequence[float]
FRACTION = (0.0, 1.0)
CORRELATION = (0.0, 0.99)
# Ranges lie from 0 upwards unless they are named here.
LIMITS: dict[str, tuple[float, float]] = {
    "voxel_size": (1.0, 1000.0),
    "cell_diameter": (0.05, 3.0),
    "cell_elongation": (0.2, 5.0),
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
class Phantom:
    """A synthetic soft X-ray tomogram and the truth about it.

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


def make_phantom(
    seed: int,
    *,
    shape: Sequence[int] = (64, 486, 473),
    voxel_size: Range = (30.0, 37.0),
    cell_diameter: Range = (0.84, 0.98),
    cell_elongation: Range = (1.8, 2.3),
    cell_roughness: Range = (0.02, 0.05),
    neighbours: Range = (1, 3),
    nucleus_diameter: Range = (0.48, 0.6),
    nucleoli: Range = (1, 3),
    lac_outside: Range = (0.0046, 0.0056),
    lac_cytoplasm: Range = (0.0099, 0.0103),
    lac_nucleus: Range = (0.0087, 0.0093),
    lac_organelle: Range = (0.0120, 0.0130),
    lac_granule: Range = (0.0147, 0.0154),
    lac_lipid: Range = (0.0160, 0.0210),
    texture: Range = (0.025, 0.037),
    reticulum: Range = (0.08, 0.22),
    mitochondria: Range = (0.04, 0.1),
    mitochondrion_thickness: Range = (260.0, 480.0),
    lipid_density: Range = (0.005, 0.03),
    lipid_diameter: Range = (330.0, 950.0),
    vacuole_density: Range = (0.003, 0.02),
    vacuole_diameter: Range = (300.0, 1300.0),
    speck_density: Range = (0.1, 0.4),
    speck_diameter: Range = (60.0, 120.0),
    granule_density: Range = (0.92, 1.12),
    granule_diameter: Range = (120.0, 400.0),
    granule_mean_diameter: Range = (184.0, 200.0),
    granule_elongation: Range = (1.05, 1.25),
    granule_roughness: Range = (18.0, 28.0),
    granule_contrast_spread: Range = (0.36, 0.44),
    granule_halo: Range = (0.05, 0.2),
    membrane_fraction: Range = (0.5, 0.8),
    membrane_depth: Range = (300.0, 800.0),
    cluster_size: Range = (6.0, 9.0),
    cluster_spread: Range = (290.0, 440.0),
    touching: Range = (0.1, 0.18),
    blur: Range = (13.0, 19.0),
    wedge_angle: Range = (10.0, 25.0),
    wedge_strength: Range = (0.2, 0.5),
    noise: Range = (0.05, 0.057),
    noise_correlation_x: Range = (0.64, 0.69),
    noise_correlation_y: Range = (0.39, 0.44),
    noise_correlation_z: Range = (0.39, 0.44),
    ring_strength: Range = (0.004, 0.012),
    bead_probability: float = 0.25,
    bead_diameter: Range = (2000.0, 6500.0),
    lac_bead: Range = (0.03, 0.06),
    capillary_probability: float = 0.2,
    lac_capillary: Range = (0.02, 0.035),
    blank_probability: float = 0.15,
    blank_width: Range = (0.02, 0.08),
) -> Phantom:
    """Make a synthetic cell with granules: the same seed and ranges give the same arrays.

    Ranges are (low, high) and sampled once per cell, but for the diameters and thicknesses of
    granules, mitochondria, lipid droplets, vacuoles and specks, which each of them draws for
    itself. LAC lie around the published ones of INS-1E cells (outside .0045, nucleus .0090,
    cytoplasm .0101, other organelles .0125, granules .0145). Noise, its correlation, and the
    number, size, contrast and distance of granules are fitted so that slices give the statistics
    of real ones by the same estimators: `lac_outside`, `lac_granule`, the diameters and the
    surface's roughness are what it takes, not measurements of granules.

    Args:
        seed: of every random choice.
        shape: (z, y, x), voxels. z cuts a slab out of the middle of a cell as wide as the field.
        voxel_size: nm, the same along each axis.
        cell_diameter: of the main cell, fraction of the field's width.
        cell_elongation: the cell's height (z) over its width.
        cell_roughness: height of the outline's bumps, fraction of the cell's radius.
        neighbours: number of further cells, cut by the field.
        nucleus_diameter: fraction of the cell's.
        nucleoli: in each nucleus.
        lac_outside: LAC per voxel, as all `lac_*`, of the medium.
        lac_cytoplasm: of the cytosol.
        lac_nucleus: of the nucleoplasm.
        lac_organelle: of mitochondria; membranes lie between this and the cytosol.
        lac_granule: of the median granule's core; blur leaves less on its label.
        lac_lipid: of lipid droplets.
        texture: standard deviation of the mottling, fraction of the value.
        reticulum: fraction of the cytoplasm at the nucleus taken by ER sheets.
        mitochondria: fraction of the cytoplasm's volume.
        mitochondrion_thickness: nm.
        lipid_density: per cubic micrometre of cytoplasm.
        lipid_diameter: nm.
        vacuole_density: per cubic micrometre of cytoplasm.
        vacuole_diameter: nm.
        speck_density: unlabelled bright specks per cubic micrometre of cytoplasm.
        speck_diameter: nm.
        granule_density: per cubic micrometre of cytoplasm.
        granule_diameter: nm, smallest and largest; of the sphere of the same volume.
        granule_mean_diameter: nm.
        granule_elongation: largest ratio of two axes.
        granule_roughness: nm, standard deviation of the surface's height.
        granule_contrast_spread: standard deviation of the logarithm of the contrast.
        granule_halo: fraction of granules with a soft edge.
        membrane_fraction: fraction of the clusters under the plasma membrane.
        membrane_depth: nm, over which the density below the membrane falls to 1/e.
        cluster_size: mean number of granules a cluster.
        cluster_spread: nm, standard deviation of a cluster along each axis.
        touching: probability that a further granule of a cluster touches another.
        blur: nm, standard deviation of the point spread function.
        wedge_angle: degrees, half the angle of the missing wedge.
        wedge_strength: part of the signal lost in the wedge.
        noise: standard deviation, fraction of the cytoplasm's value.
        noise_correlation_x: of the noise between neighbours along x.
        noise_correlation_y: along y.
        noise_correlation_z: along z.
        ring_strength: standard deviation of the rings, fraction of the cytoplasm's value.
        bead_probability: that a bead lies in the volume.
        bead_diameter: nm, cut to 45 % of the field.
        lac_bead: of the bead's rim.
        capillary_probability: that the capillary's wall is in view.
        lac_capillary: of the wall.
        blank_probability: that one or two edges are blank.
        blank_width: fraction of the field.

    Raises:
        ValueError: a range is not two ascending numbers within its limits, a probability is
            not within 0 to 1, or the shape is not three positive whole numbers.
    """
    size = _check_shape(shape)
    layout, paint, fill, place, extras, imaging, dice = (
        np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(7)
    )

    def draw(name: str, bounds: Range) -> float:
        low, high = _check_range(name, bounds)
        return float(dice.uniform(low, high))

    def draw_count(name: str, bounds: Range) -> int:
        low, high = _check_range(name, bounds)
        return int(dice.integers(round(low), round(high) + 1))

    nm = draw("voxel_size", voxel_size)
    lac = Lac(
        outside=draw("lac_outside", lac_outside),
        cytoplasm=draw("lac_cytoplasm", lac_cytoplasm),
        nucleus=draw("lac_nucleus", lac_nucleus),
        organelle=draw("lac_organelle", lac_organelle),
        granule=draw("lac_granule", lac_granule),
        lipid=draw("lac_lipid", lac_lipid),
    )
    cells = make_cells(
        layout,
        size,
        diameter=draw("cell_diameter", cell_diameter),
        elongation=draw("cell_elongation", cell_elongation),
        roughness=draw("cell_roughness", cell_roughness),
        neighbours=draw_count("neighbours", neighbours),
        nucleus_diameter=draw("nucleus_diameter", nucleus_diameter),
        nucleoli=draw_count("nucleoli", nucleoli),
    )
    volume = np.empty(size, dtype=np.float32)
    organelles = np.zeros(size, dtype=np.uint8)
    labels = np.zeros(size, dtype=np.uint16)
    paint_cells(
        paint,
        volume,
        organelles,
        cells,
        lac,
        texture=draw("texture", texture),
        reticulum=draw("reticulum", reticulum),
    )
    largest = _check_range("granule_diameter", granule_diameter)
    cytoplasm = map_cytoplasm(cells, size, margin=int(0.5 * largest[1] / nm) + 1)
    paint_organelles(
        fill,
        volume,
        organelles,
        cytoplasm,
        lac,
        nm,
        mitochondria=draw("mitochondria", mitochondria),
        mitochondrion_thickness=_check_range("mitochondrion_thickness", mitochondrion_thickness),
        lipid_density=draw("lipid_density", lipid_density),
        lipid_diameter=_check_range("lipid_diameter", lipid_diameter),
        vacuole_density=draw("vacuole_density", vacuole_density),
        vacuole_diameter=_check_range("vacuole_diameter", vacuole_diameter),
    )
    granules = place_granules(
        place,
        organelles,
        cytoplasm,
        lac,
        nm,
        density=draw("granule_density", granule_density),
        diameter=largest,
        mean_diameter=draw("granule_mean_diameter", granule_mean_diameter),
        elongation=draw("granule_elongation", granule_elongation),
        roughness=draw("granule_roughness", granule_roughness),
        contrast_spread=draw("granule_contrast_spread", granule_contrast_spread),
        halo=draw("granule_halo", granule_halo),
        membrane_fraction=draw("membrane_fraction", membrane_fraction),
        membrane_depth=draw("membrane_depth", membrane_depth),
        cluster_size=draw("cluster_size", cluster_size),
        cluster_spread=draw("cluster_spread", cluster_spread),
        touching=draw("touching", touching),
    )
    paint_granules(volume, labels, organelles, granules)
    paint_specks(
        extras,
        volume,
        organelles,
        cytoplasm,
        lac,
        nm,
        density=draw("speck_density", speck_density),
        diameter=_check_range("speck_diameter", speck_diameter),
    )
    wall, rim = draw("lac_capillary", lac_capillary), draw("lac_bead", lac_bead)
    bead, band = draw("bead_diameter", bead_diameter) / nm, draw("blank_width", blank_width)
    if dice.uniform() < _check_probability("capillary_probability", capillary_probability):
        paint_capillary(extras, volume, labels, organelles, lac=wall, outside=lac.outside)
    if dice.uniform() < _check_probability("bead_probability", bead_probability):
        paint_bead(extras, volume, labels, organelles, diameter=bead, lac=rim)
    image_volume(
        imaging,
        volume,
        cytoplasm=lac.cytoplasm,
        blur=draw("blur", blur) / nm,
        wedge_angle=draw("wedge_angle", wedge_angle),
        wedge_strength=draw("wedge_strength", wedge_strength),
        noise=draw("noise", noise),
        correlation=(
            draw("noise_correlation_z", noise_correlation_z),
            draw("noise_correlation_y", noise_correlation_y),
            draw("noise_correlation_x", noise_correlation_x),
        ),
        ring_strength=draw("ring_strength", ring_strength),
    )
    if dice.uniform() < _check_probability("blank_probability", blank_probability):
        blank_edges(extras, volume, labels, organelles, width=band)
    renumber(labels, organelles)
    return Phantom(volume, labels, organelles, (nm, nm, nm))


def _check_range(name: str, bounds: Range) -> tuple[float, float]:
    least, most = LIMITS.get(name, (0.0, np.inf))
    if isinstance(bounds, (int, float, str)) or len(bounds) != 2 or not bounds[0] <= bounds[1]:
        raise ValueError(f"{name} must be a range (low, high) with low <= high, got {bounds!r}")
    if bounds[0] < least or bounds[1] > most:
        raise ValueError(f"{name} must lie within {least:g} to {most:g}, got {bounds!r}")
    return float(bounds[0]), float(bounds[1])


def _check_probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a probability from 0 to 1, got {value!r}")
    return value


def _check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if isinstance(shape, int) or len(shape) != 3 or any(n != int(n) or n < 1 for n in shape):
        raise ValueError(f"shape must be three positive whole numbers (z, y, x), got {shape!r}")
    z, y, x = (int(n) for n in shape)
    return z, y, x
