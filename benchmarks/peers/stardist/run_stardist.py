"""StarDist (Schmidt et al. 2018, Weigert et al. 2020): trained until a clock stops it, and used.

    python run_stardist.py train --images a.npy b.npy --labels a_labels.npy b_labels.npy \
        --model FOLDER --seconds 960
    python run_stardist.py tune --images val.npy --labels val_labels.npy --model FOLDER
    python run_stardist.py predict --images cell.npy --model FOLDER --output FOLDER

Volumes are `.npy`, (z, y, x); `--normalize percentile` stretches each to its percentiles 1 and
99.8, as StarDist's examples do, `grey` takes uint8 as it is. Where all have one slice, they are
images, of which StarDist 2D learns. The environment is that of `requirements.txt`.
The settings are for balls of 5 to 13 voxels: no subsampling (`grid`), which loses the smallest, and
batch normalization with a rate that falls to zero at the end of the clock, without which so short a
training finds little. Larger objects want `--grid`, and `--anisotropic` those that are not as high
as wide.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
THREADS = int(os.environ.get("OMP_NUM_THREADS", 0))
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = str(THREADS)

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import tensorflow as tf  # noqa: E402
from stardist import Rays_GoldenSpiral  # noqa: E402
from stardist.matching import matching  # noqa: E402
from stardist.models import Config2D, Config3D, StarDist2D, StarDist3D  # noqa: E402
from stardist.utils import calculate_extents  # noqa: E402
from tensorflow import keras  # noqa: E402

Array = npt.NDArray[Any]
NAME = "stardist"
RANDOM = np.random.default_rng(0)  # of augmentation
LEAST = 0.3  # probability from which on objects are looked at when thresholds are tuned
VALIDATION = (16, 64, 64)  # voxels; keras asks for some, thresholds are tuned on the whole cell


def main() -> None:
    """Trains, tunes or predicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["train", "tune", "predict"])
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, nargs="+", default=[])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="folder of the labels")
    parser.add_argument("--normalize", choices=["percentile", "grey"], default="grey")
    parser.add_argument("--seconds", type=float, default=960, help="of processor time, to train")
    parser.add_argument("--rays", type=int, default=32)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--base", type=int, default=16)
    parser.add_argument("--patch", type=int, nargs="+", default=[24, 64, 64], help="per axis")
    parser.add_argument("--grid", type=int, nargs="+", default=[1, 1, 1], help="per axis")
    parser.add_argument("--anisotropic", action="store_true", help="rays as long as labels say")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--no-batch-norm", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if THREADS:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    images = [normalized(np.load(path), args.normalize) for path in args.images]
    labels = [np.load(path).astype(np.int32) for path in args.labels]
    shapes = [image.shape for image in images]
    if all(len(image) == 1 for image in images):
        images, labels = [image[0] for image in images], [part[0] for part in labels]
    if args.step == "train":
        train(args, images, labels)
        return
    kind = StarDist2D if images[0].ndim == 2 else StarDist3D
    model = kind(None, name=NAME, basedir=str(args.model))
    if args.step == "tune":
        tune(model, images, labels)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    for path, image, shape in zip(args.images, images, shapes, strict=True):
        found, _ = model.predict_instances(image, n_tiles=tiles(image), show_tile_progress=False)
        np.save(args.output / path.name, found.astype(np.uint32).reshape(shape))


def normalized(volume: Array, method: str) -> Array:
    """float32, most of it from 0 to 1."""
    if method == "grey":
        return volume.astype(np.float32) / 255
    low, high = np.percentile(volume, [1, 99.8])
    return ((volume - low) / (high - low)).astype(np.float32)


def tiles(image: Array) -> tuple[int, ...]:
    """So many that a tile has at most 64 x 256 x 256 voxels, or 256 x 256 pixels."""
    most = (64, 256, 256)[-image.ndim :]
    return tuple(math.ceil(side / limit) for side, limit in zip(image.shape, most, strict=True))


def network(
    rays: int = 32,
    depth: int = 2,
    base: int = 16,
    batch_norm: bool = True,
    grid: Sequence[int] = (1, 1, 1),
    anisotropy: Sequence[float] = (1, 1, 1),
) -> dict[str, Any]:
    """What the configuration says of the network, without training; 2D by the length of `grid`."""
    own: dict[str, Any] = {"n_rays": rays}
    if len(grid) == 3:
        spiral = Rays_GoldenSpiral(rays, anisotropy=tuple(anisotropy))
        own = {"rays": spiral, "anisotropy": tuple(anisotropy)}
    return own | {
        "grid": tuple(grid),
        "n_channel_in": 1,
        "unet_n_depth": depth,
        "unet_n_filter_base": base,
        "net_conv_after_unet": 2 * base,
        "unet_batch_norm": batch_norm,
        "use_gpu": False,
    }


def train(args: argparse.Namespace, images: list[Array], labels: list[Array]) -> None:
    """Trains for so many seconds of processor time; the weights of the last step are kept."""
    np.random.seed(args.seed)  # noqa: NPY002 - StarDist draws from it
    tf.random.set_seed(args.seed)
    axes = images[0].ndim
    extents = calculate_extents(labels) if args.anisotropic else np.ones(axes)
    anisotropy = tuple(float(extents.max() / extent) for extent in extents)
    kind, of = (Config2D, StarDist2D) if axes == 2 else (Config3D, StarDist3D)
    grid = args.grid[-axes:]
    config = kind(
        **network(args.rays, args.depth, args.base, not args.no_batch_norm, grid, anisotropy),
        train_patch_size=tuple(args.patch[-axes:]),
        train_batch_size=args.batch,
        train_foreground_only=0.9,
        train_learning_rate=args.lr,
        train_reduce_lr=None,
        train_checkpoint=None,  # the last weights, not those of the least loss of one small patch
        train_checkpoint_last=None,
        train_checkpoint_epoch=None,
        train_tensorboard=False,
        train_n_val_patches=1,
    )
    model = of(config, name=NAME, basedir=str(args.model))
    model.prepare_for_training()
    clock = Clock(args.seconds, args.lr)
    model.callbacks.append(clock)
    part = tuple(
        slice(0, max(least, side))
        for least, side in zip(VALIDATION[-axes:], args.patch[-axes:], strict=True)
    )
    model.train(
        images,
        labels,
        validation_data=([images[0][part]], [labels[0][part]]),
        augmenter=flipped,
        epochs=1000,
        steps_per_epoch=50,
    )
    model.keras_model.save_weights(str(Path(args.model) / NAME / "weights_best.h5"))
    print(f"{clock.steps} steps in {clock.spent:.1f} s of processor time", flush=True)


def tune(model: StarDist2D | StarDist3D, images: list[Array], labels: list[Array]) -> None:
    """Keeps the two thresholds with the best mean F1 at IoU .5.

    What `optimize_thresholds` does, in a few minutes: suppression goes from the most probable
    object down, so that one at the least threshold holds the result of each higher one.
    """
    best: dict[str, float] = {"f1": -1.0}
    found = [
        model.predict_sparse(image, prob_thresh=LEAST, n_tiles=tiles(image)) for image in images
    ]
    for nms in (0.3, 0.5):
        candidates = [
            model._instances_from_prediction(
                image.shape, prob, dist, points=points, prob_thresh=LEAST, nms_thresh=nms
            )
            for image, (prob, dist, points) in zip(images, found, strict=True)
        ]
        for least in np.arange(LEAST, 0.91, 0.05).round(2):
            f1 = np.mean(
                [
                    matching(truth, instances * above(instances, details, least), thresh=0.5).f1
                    for truth, (instances, details) in zip(labels, candidates, strict=True)
                ]
            )
            print(f"nms {nms:g}, prob {least:g}: F1 {f1:.3f}", flush=True)
            if f1 > best["f1"]:
                best = {"prob": float(least), "nms": nms, "f1": float(f1)}
    thresholds = {key: best[key] for key in ("prob", "nms")}
    (Path(model.logdir) / "thresholds.json").write_text(json.dumps(thresholds))


def above(instances: Array, details: dict[str, Array], least: float) -> Array:
    """bool, of the shape of the instances: voxels of objects that are at least so probable."""
    best = np.zeros(int(instances.max()) + 1)
    middle = instances[tuple(np.asarray(details["points"], int).T)]
    np.maximum.at(best, middle, np.asarray(details["prob"], float))
    return best[instances] >= least


class Clock(keras.callbacks.Callback):
    """Lowers the rate along a cosine, after a warm-up, and stops when the time is over."""

    def __init__(self, seconds: float, lr: float) -> None:
        super().__init__()
        self.seconds, self.lr = seconds, lr
        self.start, self.steps, self.spent = time.process_time(), 0, 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the rate."""
        share = min(1.0, self.spent / self.seconds)
        rate = self.lr * min(1.0, (self.steps + 1) / 20) * 0.5 * (1 + math.cos(math.pi * share))
        keras.backend.set_value(self.model.optimizer.learning_rate, rate)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Reads the clock."""
        self.steps += 1
        self.spent = time.process_time() - self.start
        if self.spent >= self.seconds:
            self.model.stop_training = True


def flipped(image: Array, labels: Array) -> tuple[Array, Array]:
    """Flips along each axis, quarter turns in the plane, and a little brightness."""
    for axis in range(image.ndim):
        if RANDOM.random() < 0.5:
            image, labels = np.flip(image, axis), np.flip(labels, axis)
    if image.shape[-2] == image.shape[-1] and RANDOM.random() < 0.5:
        image, labels = np.swapaxes(image, -2, -1), np.swapaxes(labels, -2, -1)
    return image * RANDOM.uniform(0.97, 1.03), labels


if __name__ == "__main__":
    main()
