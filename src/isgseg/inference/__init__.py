"""From a volume and a checkpoint to numbered granules."""
