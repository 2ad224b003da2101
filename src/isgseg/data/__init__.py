"""From labelled volumes to batches: patches on disk, a COCO dataset, transforms, a DataModule."""
