"""isgseg-doctor: what the labels of a dataset say, and the network that suits them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from isgseg.command import command
from isgseg.config import checked
from isgseg.errors import InputError

if TYPE_CHECKING:
    from isgseg.analysis.figures import RGB
    from isgseg.data.audit import Inspection

log = logging.getLogger(__name__)
EXPERIMENT = """# @package _global_
# isgseg-train --config-dir {folder} experiment=doctor data.root={root}
# With the model= that the doctor was given: it changes nothing else of the network.
model:
  network:
"""


def doctor(cfg: DictConfig) -> dict[str, Any]:
    """Writes `doctor.json`, `doctor.png` and `experiment/doctor.yaml`; returns the first's content.

    Args:
        cfg: `conf/doctor.yaml`.

    Raises:
        InputError: a bad dataset, or a setting out of range; the message says which.
    """
    from isgseg.analysis import labels
    from isgseg.analysis.label_figure import labels_figure
    from isgseg.data.audit import inspect
    from isgseg.io.atomic import replacing
    from isgseg.models import anchors

    cfg = checked("doctor", cfg)
    if cfg.model.network is None:
        raise InputError("model.network=null: choose a model= of conf/model, such as resnet50")
    network: Any = OmegaConf.to_object(cfg.model.network)
    if "anchor_sizes" not in network:
        raise InputError(
            "this model has no anchors, whose sizes isgseg-doctor suggests; leave model= out: what "
            "it says of the labels holds for every network"
        )
    found = inspect(cfg.data.root, cfg.ring, cfg.progress)
    objects, images = found.objects, found.images
    boxes = objects[["x0", "y0", "x1", "y1"]].to_numpy()
    sizes = objects[["height", "width"]].to_numpy()
    objects["fits"] = anchors.best_iou(boxes, sizes, network) >= cfg.iou
    options = anchors.candidates(boxes, sizes, network, cfg.scales, cfg.iou)
    chosen = anchors.choose(options, cfg.coverage)
    limits = labels.recommend_limits(images)
    objects["chosen"] = anchors.best_iou(boxes, sizes, {**network, **chosen.network()}) >= cfg.iou
    shortest = int(images[["height", "width"]].to_numpy().min())
    report = {
        "root": str(cfg.data.root),
        "splits": {
            name: labels.summary(
                objects[objects["split"] == name],
                images[images["split"] == name],
                dataset.vanished,
            )
            for name, dataset in found.splits.items()
        },
        "unlinked": found.unlinked,
        "network": network,
        "candidates": [vars(option) for option in options],
        "recommended": {**chosen.network(), **limits},
        "crop": labels.recommend_crop(chosen.scale, objects["side"].max(), shortest),
    }
    folder = Path(cfg.output_dir)
    figure = folder / "doctor.png"
    labels_figure(objects, images, report, cfg.coverage, draw_crowded(found), figure)
    with replacing(folder / "doctor.json") as beside:
        beside.write_text(json.dumps(report, indent=2) + "\n")
    with replacing(folder / "experiment" / "doctor.yaml") as beside:
        beside.write_text(experiment(report, folder))
    tell(report, cfg)
    return report


def experiment(report: dict[str, Any], folder: Path) -> str:
    """The recommended network as an experiment file for isgseg-train."""
    head = EXPERIMENT.format(folder=folder, root=report["root"])
    keys = (f"    {key}: {json.dumps(value)}\n" for key, value in report["recommended"].items())
    return head + "".join(keys)


def tell(report: dict[str, Any], cfg: DictConfig) -> None:
    """Logs what the report says, and warns of what will go wrong in training."""
    from isgseg.analysis.labels import candidate_table, split_table

    network, splits, advice = report["network"], report["splits"], report["recommended"]
    log.info("%s:\n%s", report["root"], split_table(splits, report["unlinked"]))
    log.info("networks, the cheapest first:\n%s", candidate_table(report["candidates"]))
    most = max(split["most_objects"] for split in splits.values())
    for key in ("detections", "proposals"):
        if most > network[key]:
            log.warning(
                "an image has %d objects, but model.network.%s=%d; give more",
                most,
                key,
                network[key],
            )
    best = max(candidate["coverage"] for candidate in report["candidates"])
    if best < cfg.coverage:
        log.warning(
            "no network compared reaches coverage=%g; the best is recommended. Larger scales= or "
            "more anchor sizes on each level of model= may",
            cfg.coverage,
        )
    crop = "keep whole patches" if report["crop"] is None else f"data.augment.crop={report['crop']}"
    log.info("recommended: %s; %s", ", ".join(f"{k} {v}" for k, v in advice.items()), crop)
    log.info("In %s: doctor.json, doctor.png and experiment/doctor.yaml, for", cfg.output_dir)
    log.info("isgseg-train --config-dir %s experiment=doctor", cfg.output_dir)


def draw_crowded(found: Inspection) -> RGB:
    """The image with most objects: green where an anchor fits, magenta where none does."""
    from isgseg.analysis.figures import overlay
    from isgseg.data.coco import middle

    crowded = found.images.iloc[int(found.images["objects"].argmax())]
    split, index = crowded["split"], crowded["image"]
    here = (found.objects["split"] == split) & (found.objects["image"] == index)
    fits = found.objects.loc[here, "fits"].to_numpy()
    image, target = found.splits[split][index]
    masks = target["masks"].numpy()
    return overlay(middle(image).numpy(), masks[fits], masks[~fits])


@command("doctor")
def main(cfg: DictConfig) -> None:
    """Console script."""
    doctor(cfg)


if __name__ == "__main__":
    main()
