"""Draws `docs/phantom2.png`: a random slice of each of eight synthetic cells.

Run `python benchmarks/phantom_gallery.py`. Black is 0, white is 1.8 times the cytoplasm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml
from record import ROOT
from tqdm import tqdm

from isgseg.phantom import make_phantom

CYTOPLASM = 0.0101  # LAC per voxel, the middle of the phantom's range


def main() -> None:
    """Makes the cells and draws them."""
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "phantom2.png")
    parser.add_argument("--seeds", type=int, nargs=8, default=list(range(8)))
    args = parser.parse_args()
    settings = yaml.safe_load((ROOT / "conf" / "source" / "phantom.yaml").read_text())["phantom"]
    del settings["train_seeds"], settings["val_seeds"]
    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, seed in zip(figure.subplots(2, 4).flat, tqdm(args.seeds), strict=True):
        volume = make_phantom(seed, **settings).volume
        z = int(np.random.default_rng(seed).integers(len(volume)))
        axes.imshow(volume[z], cmap="gray", vmin=0, vmax=1.8 * CYTOPLASM)
        axes.set_title(f"seed {seed}, slice {z}", fontsize=6)
        axes.axis("off")
    figure.savefig(args.output, dpi=140)


if __name__ == "__main__":
    main()
