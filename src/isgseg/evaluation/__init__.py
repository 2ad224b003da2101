"""Scores: COCO's, instances of whole volumes, operating thresholds, and outcomes."""
