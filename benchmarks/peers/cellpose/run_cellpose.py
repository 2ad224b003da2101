"""Cellpose 3 (Stringer et al. 2021) from random weights: trained until a clock stops it, and used.

    python run_cellpose.py train --images a.npy b.npy --labels a_labels.npy b_labels.npy \
        --model FOLDER --seconds 960
    python run_cellpose.py tune --images val.npy --labels val_labels.npy --model FOLDER
    python run_cellpose.py predict --images cell.npy --model FOLDER --output FOLDER

Volumes are `.npy`, (z, y, x). The environment is that of `requirements.txt`. Cellpose 4 needs
published weights, and learns nothing without them.

The network learns slices. Masks of slices are stitched, or its flows along three axes are averaged
(`do_3D`): tuning takes what has the higher F1, with the threshold of cell probability. Network,
augmentation, loss, dynamics and stitching are Cellpose's own. What differs from its defaults:
images keep their scale, half the channels, crops of 128 pixels (both: more steps in few minutes),
as many iterations as small granules need, and a rate that falls to zero at the end of the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cellpose import dynamics, metrics, models, train, transforms
from cellpose.resnet_torch import CPnet

Array = npt.NDArray[Any]
CHANNELS = [1, 16, 32, 64, 128]  # half of Cellpose's, after the image's one
CROP = 128  # pixels
ITERATIONS = 50  # of the dynamics: granules are 5 to 13 pixels wide
WAYS = [*({"stitch_threshold": share} for share in (0.1, 0.25, 0.5)), {"do_3D": True}]
PROBABILITIES = (-2.0, -1.0, 0.0, 1.0)  # logits
CPU = torch.device("cpu")


def main() -> None:
    """Trains, tunes or predicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["train", "tune", "predict"])
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, nargs="+", default=[])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="folder of the labels")
    parser.add_argument("--seconds", type=float, default=960, help="of processor time, to train")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.005, help="Cellpose's own")
    parser.add_argument("--every", type=int, default=4, help="slices from one to the next")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1)
    images = [normalized(np.load(path)) for path in args.images]
    labels = [np.load(path).astype(np.int32) for path in args.labels]
    weights, settings = args.model / "weights.pth", args.model / "settings.json"
    if args.step == "train":
        args.model.mkdir(parents=True, exist_ok=True)
        learn(args, images, labels).save_model(str(weights))
        return
    model = segmenter(weights)
    if args.step == "tune":
        settings.write_text(json.dumps(tune(model, images, labels)))
        return
    way = json.loads(settings.read_text())
    args.output.mkdir(parents=True, exist_ok=True)
    for path, image in zip(args.images, images, strict=True):
        maps = flows(model, image, "do_3D" in way)
        np.save(args.output / path.name, instances(model, image, maps, way).astype(np.uint32))


def normalized(volume: Array) -> Array:
    """float32 from percentile 1 to 99 of the volume, as Cellpose normalizes."""
    low, high = np.percentile(volume, [1, 99])
    return ((volume - low) / (high - low)).astype(np.float32)


def network() -> CPnet:
    """With random weights."""
    torch.manual_seed(0)
    return CPnet(CHANNELS, 3, sz=3, mkldnn=False, max_pool=True, diam_mean=30.0)


def segmenter(weights: Path) -> models.CellposeModel:
    """Cellpose's own around a trained network."""
    model = models.CellposeModel(gpu=False, pretrained_model=False, nchan=1)
    model.net = network()
    model.net.load_model(str(weights), device=CPU)
    model.net_ortho = None
    model.net.eval()
    return model


def learn(args: argparse.Namespace, images: list[Array], labels: list[Array]) -> CPnet:
    """Trains for so many seconds of processor time; the flows of labels stand outside of them."""
    slices, targets = [], []
    for image, truth in zip(images, labels, strict=True):
        for number in range(0, len(image), args.every):
            if truth[number].any():
                slices.append(image[number][None])
                targets.append(dynamics.labels_to_flows([truth[number]], device=CPU)[0][1:])
    net = network()
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=1e-5)
    np.random.seed(0)  # noqa: NPY002 - Cellpose draws from it
    random, steps, spent = np.random.default_rng(0), 0, 0.0
    start = time.process_time()
    while spent < args.seconds:
        for group in optimizer.param_groups:
            share = 0.5 * (1 + math.cos(math.pi * spent / args.seconds))
            group["lr"] = args.lr * min(1.0, (steps + 1) / 20) * share
        chosen = random.integers(len(slices), size=args.batch)
        crops, truth = transforms.random_rotate_and_resize(
            [slices[index] for index in chosen],
            Y=[targets[index] for index in chosen],
            scale_range=0.0,
            xy=(CROP, CROP),
        )[:2]
        loss = train._loss_fn_seg(truth, net(torch.from_numpy(crops))[0], CPU)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps, spent = steps + 1, time.process_time() - start
        if steps % 50 == 0:
            print(f"step {steps}, loss {loss.item():.4f}", flush=True)
    print(f"{steps} steps in {spent:.1f} s of processor time", flush=True)
    return net


def flows(model: models.CellposeModel, image: Array, in_3d: bool) -> tuple[Array, Array]:
    """Flows and logits of cell probability."""
    with torch.no_grad():
        return model._run_net(image[..., None], rescale=1.0, do_3D=in_3d, anisotropy=1.0)[:2]


def instances(
    model: models.CellposeModel, image: Array, maps: tuple[Array, Array], way: dict[str, Any]
) -> Array:
    """(z, y, x) labels of one way."""
    return np.asarray(
        model._compute_masks((*image.shape, 1), *maps, niter=ITERATIONS, **way)
    ).squeeze()


def tune(model: models.CellposeModel, images: list[Array], labels: list[Array]) -> dict[str, Any]:
    """The way and the threshold with the best mean F1 at IoU .5."""
    best, kept = -1.0, {}
    for in_3d in (False, True):
        maps = [flows(model, image, in_3d) for image in images]
        for way in (way for way in WAYS if ("do_3D" in way) == in_3d):
            for least in PROBABILITIES:
                tried = {**way, "cellprob_threshold": least}
                scores = []
                for image, truth, each in zip(images, labels, maps, strict=True):
                    found = instances(model, image, each, tried)
                    _, tp, fp, fn = metrics.average_precision(truth, found, threshold=[0.5])
                    scores.append(float(2 * tp[0] / (2 * tp[0] + fp[0] + fn[0])))
                print(f"{tried}: F1 {np.mean(scores):.3f}", flush=True)
                if np.mean(scores) > best:
                    best, kept = float(np.mean(scores)), tried
    return kept


if __name__ == "__main__":
    main()
