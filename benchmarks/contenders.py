"""What labels slices in the benchmarks of prediction: our networks, and plain torchvision.

Without a checkpoint a network of ours has random weights and finds nothing, so that its times lack
mask head, pasting and linking; torchvision's, random too, draws its 100 masks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy import ndimage as ndi
from torchvision.models.detection import maskrcnn_resnet50_fpn

from isgseg.config import CONFIG_DIR
from isgseg.data.normalization import Normalization
from isgseg.hardware import pick_device
from isgseg.inference.predictor import Predictor
from isgseg.io.volumes import Volume
from isgseg.models.checkpoint import read_checkpoint, state_dict
from isgseg.models.mask_rcnn import build_mask_rcnn
from isgseg.models.settings import TrainingMetadata

Array = npt.NDArray[Any]
Contender = Callable[[Array], Array]
BASELINE = "baseline"
MODELS = {"default": "resnet50", "light": "resnet10"}
CONTENDERS = (BASELINE, *(f"{model} {path}" for model in MODELS for path in ("plain", "fast")))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose contenders."""
    for name in (BASELINE, *MODELS):
        parser.add_argument(f"--{name}", metavar="FILE.pth", help="checkpoint")
    parser.add_argument("--seed", type=int, default=1000, help="of the synthetic cell")
    parser.add_argument("--device")
    parser.add_argument("--precision", default="auto", help="of ours; the baseline has fp32")


def predictor_of(name: str, args: argparse.Namespace, fast: bool = True) -> Predictor:
    """The predictor of a checkpoint, or a random one of `conf/model/` that finds nothing."""
    settings: Any = {"precision": args.precision, "fast": fast, "progress": False}
    checkpoint = getattr(args, name)
    if checkpoint:
        return Predictor.from_checkpoint(checkpoint, device=args.device, **settings)
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        config = compose("train", [f"model={MODELS[name]}"]).model.network
    torch.manual_seed(0)
    network = build_mask_rcnn(**OmegaConf.to_object(config)).eval().to(pick_device(args.device))
    torch.nn.init.constant_(network.roi_heads.box_predictor.cls_score.bias[:1], 100)
    metadata = TrainingMetadata(normalization=Normalization("mode"))
    return Predictor.from_network(network, metadata, **settings)


def contender(name: str, args: argparse.Namespace, whole: Array | None = None) -> Contender:
    """What labels slices, by its name of CONTENDERS.

    Args:
        name: of it.
        args: of `add_options`.
        whole: the volume that slices come from, of which the normalization is fixed beforehand, as
            it is once for a cell of hundreds of slices; None: it is fixed anew each time.
    """
    if name == BASELINE:
        return baseline(args.baseline, pick_device(args.device))
    model, path = name.split()
    predictor = predictor_of(model, args, path == "fast")
    if whole is None:
        return lambda volume: predictor.segment(Volume(volume, None), name).labels
    normalizer = predictor.normalizer(Volume(whole, None))
    return lambda part: predictor.method.segment(Volume(part, None), normalizer, name).labels


def baseline(checkpoint: str | None, device: torch.device) -> Contender:
    """Plain torchvision: 800 pixels, fp32, 100 detections, a slice at a time, joined masks."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    if checkpoint:
        model.load_state_dict(state_dict(read_checkpoint(checkpoint), checkpoint))
    model.eval().to(device)
    normalizer = Normalization("slice").fit(np.zeros((1, 1, 1)))

    def label(volume: Array) -> Array:
        labels = np.zeros(volume.shape, np.uint32)
        for z, slice_ in enumerate(volume):
            image = torch.from_numpy(normalizer(slice_)).to(device).float().div(255)
            with torch.no_grad():
                found = model([image.expand(3, -1, -1)])[0]
            masks = found["masks"][found["scores"] >= 0.5, 0] >= 0.5
            components, _ = ndi.label(masks.any(0).cpu().numpy(), np.ones((3, 3)))
            labels[z] = np.where(components > 0, components + labels.max(), 0)
        return labels

    return label
