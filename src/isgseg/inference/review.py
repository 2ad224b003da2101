"""The review of labels that are on the disk: doubts in their table, and a sheet of the gravest."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from isgseg.analysis.contact_sheet import contact_sheet
from isgseg.analysis.granules import write_table
from isgseg.analysis.review import COLUMNS, review_table
from isgseg.inference.outputs import Outputs
from isgseg.io.volumes import read_labels, read_volume, stem

log = logging.getLogger(__name__)


def sheet_path(outputs: Outputs) -> Path:
    """`<stem>_review.png` beside the table."""
    return outputs.table.with_name(f"{stem(outputs.labels).removesuffix('_labels')}_review.png")


def write_review(outputs: Outputs, volume: Path) -> Path:
    """Adds `suspicion` and `reason` to the table, and writes the contact sheet.

    What is there already is kept.

    Args:
        outputs: of isgseg-predict, complete.
        volume: that they are of.

    Returns:
        The contact sheet.

    Raises:
        InputError: a file cannot be read or written.
    """
    sheet = sheet_path(outputs)
    table = pd.read_csv(outputs.table)
    if set(COLUMNS) <= set(table.columns) and sheet.exists():
        return sheet
    former = outputs.former() or {}
    labels = read_labels(outputs.labels, check=False)
    doubts = review_table(labels.data, table, former.get("thresholds", {}).get("object"))
    table = table.drop(columns=list(COLUMNS), errors="ignore").join(doubts, on="label")
    contact_sheet(read_volume(volume).data, labels.data, table, sheet, labels.voxel_size)
    write_table(outputs.table, table)
    log.info("%s: the most doubtful granules are in %s", volume, sheet)
    return sheet
