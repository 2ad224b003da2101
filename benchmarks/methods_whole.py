"""What prediction of a whole cell costs, by `benchmarks/methods.py ROW --whole`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from methods_cost import kept
from methods_rows import ROWS, Data, Isgseg
from methods_table import WHOLE

from isgseg.io.volumes import read_volume, write_volume


def whole_cell(args: argparse.Namespace, data: Data, name: str) -> dict[str, Any] | None:
    """Time and memory of a method of isgseg on a volume as large as a whole cell.

    Returns:
        `wall` and `processor`, s; `memory`, MB, the peak of the process; `slices`; `threads`. None:
        a peer, or a row without a network yet.
    """
    row, home = ROWS[name], args.folder / "runs" / name
    if not (isinstance(row, Isgseg) and (home / "train.json").is_file()):
        return None
    model = Path(json.loads((home / "train.json").read_text())["model"])
    volume = mirrored(data.test[0], args.folder / "whole" / "cell.mrc")

    def measure() -> dict[str, Any]:
        cost = row.label(args, data, model, [volume], args.folder / "whole" / name)
        return {**cost._asdict(), "slices": WHOLE, "threads": args.threads}

    return kept(args.folder / "whole" / f"{name}.json", measure)


def mirrored(source: Path, path: Path) -> Path:
    """A volume of `WHOLE` slices: a slab, mirrored at its ends again and again."""
    if not path.is_file():
        slab = read_volume(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = np.pad(slab.data, [(0, WHOLE - len(slab.data)), (0, 0), (0, 0)], "symmetric")
        write_volume(path, data, slab.voxel_size)
    return path
