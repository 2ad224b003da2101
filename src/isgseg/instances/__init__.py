"""From detections to instances: label slices, 3D instances, and scores against ground truth."""
