"""What a GPU reaches: whole cells labelled with reading and writing, and steps of training.

Run `python benchmarks/gpu.py --light LIGHT.pth --default DEFAULT.pth --output
benchmarks/results/gpu.json` on a machine with CUDA: under 8 minutes on an H200 with 16 cores. A
network without a checkpoint is random and finds nothing, see `contenders`.
`--shape 8 96 96 --compared 4 --patches 4 --rounds 1` is a quick try, on a CPU too. Where the time
goes, the kernels launched and the waits for the GPU are printed, and kept among the details.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import MODELS, Array, add_options, predictor_of
from launches import launches
from peaks import add_peaks
from predict_parts import one_after_the_other, time_of_parts
from record import Result, add_output
from train import WARM, config, ours, phantom, plain_loop, precision_of, step_parts

from isgseg.config import quiet_lightning
from isgseg.evaluation.matching import match_instances
from isgseg.hardware import pick_device
from isgseg.io.volumes import Volume, read_volume, write_volume
from isgseg.phantom import make_phantom

CELL = (473, 486, 473)  # (z, y, x) voxels
TILE = 64  # slices of a phantom that a cell is made of, there and back: to make one takes longer
TARGETS = {"light": 200, "default": 150}  # slices a second


def main() -> None:
    """Predicts, compares with the CPU, and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--shape", type=int, nargs=3, default=CELL, help="of the cell, voxels")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compared", type=int, default=24, help="slices that the CPU labels too")
    parser.add_argument("--patches", type=int, default=320, help="of training, in a round")
    add_output(parser)
    args = parser.parse_args()
    device = pick_device(args.device)
    cuda = device.type == "cuda"
    result = Result(f"Prediction and training on {'a GPU' if cuda else 'a CPU'}", [args.seed])
    depth, *field = args.shape
    slab = make_phantom(args.seed, shape=(min(depth, TILE), *field)).volume
    cell = np.pad(slab, [(0, depth - len(slab)), (0, 0), (0, 0)], "symmetric")
    with tempfile.TemporaryDirectory() as folder:
        file = write_volume(Path(folder) / "cell.mrc", cell, (33.4,) * 3)
        for name in MODELS:
            kind = name if getattr(args, name) else f"{name} (random weights)"
            rate = slices_a_second(name, args, file)
            result.details[name] = stages(name, args, slab[: args.compared])
            target = f">= {TARGETS[name]}" if cuda else None
            result.add(
                "speed", f"{kind}: whole cell with reading and writing", rate, "slices/s", target
            )
            if cuda and getattr(args, name):
                f1 = against_cpu(name, args, file)
                result.add("quality", f"{kind}: F1 of CUDA against the CPU", f1, target=">= 0.99")
        rates, step = training(args, folder)
    result.details["training step"] = step
    for name, rate in rates.items():
        target = ">= 400" if cuda and name == "ours" else None
        result.add("speed", f"training, light, {name}: patches a second", rate, "", target)
    ratio = rates["ours"] / rates["plain loop"]
    result.add(
        "speed", "training, light, against the plain loop", ratio, "", ">= 1" if cuda else None
    )
    add_peaks(result, device, "bf16-mixed")
    result.details["memory of the GPU, GB"] = torch.cuda.max_memory_allocated() / 1e9 if cuda else 0
    result.write(args.output)


def slices_a_second(name: str, args: argparse.Namespace, file: Path) -> float:
    """Of a network on a file, from reading it to its labels in a file; the best round."""
    predictor = predictor_of(name, args)
    seconds = []
    for _ in range(args.rounds + 1):  # the first is slow: memory, kernels
        start = time.perf_counter()
        volume = read_volume(file)
        labels = predictor.segment(volume, "the cell").labels
        write_volume(file.with_name("labels.tif"), np.asarray(labels), volume.voxel_size)
        seconds.append(time.perf_counter() - start)
        file.with_name("labels.tif").unlink()
    return len(labels) / min(seconds[1:])


def stages(name: str, args: argparse.Namespace, volume: Array) -> dict[str, Any]:
    """Where the time goes: seconds a slice, one stage after the other, and what is launched."""
    predictor = predictor_of(name, args)
    part = Volume(volume, None)
    predictor.segment(part, name)  # what happens once only
    seconds = time_of_parts(predictor, volume)
    print("\n".join(f"  {stage:30} {1e3 * value:8.3f} ms" for stage, value in seconds.items()))
    with one_after_the_other():
        asked = launches(lambda: predictor.segment(part, name))
    print(f"  {len(volume)} slices: {asked}")
    return {"seconds a slice": seconds, f"launches, {len(volume)} slices": asked}


def against_cpu(name: str, args: argparse.Namespace, file: Path) -> float:
    """F1 between the labels of both devices, of the first slices."""
    volume = read_volume(file)
    part = Volume(volume.data[: args.compared], volume.voxel_size)
    labels = []
    for device in (args.device, "cpu"):
        options = argparse.Namespace(**{**vars(args), "device": device, "precision": "bf16-mixed"})
        labels.append(
            np.asarray(predictor_of(name, options).segment(part, device or "CUDA").labels)
        )
    return match_instances(*labels).f1


def training(
    args: argparse.Namespace, folder: str
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Patches a second of the light network's recipe, by isgseg-train and by the plain loop.

    And where a step's time goes: seconds, and what is launched.
    """
    quiet_lightning()
    depth = max(96, 2 * args.patches // 3)  # of two slices one is cut, into up to four patches
    cfg = config(
        "train",
        f"data.root={phantom(folder, (depth, *args.shape[1:]))}",
        f"paths.output_dir={folder}",
        "experiment=quickstart",
        "trainer.limit_val_batches=0",
        "trainer.max_epochs=1",
        "trainer.enable_progress_bar=false",
    )
    cfg.data.num_workers = 8 if pick_device(args.device).type == "cuda" else 0
    steps = max(2, args.patches // cfg.data.batch_size)
    cfg.trainer.limit_train_batches = steps + WARM
    rates: dict[str, list[float]] = {"ours": [], "plain loop": []}
    for _ in range(args.rounds):
        rates["ours"].append(ours(cfg))
        rates["plain loop"].append(plain_loop(cfg, precision_of(cfg)))
    seconds, asked = step_parts(cfg, min(steps, 20))
    print("\n".join(f"  {part:30} {1e3 * value:8.3f} ms" for part, value in seconds.items()))
    print(f"  a step: {asked}")
    medians = {name: statistics.median(each) for name, each in rates.items()}
    return medians, {"seconds": seconds, "launches": asked}


if __name__ == "__main__":
    main()
