"""Label a soft X-ray tomogram with the Python interface: load, model, predict, analyse.

    python examples/demo_sxt_isg_maskrcnn.py [--volume cell.mrc] [--model file.pth] [--output DIR]

Without `--volume` it makes a synthetic cell. Without `--model` it uses the installed model, or the
network of the package, which was trained on synthetic cells only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from isgseg import create_segmenter
from isgseg.analysis.figures import granule_figure
from isgseg.analysis.granules import granule_table
from isgseg.io.volumes import Volume, read_volume, stem, write_volume
from isgseg.phantom import make_phantom


def main() -> None:
    """Runs the four steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volume", type=Path, help="a tomogram; default: a synthetic cell")
    parser.add_argument("--model", type=Path, help="a .pth file; default: that of the package")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo_sxt_isg_maskrcnn"))
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score, 0 to 1")
    options = parser.parse_args()

    print("=" * 60)
    print("Insulin secretory granules in soft X-ray tomograms: Mask R-CNN")
    print("=" * 60)

    print("\n[1/4] Loading the volume")
    if options.volume:
        cell, volume = stem(options.volume), read_volume(options.volume)
    else:
        phantom = make_phantom(2000, shape=(24, 243, 236))
        cell, volume = "phantom_2000", Volume(phantom.volume, phantom.voxel_size)
    print(f"      {cell}: {volume.data.shape} (z, y, x), voxels of {volume.voxel_size} nm")

    print("\n[2/4] Loading the model")
    segmenter = create_segmenter(modality="sxt", task="isg_maskrcnn")
    segmenter.load_model(options.model)
    print(f"      {segmenter.name}")

    print("\n[3/4] Predicting")
    labels = segmenter.predict(
        volume.data, threshold=options.threshold, voxel_size=volume.voxel_size
    )

    print("\n[4/4] Analysis")
    table = granule_table(labels, volume.data, volume.voxel_size)
    print(f"      instances: {len(table)}")
    if len(table):
        for word, value in (
            ("average", table["voxels"].mean()),
            ("median", table["voxels"].median()),
            ("largest", table["voxels"].max()),
            ("smallest", table["voxels"].min()),
        ):
            um3 = ""
            if volume.voxel_size is not None:
                z, y, x = volume.voxel_size
                um3 = f" = {value * z * y * x * 1e-9:.5f} um3"
            print(f"      {word} volume: {value:.1f} voxels{um3}")

    image = options.output / f"sxt_isg_maskrcnn_result_{cell}.png"
    tiff = options.output / f"sxt_isg_maskrcnn_{cell}.tiff"
    granule_figure(volume.data, labels, volume.voxel_size, image, name=cell)
    write_volume(tiff, labels, volume.voxel_size)
    print(f"\nFigure:  {image}\nLabels:  {tiff}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
