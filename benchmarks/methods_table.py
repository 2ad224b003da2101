"""The tables of `docs/methods.md`, and what of them stands on the page of all benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from record import Result

Rows = Mapping[str, Mapping[str, Any]]
DIAMETERS = ((0, 200), (200, 250), (250, 300), (300, float("inf")))  # nm
SCORES = ("method", "F1", "F1 at IoU .3", "mAP", "SQ", "count error", "splits", "merges")
COSTS = (
    "method",
    "training, min",
    "steps",
    "prediction, s a slice",
    "memory, MB",
    "whole cell, s",
    "its memory, MB",
)
WHOLE = 473  # slices of a whole cell, 486 x 473 pixels each
LABELS = 2 * WHOLE * 486 * 473 / 2**20  # MB of its labels
FRONT = ("the same cells, the same minutes", "F1 in 3D", "count error", "s a slice")
PEERS = ("stardist", "cellpose", "log")
PUBLISHED = {  # rows of the published comparison, and how many parts each method has
    "light": "a network of slices, linked, split by shape",
    "unet": "a network of slices, whose maps are split",
    "unet-blobfit": "a network of slices, balls fitted to its mask",
    "stardist": "a network of volumes, in an environment of its own",
    "cellpose": "a network of slices, whose flows are followed, in an environment of its own",
    "log": "filters and a watershed, nothing is learnt",
}
HOUR = "light-hour"
SECOND = ("unet", "light")  # the second method, and the one that it is held against


def fill(result: Result, rows: Rows) -> None:
    """Adds rows and their numbers to a result."""
    result.details["rows"] = dict(rows)
    for name, row in rows.items():
        target = ">= 0.9" if name == HOUR else None
        result.add("quality", f"{name}: F1 in 3D at IoU .5", row["scores"]["f1"], target=target)
        result.add(
            "speed", f"{name}: processor time a slice", row["predict"]["seconds_a_slice"], "s"
        )
    if HOUR in rows:
        miscount = abs(rows[HOUR]["scores"]["count_error_relative"])
        result.add("quality", f"{HOUR}: count error, without its sign", miscount, target="<= 0.04")
    if set(SECOND) <= rows.keys():
        lack = rows[SECOND[1]]["scores"]["f1"] - rows[SECOND[0]]["scores"]["f1"]
        result.add("quality", "F1 of Mask R-CNN less the U-Net's", lack, target="<= 0.02")
    whole = rows.get(SECOND[0], {}).get("whole", {})
    if whole.get("threads") == 2:
        title = "U-Net, a whole cell on two cores"
        result.add("speed", title, whole["wall"], "s", "<= 60")
        beyond = whole["memory"] - LABELS
        result.add("memory", f"{title}: peak beyond the labels", beyond, "MB", "<= 1500")
    peers = [rows[name] for name in PEERS if name in rows]
    trained = [
        row
        for name, row in rows.items()
        if name not in {*PEERS, HOUR} and row["train"]["cost"] is not None
    ]
    if peers and trained:
        own = max(trained, key=lambda row: row["scores"]["f1"])
        other = max(peers, key=lambda row: row["scores"]["f1"])
        gain = own["scores"]["f1"] - other["scores"]["f1"]
        result.add("quality", "best of isgseg: F1 less the best peer's", gain, target=">= 0")
        ratio = own["predict"]["seconds_a_slice"] / other["predict"]["seconds_a_slice"]
        name = "best of isgseg: time of prediction over the best peer's"
        result.add("speed", name, ratio, target="<= 1")


def section(content: Mapping[str, Any] | None) -> str:
    """The tables as Markdown, of a result file's content; None: not measured yet."""
    if content is None:
        return "Nothing has been measured yet.\n"
    rows = list(content["details"]["rows"].values())
    minutes = sorted({row["minutes"] for row in rows})
    parts = [
        table(SCORES, [score_row(row) for row in rows]),
        table(
            ("F1 at IoU .5, diameter in nm", *map(span, DIAMETERS)),
            [
                [row["title"], *(text(value) for value in f1_by_diameter(row["scores"]))]
                for row in rows
            ],
        ),
        table(COSTS, [cost_row(row) for row in rows]),
        *real_table(rows),
        "Row by row as in the published comparison, with numbers in place of its check marks:\n",
        published_table(content["details"]["rows"]),
        f"Trainings of {' or '.join(f'{value:g}' for value in minutes)} minutes of one core, "
        f"{content['date']}, {content['machine']['cpu']}: `{content['command']}`.\n",
    ]
    return "\n".join(parts)


def real_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Centres on real slices, of the methods that take one; nothing where none was measured."""
    found = [
        [row["title"], text(row["real"]["f1"]), text(row["real"]["recall_at_precision_half"])]
        for row in rows
        if "real" in row
    ]
    columns = ("centres on nine real slices", "best F1", "recall at precision .5")
    return [table(columns, found)] if found else []


def published_table(rows: Rows) -> str:
    """The published comparison's rows, measured; a method that is not there has no column."""
    names = [name for name in PUBLISHED if name in rows]

    def line(title: str, say: Callable[[Mapping[str, Any]], str]) -> list[str]:
        return [title, *(say(rows[name]) for name in names)]

    def separation(row: Mapping[str, Any]) -> str:
        scores = row["scores"]
        return f"F1 {text(scores['f1'])}; {scores['splits']} split, {scores['merges']} merged"

    def speed(row: Mapping[str, Any]) -> str:
        return f"{row['predict']['seconds_a_slice']:.2f} s a slice"

    lines = [
        line("instance separation", separation),
        line("mAP", lambda row: text(row["scores"]["mean_average_precision"])),
        line("speed", speed),
        line("boundary: mean IoU of what is found (SQ)", lambda row: text(row["scores"]["sq"])),
        ["complexity", *(PUBLISHED[name] for name in names)],
    ]
    return table(["", *(rows[name]["title"] for name in names)], lines)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def score_row(row: Mapping[str, Any]) -> list[str]:
    """The scores of a method, as texts."""
    scores = row["scores"]
    return [
        row["title"],
        text(scores["f1"]),
        text(scores["f1_at"]["0.3"]),
        text(scores["mean_average_precision"]),
        text(scores["sq"]),
        f"{scores['count_error_relative']:+.1%}",
        str(scores["splits"]),
        str(scores["merges"]),
    ]


def front_row(row: Mapping[str, Any]) -> list[str]:
    """A method on the front page: what it is, F1 at IoU .5, count error, and time of prediction."""
    scores, seconds = row["scores"], row["predict"]["seconds_a_slice"]
    count_error = f"{scores['count_error_relative']:+.1%}"
    return [row["title"], text(scores["f1"]), count_error, f"{seconds:.2f}"]


def cost_row(row: Mapping[str, Any]) -> list[str]:
    """The costs of a method, as texts."""
    train, predict = row["train"], row["predict"]
    return [
        row["title"],
        "none" if train["cost"] is None else f"{train['cost'][1] / 60:.1f}",
        str(train.get("steps") or ""),
        f"{predict['seconds_a_slice']:.2f}",
        f"{predict['memory_mb']:,.0f}",
        *whole_columns(row),
    ]


def whole_columns(row: Mapping[str, Any]) -> list[str]:
    """Time and memory of a whole cell; "about": processor time of a slice, times so many."""
    if "whole" in row:
        return [f"{row['whole']['wall']:.0f}", f"{row['whole']['memory']:,.0f}"]
    return [f"about {WHOLE * row['predict']['seconds_a_slice']:.0f}", ""]


def f1_by_diameter(scores: Mapping[str, Any]) -> list[float | None]:
    """F1 at IoU .5 between the edges of `DIAMETERS`; None where nothing is.

    A true instance counts at its own diameter, a prediction at its own.
    """
    found: list[float | None] = []
    for low, high in DIAMETERS:
        bins = [
            part
            for part in scores["by_diameter"]
            if part["from_nm"] >= low and (part["to_nm"] or float("inf")) <= high
        ]
        total = sum(part["ground_truth"] + part["predicted"] for part in bins)
        lost = sum(part["false_negatives"] + part["false_positives"] for part in bins)
        found.append((total - lost) / total if total else None)
    return found


def span(edges: tuple[float, float]) -> str:
    """The edges of a bin of diameters as a text."""
    low, high = edges
    if low == 0:
        return f"< {high}"
    return f"> {low}" if high == float("inf") else f"{low} to {high}"


def text(value: float | None) -> str:
    """Three decimals, or nothing."""
    return "" if value is None else f"{value:.3f}"
