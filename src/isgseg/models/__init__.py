"""The Mask R-CNN: the network, its training as a LightningModule, checkpoints, COCO scores."""
