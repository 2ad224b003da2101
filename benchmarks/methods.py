"""Segmentation methods on the same synthetic cells, in the same minutes, by the same grader.

Each row of the table is a method, measured by a command of its own:

    python benchmarks/methods.py light --folder KEEP --minutes 16 --threads 1
    python benchmarks/methods.py unet log --folder KEEP --minutes 16 --threads 1
    python benchmarks/methods.py all --folder KEEP --minutes 16 --threads 1 \
        --output benchmarks/results/methods.json

`KEEP` holds the cells, the trainings and a file for each row. What is there is not measured again,
so that a command that was stopped goes on, and `all` at the end only writes the result. A row
trains on twelve cells, tunes its thresholds on one more, and is scored on four that nothing has
seen (`isgseg-evaluate predicted=`). Its minutes are of processor time, so that 16 are eight minutes
of two cores and other work on the machine matters little. Making the data and tuning stand outside
of them.

StarDist and Cellpose need environments of their own: make one for each, install
`benchmarks/peers/<name>/requirements.txt`, and give `--stardist PYTHON` and `--cellpose PYTHON`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import methods_rows
from methods_cost import kept, spent
from methods_table import fill
from methods_whole import whole_cell
from record import ROOT, Result, add_output

TRAINING = list(range(12))
VALIDATION = 1000
PARTS = ("real", "whole")  # of a row, measured by themselves
TEST = [2000, 2001, 2002, 2003]


def main() -> None:
    """Measures the rows that are asked for and not there, and writes the table of all that are."""
    args = arguments()
    names = list(methods_rows.ROWS) if "all" in args.rows else args.rows
    data = methods_rows.make_data(args.folder, TRAINING, VALIDATION, TEST)
    for name in names:
        if "all" in args.rows and not (args.folder / "rows" / f"{name}.json").is_file():
            print(f"{name}: not measured, left out")
            continue
        row = methods_rows.ROWS[name]
        kept(
            args.folder / "rows" / f"{name}.json",
            lambda row=row, name=name: measure(args, data, row, name),
        )
    for name in names:
        real_slices(args.folder, name)
        if args.whole:
            whole_cell(args, data, name)
    if args.output:
        result = Result("Segmentation methods on the same cells in the same time", seeds=TEST)
        rows = merged(args.folder / "rows", args.output)
        titles = {name: row.title for name, row in methods_rows.ROWS.items() if name in rows}
        fill(result, {name: rows[name] | {"title": title} for name, title in titles.items()})
        result.write(args.output)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = [*methods_rows.ROWS, "all"]
    parser.add_argument("rows", nargs="+", choices=rows, metavar="ROW", help=", ".join(rows))
    parser.add_argument("--folder", type=Path, required=True, help="keeps everything there")
    parser.add_argument("--minutes", type=float, default=16, help="of training, processor time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="predict a whole cell, too")
    parser.add_argument("--stardist", default=sys.executable, help="a Python that has StarDist")
    parser.add_argument("--cellpose", default=sys.executable, help="a Python that has Cellpose")
    add_output(parser)
    args = parser.parse_args(given)
    if args.minutes <= 0 or args.threads < 1:
        parser.error("--minutes must be above 0, and --threads at least 1")
    args.folder = args.folder.resolve()
    return args


def measure(
    args: argparse.Namespace, data: methods_rows.Data, row: methods_rows.Row, name: str
) -> dict[str, Any]:
    """One row: what it is, scores, and costs of training and prediction."""
    result = Result(name)  # knows the commit
    args = argparse.Namespace(**{**vars(args), "minutes": row.minutes or args.minutes})
    found = row.measure(args, data, args.folder / "runs", name)
    content = result.content()
    where = {key: content[key] for key in ("commit", "date", "machine")}
    print(json.dumps({key: found[key] for key in ("scores", "train", "predict")}, indent=1))
    return {"minutes": args.minutes, "threads": args.threads} | where | found


def real_slices(folder: Path, name: str) -> None:
    """Scores centres on real slices, where a row has a network that takes one slice by itself."""
    from real_slices import default_data  # imports torch

    model = folder / "runs" / name / "train.json"
    row = methods_rows.ROWS[name]
    if not (isinstance(row, methods_rows.Isgseg) and model.is_file() and default_data().is_dir()):
        return
    if row.of:  # the same network
        return
    checkpoint = json.loads(model.read_text())["model"]
    output = folder / "real" / f"{name}_all.json"

    def score() -> dict[str, float]:
        line = [sys.executable, ROOT / "benchmarks" / "real_slices.py", checkpoint]
        spent([*line, f"--output={output}"], output.with_suffix(".log"))
        found = json.loads(output.read_text())["details"]
        recall = found["recall_at_precision_half"]
        return {"f1": found["best"]["f1"], "recall_at_precision_half": recall}

    kept(folder / "real" / f"{name}.json", score)


def merged(folder: Path, output: Path) -> dict[str, dict[str, Any]]:
    """The rows of a result that is there, replaced by those of the folder.

    Real slices and a whole cell stay, where the folder has none.
    """
    rows: dict[str, dict[str, Any]] = {}
    if output.is_file():
        rows |= json.loads(output.read_text())["details"]["rows"]
    for path in sorted(folder.glob("*.json")):
        former = rows.get(path.stem, {})
        rows[path.stem] = json.loads(path.read_text())
        for part in PARTS:
            if part in former:
                rows[path.stem][part] = former[part]
            beside = folder.with_name(part) / path.name
            if beside.is_file():
                rows[path.stem][part] = json.loads(beside.read_text())
    return rows


if __name__ == "__main__":
    main()
