"""Cellpose 3 (Stringer et al. 2021) from random weights: trained until a clock stops it, and used.

    python run_cellpose.py train --images a.npy b.npy --labels a_labels.npy b_labels.npy \
        --model FOLDER --seconds 960
    python run_cellpose.py tune --images val.npy --labels val_labels.npy --model FOLDER
    python run_cellpose.py predict --images cell.npy --model FOLDER --output FOLDER

Volumes are `.npy`, (z, y, x). The environment is that of `requirements.txt`. Cellpose 4 is left
out: it fine-tunes published weights, and has no smaller network.
The network learns slices. Masks of slices are stitched, or flows along the three axes are averaged
(`do_3D`): tuning takes what has the higher F1, and the threshold of cell probability. Augmentation,
loss, dynamics and stitching are Cellpose's own. What differs from its defaults, for granules of 5
to 13 pixels and few minutes: images keep their size (`--diameter 9` enlarges them 1.7 times, and a
slice takes three times as long; Cellpose's 30 takes thirty times as long), half of the channels,
small crops around objects, a slice in one tile, and a rate that falls to zero at the end of the
clock.
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
from cellpose import dynamics, metrics, models, train, transforms, utils
from cellpose.resnet_torch import CPnet

Array = npt.NDArray[Any]
WAYS = [*({"stitch_threshold": share} for share in (0.1, 0.25, 0.5)), {"do_3D": True}]
PROBABILITIES = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0)  # logits
TILE = 1024  # pixels: a slice in one, where Cellpose's 224 take nine that overlap
CPU = torch.device("cpu")


class Network(CPnet):
    """Cellpose's, with 256 numbers of style, as its prediction expects; those added are 0."""

    def forward(self, data: torch.Tensor) -> tuple[Any, ...]:
        """Flows and the logit of cell probability, style, and features."""
        flows, style, features = super().forward(data)
        return flows, torch.nn.functional.pad(style, (0, 256 - style.shape[1])), features


def main() -> None:
    """Trains, tunes or predicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["train", "tune", "predict"])
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, nargs="+", default=[])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="folder of the labels")
    parser.add_argument("--seconds", type=float, default=960, help="of processor time, to train")
    parser.add_argument("--diameter", type=float, help="that objects get; none: their own")
    parser.add_argument("--width", type=int, default=16, help="channels of the first level")
    parser.add_argument("--crop", type=int, default=128, help="pixels, enlarged")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.005, help="Cellpose's own")
    parser.add_argument("--every", type=int, default=2, help="slices from one to the next")
    parser.add_argument("--flat", action="store_true", help="tune without flows of three axes")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1)
    images = [normalized(np.load(path)) for path in args.images]
    labels = [np.load(path).astype(np.int32) for path in args.labels]
    weights, settings = args.model / "weights.pth", args.model / "settings.json"
    if args.step == "train":
        args.model.mkdir(parents=True, exist_ok=True)
        torch.save(learn(args, images, labels).state_dict(), weights)
    elif args.step == "tune":
        settings.write_text(json.dumps(tune(segmenter(weights), images, labels, args.flat)))
    else:
        model, way = segmenter(weights), json.loads(settings.read_text())
        args.output.mkdir(parents=True, exist_ok=True)
        for path, image in zip(args.images, images, strict=True):
            found = instances(model, flows(model, image, "do_3D" in way), way)
            np.save(args.output / path.name, found.astype(np.uint32))


def normalized(volume: Array) -> Array:
    """float32 from percentile 1 to 99 of the volume, as Cellpose normalizes."""
    low, high = np.percentile(volume, [1, 99])
    return ((volume - low) / (high - low)).astype(np.float32)


def network(width: int = 16) -> Network:
    """With random weights; the second channel is that of nuclei, and empty, as in "cyto"."""
    return Network([2, width, 2 * width, 4 * width, 8 * width], 3, sz=3)


def segmenter(weights: Path) -> models.CellposeModel:
    """Cellpose's own around a trained network."""
    state = torch.load(weights, weights_only=True)
    model = models.CellposeModel(gpu=False)
    model.net = network(int(state["output.2.weight"].shape[1]))
    model.net.load_state_dict(state)
    model.diam_mean, model.diam_labels = (
        float(state[name]) for name in ("diam_mean", "diam_labels")
    )
    model.net_ortho = None
    return model


def learn(args: argparse.Namespace, images: list[Array], labels: list[Array]) -> Network:
    """Trains for so many seconds of processor time; the flows of labels stand outside of them."""
    slices, targets, diameter = examples(images, labels, args.every)
    torch.manual_seed(0)
    net = network(args.width)
    net.diam_mean.data.fill_(args.diameter or diameter)
    net.diam_labels.data.fill_(diameter)
    shrink = diameter / net.diam_mean.item()
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=1e-5)
    np.random.seed(0)  # noqa: NPY002 - Cellpose draws from it
    random, steps, spent = np.random.default_rng(0), 0, 0.0
    start = time.process_time()
    while spent < args.seconds:
        for group in optimizer.param_groups:
            falling = 0.5 * (1 + math.cos(math.pi * spent / args.seconds))
            group["lr"] = args.lr * min(1.0, (steps + 1) / 20) * falling
        chosen = random.integers(len(slices), size=args.batch)
        parts = [around(targets[index][0], 1.5 * args.crop * shrink, random) for index in chosen]
        crops, truth = transforms.random_rotate_and_resize(
            [slices[index][part] for index, part in zip(chosen, parts, strict=True)],
            Y=[targets[index][part] for index, part in zip(chosen, parts, strict=True)],
            rescale=np.full(args.batch, shrink),
            scale_range=0.5,
            xy=(args.crop, args.crop),
        )[:2]
        crops = np.pad(crops, ((0, 0), (0, 1), (0, 0), (0, 0)))
        loss = train._loss_fn_seg(truth, net(torch.from_numpy(crops))[0], CPU)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps, spent = steps + 1, time.process_time() - start
        if steps % 50 == 0:
            print(f"step {steps}, loss {loss.item():.4f}", flush=True)
    print(f"{steps} steps in {spent:.1f} s of processor time", flush=True)
    return net


def examples(
    images: list[Array], labels: list[Array], every: int
) -> tuple[list[Array], list[Array], float]:
    """Slices (1, y, x) that hold objects, cell and flows of each (3, y, x), the mean diameter."""
    slices, targets, diameters = [], [], []
    for image, truth in zip(images, labels, strict=True):
        for number in range(0, len(image), every):
            if truth[number].any():
                slices.append(image[number][None])
                found = dynamics.labels_to_flows([truth[number].copy()], device=CPU)[0]
                targets.append(found[1:])
                diameters.append(utils.diameters(truth[number])[0])
    return slices, targets, float(np.mean(diameters))


def around(cell: Array, side: float, random: np.random.Generator) -> tuple[Any, ...]:
    """The part of a slice, all channels, with a random pixel of an object in its middle."""
    pixels = np.argwhere(cell)
    starts = np.maximum(0, pixels[random.integers(len(pixels))] - round(side / 2))
    return (..., *(slice(start, start + math.ceil(side)) for start in starts))


def flows(model: models.CellposeModel, image: Array, in_3d: bool) -> tuple[Array, Array]:
    """Flows (2 or 3, z, y, x) and logits of cell probability (z, y, x), of the image's own size."""
    rescale = model.diam_mean / model.diam_labels
    channels = np.stack([image, np.zeros_like(image)], axis=-1)
    return model._run_net(channels, rescale=rescale, do_3D=in_3d, batch_size=1, bsize=TILE)[:2]


def instances(model: models.CellposeModel, maps: tuple[Array, Array], way: dict[str, Any]) -> Array:
    """(z, y, x) labels of one way; the dynamics take 200 steps for objects of 30 pixels."""
    shape = maps[1].shape
    steps = max(20, round(200 * model.diam_labels / 30))
    return np.asarray(model._compute_masks((*shape, 1), *maps, niter=steps, **way)).reshape(shape)


def tune(
    model: models.CellposeModel, images: list[Array], labels: list[Array], flat: bool
) -> dict[str, Any]:
    """The way and the threshold with the best mean F1 at IoU .5; one slice has no third axis."""
    best, kept = -1.0, {}
    for in_3d in (False,) if flat or max(map(len, images)) == 1 else (False, True):
        maps = [flows(model, image, in_3d) for image in images]
        for way in (way for way in WAYS if ("do_3D" in way) == in_3d):
            for least in PROBABILITIES:
                tried = {**way, "cellprob_threshold": least}
                scores = []
                for truth, each in zip(labels, maps, strict=True):
                    found = instances(model, each, tried)
                    _, tp, fp, fn = metrics.average_precision(truth, found, threshold=[0.5])
                    scores.append(float(2 * tp[0] / (2 * tp[0] + fp[0] + fn[0])))
                print(f"{tried}: F1 {np.mean(scores):.3f}", flush=True)
                if np.mean(scores) > best:
                    best, kept = float(np.mean(scores)), tried
    return kept


if __name__ == "__main__":
    main()
