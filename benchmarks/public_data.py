"""Segmentation methods on public images of nuclei, in the same minutes, by the same grader.

Each row is a method on a set, measured by a command of its own:

    python benchmarks/public_data.py bbbc050_light --folder KEEP --threads 1
    python benchmarks/public_data.py dsb2018_stardist --folder KEEP --stardist ITS_PYTHON
    python benchmarks/public_data.py all --folder KEEP --threads 1 \
        --output benchmarks/results/public_data.json

`benchmarks/public_sets.py` says what the sets are, and what of them trains, tunes and is scored.
Rows are measured as those of `benchmarks/methods.py`, which explains folder, minutes and peers.
Measure peers last: they get the minutes that isgseg's trainings took.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from methods import measure, merged
from methods_cost import kept
from methods_rows import WEIGHTS, Isgseg, Peer, Row
from methods_table import text
from public_sets import SETS
from record import Result, add_output

MINUTES = {"bbbc050": 4.0, "dsb2018": 3.0}  # of training, processor time
TITLES = {"bbbc050": "BBBC050, nuclei in 3D", "dsb2018": "DSB 2018, small nuclei in 2D"}
PEERS = ("stardist", "log", "cellpose")
COLUMNS = (
    "data",
    "method",
    "F1",
    "F1 at IoU .3",
    "count error",
    "SQ",
    "training, min",
    "steps",
    "s a slice",
)
# What isgseg-doctor suggests for the labels that train: the cheapest network whose anchors fit
# enough of them, and for the smaller nuclei of images that of scale 2, which tuned better.
EMBRYO_NETWORK = (
    "model.network.scale=1",
    "model.network.anchor_sizes=[[2,4,6],[10,14,18],[22,28,34]]",
    "model.network.detections=100",
    "model.network.proposals=400",
)
NUCLEI_NETWORK = (
    "model.network.scale=2",
    "model.network.anchor_density=1",
    "model.network.anchor_sizes=[[5,6,8],[11,14,17],[22,27,35]]",
    "model.network.detections=150",
    "model.network.proposals=600",
)
ALL = ("slices=null",)  # that tune: every image
ROWS: dict[str, Row] = {
    "bbbc050_light": Isgseg(
        "isgseg: Mask R-CNN, light",
        recipe=("experiment=quickstart", *EMBRYO_NETWORK),
        minutes=2.5,
    ),
    "bbbc050_unet": Isgseg("isgseg: U-Net and split", ("experiment=unet",), method="unet"),
    "bbbc050_stardist": Peer(
        "StarDist 3D",
        name="stardist",
        grey=False,
        options=(
            *("--normalize", "percentile", "--anisotropic"),
            *("--grid", "1", "2", "2", "--patch", "24", "96", "96"),
        ),
    ),
    "bbbc050_cellpose": Peer("Cellpose 3", name="cellpose", grey=False, options=("--every=1",)),
    "bbbc050_log": Peer(
        "Laplacian of Gaussian and watershed",
        name="log",
        trains=False,
        options=("--background=0", "--sigmas", "2", "2.5", "3", "3.6", "4.3", "5.2"),
    ),
    "dsb2018_light": Isgseg(
        "isgseg: Mask R-CNN, light",
        ("experiment=quickstart", *NUCLEI_NETWORK),
        tuning=ALL,
    ),
    "dsb2018_unet": Isgseg(
        "isgseg: U-Net and split",
        ("experiment=unet",),
        method="unet",
        tuning=ALL,
    ),
    "dsb2018_shipped": Isgseg(
        "isgseg: Mask R-CNN of the package, for granules, no training",
        weights=WEIGHTS / "isg_mask_rcnn_final.pth",
    ),
    "dsb2018_stardist": Peer(
        "StarDist 2D",
        name="stardist",
        grey=False,
        options=(
            *("--normalize", "percentile", "--depth=3", "--base=32", "--batch=4"),
            *("--grid", "2", "2", "--patch", "128", "128"),
        ),
    ),
    "dsb2018_cellpose": Peer("Cellpose 3", name="cellpose", grey=False, options=("--every=1",)),
    "dsb2018_log": Peer(
        "Laplacian of Gaussian and watershed",
        name="log",
        trains=False,
        options=("--background=0", "--sigmas", "1.8", "2.2", "2.7", "3.3", "4", "4.8"),
    ),
}


def main() -> None:
    """Measures the rows that are asked for and not there, and writes the table of all that are."""
    args = arguments()
    for name in ROWS if "all" in args.rows else args.rows:
        place, done = set_of(name), args.folder / "rows" / f"{name}.json"
        if "all" in args.rows and not done.is_file():
            print(f"{name}: not measured, left out")
            continue
        if done.is_file():
            continue
        own = argparse.Namespace(**vars(args) | {"minutes": minutes(args, name)})
        data = SETS[place](args.folder / "data" / place)
        kept(done, lambda own=own, data=data, name=name: measure(own, data, ROWS[name], name))
    if args.output:
        result = Result("Segmentation methods on public images of nuclei, in the same time", [0])
        rows = merged(args.folder / "rows", args.output)
        fill(result, {name: rows[name] for name in ROWS if name in rows})
        result.write(args.output)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = [*ROWS, "all"]
    parser.add_argument("rows", nargs="+", choices=rows, metavar="ROW", help=", ".join(rows))
    parser.add_argument("--folder", type=Path, required=True, help="keeps everything there")
    parser.add_argument("--minutes", type=float, help=f"of training, processor time: {MINUTES}")
    parser.add_argument("--threads", type=int, default=1)
    for peer in ("stardist", "cellpose"):
        parser.add_argument(f"--{peer}", default=sys.executable, help="a Python that has it")
    add_output(parser)
    args = parser.parse_args(given)
    if args.threads < 1 or (args.minutes is not None and args.minutes <= 0):
        parser.error("--minutes must be above 0, and --threads at least 1")
    args.folder = args.folder.resolve()
    return args


def minutes(args: argparse.Namespace, name: str) -> float:
    """Of the training of a row: those that are asked for.

    Steps of isgseg's networks are set by what short trainings cost, and may take longer. A peer is
    stopped by a clock: it has as long as the longest of isgseg's on the set that is measured.
    """
    asked: float = args.minutes or MINUTES[set_of(name)]
    taken = [asked]
    if isinstance(ROWS[name], Peer):
        for other, row in ROWS.items():
            done = args.folder / "rows" / f"{other}.json"
            if isinstance(row, Isgseg) and set_of(other) == set_of(name) and done.is_file():
                cost = json.loads(done.read_text())["train"]["cost"]
                taken += [cost[1] / 60] if cost else []
    return max(taken)


def set_of(name: str) -> str:
    """The set of a row, by its name."""
    return name.partition("_")[0]


def fill(result: Result, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds rows, their numbers and their table to a result."""
    result.details["rows"] = dict(rows)
    for name, row in rows.items():
        result.add("quality", f"{name.replace('_', ', ')}: F1 at IoU .5", row["scores"]["f1"])
    for place in SETS:
        sides: dict[bool, list[float]] = {True: [], False: []}
        for name, row in rows.items():
            if set_of(name) == place:
                sides[name.removeprefix(f"{place}_") in PEERS].append(row["scores"]["f1"])
        if sides[True] and sides[False]:
            gain = max(sides[False]) - max(sides[True])
            name = f"{place}: F1 of the best of isgseg less the best peer's"
            result.add("quality", name, gain, target=">= 0")
    result.details["methods"] = {
        "caption": "Trained on part of each set, tuned on another, and scored on what is left "
        "(`benchmarks/public_sets.py`). An image counts as a slice.",
        "columns": list(COLUMNS),
        "rows": [line(name, row) for name, row in rows.items()],
    }


def line(name: str, row: Mapping[str, Any]) -> list[str]:
    """A row of the table, as texts."""
    scores, train = row["scores"], row["train"]
    return [
        TITLES[set_of(name)],
        row["title"],
        text(scores["f1"]),
        text(scores["f1_at"]["0.3"]),
        f"{scores['count_error_relative']:+.1%}",
        text(scores["sq"]),
        "none" if train["cost"] is None else f"{train['cost'][1] / 60:.1f}",
        str(train.get("steps") or ""),
        f"{row['predict']['seconds_a_slice']:.3f}",
    ]


if __name__ == "__main__":
    main()
