"""The review of labels that are on the disk: doubts in their table, and a sheet of the gravest."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd

from isgseg.analysis.contact_sheet import contact_sheet
from isgseg.analysis.granules import write_table
from isgseg.analysis.review import COLUMNS, Usual, review_offered, review_table
from isgseg.inference.outputs import Outputs
from isgseg.instances.parts import joined
from isgseg.io.volumes import read_labels, read_volume, stem

log = logging.getLogger(__name__)


def sheet_path(outputs: Outputs) -> Path:
    """`<stem>_review.png` beside the table."""
    return outputs.table.with_name(f"{stem(outputs.labels).removesuffix('_labels')}_review.png")


def write_review(outputs: Outputs, volume: Path) -> Path:
    """Adds `suspicion` and `reason` to the tables, and writes the contact sheet.

    Granules and candidates are ranked together. What is there already is kept.

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
    threshold = (outputs.former() or {}).get("thresholds", {}).get("object")
    labels = read_labels(outputs.labels, check=False)
    table = _doubted(table, review_table(labels.data, table, threshold))
    both, shown = table, labels.data
    image, csv = outputs.candidates
    if image.exists() and csv.exists():
        others, rows = read_labels(image, check=False).data, pd.read_csv(csv)
        usual = Usual.of(table) if len(table) else None
        rows = _doubted(rows, review_offered(others, rows, threshold, usual))
        write_table(csv, rows)
        both, shown = pd.concat([table, rows]) if len(rows) else table, joined(shown, others)
    else:
        log.info(
            "%s: the review has no candidates below the threshold, since the labels were made "
            "without review=true; overwrite=true makes them again",
            volume,
        )
    contact_sheet(read_volume(volume).data, shown, both, sheet, labels.voxel_size)
    write_table(outputs.table, table)
    log.info("%s: the most doubtful granules are in %s", volume, sheet)
    return sheet


def _doubted(table: pd.DataFrame, doubts: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=list(COLUMNS), errors="ignore").join(doubts, on="label")
