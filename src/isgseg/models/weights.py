"""Where a network's first weights come from."""

from __future__ import annotations

import logging
from urllib.error import URLError

from torch import nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from isgseg.errors import InputError
from isgseg.models.archive import check_tensor, read_checkpoint
from isgseg.models.checkpoint import migrate, state_dict
from isgseg.models.locate import SHIPPED, UNSEEN, named_weights
from isgseg.models.methods import method_of, require_method

log = logging.getLogger(__name__)


def initialize(network: nn.Module, weights: str, method: str = "mask_rcnn") -> None:
    """Copies initial weights into a network, layer by layer where name and shape agree.

    Args:
        network: changed in place.
        weights: `coco` for torchvision's, which are downloaded once, `phantom` for the network
            that comes with isgseg, or a file.
        method: of the network.

    Raises:
        InputError: there is no such file, `coco` cannot be downloaded, the file is of another
            method, or no layer of it fits.
    """
    if weights == "coco":
        try:
            source = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict(check_hash=True)
        except (URLError, OSError) as error:
            raise InputError(
                f"model.weights=coco could not be downloaded ({error}); set model.weights=null to "
                "start from random weights, or model.weights=FILE for a local checkpoint"
            ) from error
    else:
        path = named_weights(weights, method)
        if weights == SHIPPED:
            log.info(UNSEEN)
        content = migrate(read_checkpoint(path))
        source = state_dict(content, path)
        if content.get("hyper_parameters") is not None:
            require_method(method_of(content["hyper_parameters"], path), method, path)
        for name, value in source.items():
            check_tensor(path, name, value)
    own = network.state_dict()
    fits = {
        name: value
        for name, value in source.items()
        if name in own and own[name].shape == value.shape
    }
    if not fits:
        raise InputError(
            f"model.weights={weights}: none of its layers fits the network; choose the model that "
            "it was trained with, or model.network=null"
        )
    network.load_state_dict(fits, strict=False)
    log.info("%s: %d of the network's %d tensors loaded", weights, len(fits), len(own))
    left = sorted({name.rsplit(".", 1)[0] for name in own.keys() - fits.keys()})
    if left:
        log.info("Left at random: %s", ", ".join(left[:12]) + (" ..." if len(left) > 12 else ""))
