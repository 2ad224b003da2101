"""Bias and scatter of shapes and grey values, on digitized balls whose numbers are known.

Run `python benchmarks/shape.py --output benchmarks/results/shape.json`.

Balls of each diameter lie at random offsets from the grid, of three kinds of masks:

- sharp: the voxels whose centres are inside of the ball;
- long voxels: the same, with voxels that are twice as long in z;
- blurred: what an image would give. The share of each voxel inside of the ball is blurred and cut
  at half of the ball's value. A blurred ball cut at half is smaller than the ball; by how much is
  known in closed form and has rows of its own. The mask is compared with that smaller ball.

Diameters count voxels of the same volume. `bias` is the mean of measured over true, less 1;
`scatter` is its standard deviation. What is NaN for most balls of a diameter is left out.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from record import Result, add_output
from scipy import ndimage, optimize, special

from isgseg.analysis.granules import granule_table
from isgseg.analysis.intensity import intensity_columns
from isgseg.analysis.shape import shape_columns

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint16]
Rows = list[dict[str, Any]]
DIAMETERS = range(5, 14)  # voxels
BALLS = 400
SIDE = 30.0  # nm
CUBES, LONG = (1.0, 1.0, 1.0), (2.0, 1.0, 1.0)
BLUR = 1.0  # voxels, sd
FINE = 4  # parts of a voxel along each axis, for the share of it that is inside
NOISE = 0.05  # sd, fraction of the cytoplasm's value
INSIDE, OUTSIDE = 0.0145, 0.0101
SHAPES = ("volume", "diameter", "surface", "sphericity", "aspect ratio")


def main() -> None:
    """Measures all kinds of masks, and grey values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--balls", type=int, default=BALLS, help="of each diameter")
    add_output(parser)
    args = parser.parse_args()
    result = Result("Shapes and grey values of digitized balls", seeds=[0])
    rng = np.random.default_rng(0)
    rows: Rows = []
    for diameter in DIAMETERS:
        rows += shapes("sharp", diameter, sharp(rng, diameter, CUBES, args.balls), CUBES)
        rows += shapes("long voxels", diameter, sharp(rng, diameter, LONG, args.balls), LONG)
        shares = blurred(rng, diameter, args.balls)
        rows += shapes("blurred", diameter, numbered(shares > 0.5), CUBES, cut(diameter))
        rows += grey(rng, diameter, shares)
    table = pd.DataFrame(rows)
    for masks, group in table[table["masks"] != "kept"].groupby("masks", sort=False):
        for number, target in {"bias": "<= 0.03", "scatter": "<= 0.05"}.items():
            worst = group.loc[group[number].abs().idxmax()]
            what = f"{worst['measure']} at {worst['diameter']} voxels"
            name = f"balls, {masks}: worst {number}, of the {what}"
            result.add("quality", name, abs(worst[number]), target=target)
    for diameter in (5, 9):
        name = f"balls, blurred and cut at half: diameter over that of {diameter} voxels"
        result.add("quality", name, cut(diameter) / diameter)
    result.details["table"] = by_diameter(table)
    lines = table.round(5).to_csv(index=False).splitlines()
    result.details["all"] = lines  # as text: a line each, not one for every number
    result.write(args.output)


def sharp(rng: np.random.Generator, diameter: float, sides: Any, count: int) -> Labels:
    """Balls in a row, each in a box of its own; the diameter is in voxels of the same volume."""
    radius = diameter / 2 * np.cbrt(np.prod(sides))
    return numbered(row_of_balls(rng, radius, np.array(sides), count, 0, 1))


def blurred(rng: np.random.Generator, diameter: float, count: int) -> Floats:
    """(z, y, x) share of each voxel that is inside of one of a row of balls, blurred."""
    row = row_of_balls(rng, diameter / 2, np.ones(3), count, math.ceil(4 * BLUR), FINE)
    shape = [length // FINE for length in row.shape]
    parts = row.reshape(shape[0], FINE, shape[1], FINE, shape[2], FINE).mean(axis=(1, 3, 5))
    return np.asarray(ndimage.gaussian_filter(parts, BLUR))


def row_of_balls(
    rng: np.random.Generator, radius: float, sides: Floats, count: int, room: int, fine: int
) -> npt.NDArray[np.bool_]:
    """(z, y, x) balls at random offsets, on a grid that is `fine` times finer along each axis."""
    box = np.ceil(2 * radius / sides).astype(int) + 4 + 2 * room
    axes = [(np.arange(n * fine) + 0.5) / fine - 0.5 for n in box]
    parts = []
    for _ in range(count):
        middle = (box - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
        z, y, x = (
            ((axis - m) * side) ** 2 for axis, m, side in zip(axes, middle, sides, strict=True)
        )
        parts.append(z[:, None, None] + y[:, None] + x <= radius**2)
    return np.concatenate(parts, axis=2)


def numbered(mask: npt.NDArray[np.bool_]) -> Labels:
    """The balls of a row with a number each."""
    return np.asarray(ndimage.label(mask, np.ones((3, 3, 3)))[0], np.uint16)


def shapes(masks: str, diameter: int, labels: Labels, sides: Any, true: float = 0) -> Rows:
    """Every shape measure over that of the true ball.

    Args:
        masks: what kind of masks they are.
        diameter: of the balls, voxels.
        labels: (z, y, x).
        sides: of the voxels.
        true: diameter that they should be measured with, where it differs.
    """
    size = tuple(SIDE * side for side in sides)
    nm = (true or diameter) * np.cbrt(np.prod(size))
    found = granule_table(labels, voxel_size=size).set_index("label")
    found = found.join(shape_columns(labels, size))
    truth = {
        "volume_nm3": math.pi / 6 * nm**3,
        "equivalent_diameter_nm": nm,
        "surface_um2": math.pi * nm**2 / 1e6,
        "sphericity": 1.0,
        "aspect_ratio": 1.0,
    }
    ratios = (found[column] / value for column, value in truth.items())
    return [told(masks, diameter, name, ratio) for name, ratio in zip(SHAPES, ratios, strict=True)]


def grey(rng: np.random.Generator, diameter: int, shares: Floats) -> Rows:
    """Grey values over those of the closed form, in an image with blur and noise.

    The masks are those of the balls themselves. Mean and core are compared with the closed form's
    mean over the ball, and over those of its points that are one voxel or more inside along every
    axis. The rows "kept" are how much of the ball's contrast is left in them.
    """
    radius = diameter / 2
    image = grey_value(shares) + rng.normal(0, NOISE * OUTSIDE, shares.shape)
    # The blurred share at the true surface: the mask is the ball's own, not that cut at half.
    labels = numbered(shares > profile(np.array([radius]), radius)[0])
    found = intensity_columns(labels, image, cytoplasm=np.ones(labels.shape, bool))
    means = pd.Series(ndimage.mean(image, labels, found.index), found.index)
    points = np.linspace(-radius, radius, 80)
    away = np.stack(np.meshgrid(points, points, points)).reshape(3, -1)
    squared = (away**2).sum(axis=0)
    blur = profile(np.sqrt(squared), radius)
    # One voxel further along the axis on which a point is furthest out.
    further = squared + 2 * np.abs(away).max(axis=0) + 1
    mean, core = (float(blur[r2 <= radius**2].mean()) for r2 in (squared, further))
    ratios = {
        "mean": means / grey_value(mean),
        "core": found["core_intensity"] / grey_value(core),
        "contrast": found["contrast"] * OUTSIDE / grey_value(mean),
    }
    rows = [told("grey values", diameter, name, ratio) for name, ratio in ratios.items()]
    kept = {"mean": means, "core": found["core_intensity"]}
    for name, values in kept.items():
        rows.append(told("kept", diameter, name, (values - OUTSIDE) / (INSIDE - OUTSIDE)))
    return rows


def grey_value(share: Any) -> Any:
    """Value where a share of the blur comes from the ball."""
    return OUTSIDE + (INSIDE - OUTSIDE) * share


def profile(distance: Floats, radius: float) -> Floats:
    """Value of a blurred ball of value 1 at a distance from its centre, both in voxels.

    A voxel averages over itself, which is a blur with a variance of a twelfth.
    """
    sigma = math.sqrt(BLUR**2 + 1 / 12)
    near, far = ((radius + sign * distance) / (math.sqrt(2) * sigma) for sign in (-1, 1))
    edge = np.exp(-(near**2)) - np.exp(-(far**2))
    bulk = (special.erf(near) + special.erf(far)) / 2
    return np.asarray(bulk - sigma / (math.sqrt(2 * math.pi) * distance) * edge)


def cut(diameter: float) -> float:
    """Diameter at which a blurred ball has half of its value, voxels."""
    radius = diameter / 2
    half = optimize.brentq(lambda r: profile(np.array([r]), radius)[0] - 0.5, 1e-3, radius + 1)
    return 2 * float(half)


def told(masks: str, diameter: int, measure: str, ratio: pd.Series[float]) -> dict[str, Any]:
    """A row: bias and scatter where most balls have a number, None where not."""
    known = ratio.notna().mean()
    row = {"masks": masks, "diameter": diameter, "measure": measure, "told": float(known)}
    few = known < 0.5
    bias, scatter = (None, None) if few else (float(ratio.mean() - 1), float(ratio.std()))
    return {**row, "bias": bias, "scatter": scatter}


def by_diameter(table: pd.DataFrame) -> dict[str, Any]:
    """The table of the page: bias and scatter in percent, one row a diameter."""
    columns = [("sharp", name) for name in SHAPES] + [("kept", name) for name in ("mean", "core")]
    cells = table.set_index(["masks", "measure", "diameter"])
    rows = []
    for diameter in DIAMETERS:
        row = [str(diameter)]
        for masks, measure in columns:
            bias, scatter = cells.loc[(masks, measure, diameter), ["bias", "scatter"]]
            if pd.isna(bias):
                row.append("NaN")
            elif masks == "kept":
                row.append(f"{1 + bias:.0%} ({scatter:.0%})")
            else:
                row.append(f"{round(bias, 3) or 0.0:+.1%} ({scatter:.1%})")  # no -0.0
        rows.append(row)
    return {
        "caption": "Balls at random offsets from the grid: bias (scatter) of each measure with "
        "sharp masks; and how much of a ball's contrast is left in the mean and the core of its "
        "grey values, after a blur with a standard deviation of a voxel.",
        "columns": [
            "diameter, voxels",
            *SHAPES,
            *("contrast left in the mean", "contrast left in the core"),
        ],
        "rows": rows,
    }


if __name__ == "__main__":
    main()
