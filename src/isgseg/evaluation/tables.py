"""Scores of a split as text."""

from __future__ import annotations

from typing import Any

ROWS = (("map", "mAP@[.50:.95]"), ("map_50", "mAP@.50"), ("map_75", "mAP@.75"), ("mar", "recall"))


def table(scores: dict[str, float]) -> str:
    """The scores as text: boxes and masks, with COCO's maximum of 100 detections and without."""
    lines = [f"{'':16}{'box':>8}{'mask':>8}{'box':>10}{'mask':>8}"]
    lines.append(f"{'':16}{'(100 detections)':>16}{'(all)':>18}")
    for name, title in ROWS:
        capped = "mar_100" if name == "mar" else name
        numbers = [scores[f"{kind}_{capped}"] for kind in ("bbox", "segm")]
        numbers += [scores[f"{kind}_{name}_uncapped"] for kind in ("bbox", "segm")]
        box, mask, box_all, mask_all = (f"{number:.3f}" for number in numbers)
        lines.append(f"{title:16}{box:>8}{mask:>8}{box_all:>10}{mask_all:>8}")
    return "\n".join(lines)


def diameter_table(sizes: list[dict[str, Any]], unit: str) -> str:
    """The scores by diameter as text."""
    lines = [f"{unit:16}{'objects':>8}{'mAP':>8}{'mAP@.50':>8}{'recall':>8}"]
    for row in sizes:
        name = f"{row['from']:.3g} to {row['to']:.3g}" if row["to"] else f"over {row['from']:.3g}"
        numbers = "".join(f"{row[key]:8.3f}" for key in ("map", "map_50", "recall"))
        lines.append(f"{name:16}{row['objects']:8}{numbers}")
    return "\n".join(lines)


def point_table(points: dict[str, dict[str, float]]) -> str:
    """The operating points as text."""
    keys = (
        "threshold",
        "mask_threshold",
        "precision",
        "recall",
        "f1",
        "detections",
        "ground_truths",
    )
    titles = ("score", "mask", "prec.", "recall", "F1", "found", "true")
    lines = [f"{'thresholds':16}" + "".join(f"{title:>8}" for title in titles)]
    for name, point in points.items():
        numbers = (f"{point[key]:8.3f}" if key in keys[:5] else f"{point[key]:8}" for key in keys)
        lines.append(f"{name:16}{''.join(numbers)}")
    return "\n".join(lines)
