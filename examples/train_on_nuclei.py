"""Train on another object: nuclei of mouse embryos, in fluorescence.

    python examples/train_on_nuclei.py FOLDER [--steps 600] [--output DIR]

FOLDER holds pairs `<name>_image.mrc` and `<name>_labels.mrc`, such as those of BBBC050 (Tokuoka et
al. 2020, npj Syst Biol Appl 6:32), converted to MRC. The last embryo is kept for validation. The
script runs the commands, and prints each, so that you can type them yourself.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Prepares, lets the doctor choose the network, trains and scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600, help="of the training")
    parser.add_argument("--slices", type=int, default=1, help="take every nth slice")
    parser.add_argument("--output", type=Path, default=Path("outputs/nuclei"))
    options = parser.parse_args()
    images = sorted(options.folder.glob("*_image.mrc"))
    if len(images) < 2:
        sys.exit(f"error: {options.folder} holds {len(images)} *_image.mrc; two are needed")
    embryo = images[-1].name.split("_")[0]
    val = ",".join(path.stem for path in images if path.name.startswith(embryo))
    data, run = options.output / "data", options.output / "train"

    command(
        "prepare",
        f"volumes={options.folder}/*_image.mrc",
        f"labels={options.folder}/*_labels.mrc",
        f"val=[{val}]",
        "normalization.method=percentile",  # there is no cytoplasm whose grey value is known
        "normalization.low=1",
        "normalization.high=99.8",
        f"patches.slice_step={options.slices}",
        f"output_dir={data}",
        "overwrite=true",
    )
    # Nuclei are larger than granules: other anchors and another scale suit them.
    doctor = options.output / "doctor"
    command("doctor", "model=resnet10", f"data.root={data}", f"output_dir={doctor}")
    command(
        "train",
        "--config-dir",
        str(doctor),
        "experiment=doctor",
        f"data.root={data}",
        "data.num_workers=0",
        "model.optimizer=muon",
        "model.lr=0.02",
        "model.momentum=0.95",
        "model.weight_decay=0.02",
        "model.schedule=cosine",
        "trainer.gradient_clip_val=5",
        "trainer.max_epochs=2",
        f"trainer.limit_train_batches={max(1, options.steps // 2)}",
        f"callbacks.volume_score.slices={min(16, options.steps)}",
        "overwrite=true",
        f"hydra.run.dir={run}",
    )
    command(
        "evaluate",
        f"ckpt_path={run}/checkpoints/isg_mask_rcnn_best.pth",
        f"volumes={images[-1]}",
        f"labels={options.folder}/{images[-1].name.replace('_image', '_labels')}",
        "segmentation.split=false",  # nuclei that divide are no balls
        f"hydra.run.dir={options.output / 'evaluate'}",
    )


def command(name: str, *arguments: str) -> None:
    """Prints and runs a command of isgseg; stops where it fails."""
    print(f"\n$ isgseg-{name} {shlex.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, "-m", f"isgseg.{name}", *arguments], check=False).returncode:
        sys.exit(f"error: isgseg-{name} failed")


if __name__ == "__main__":
    main()
