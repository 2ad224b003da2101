"""Makes `benchmarks/README.md`, and tables of README.md and of pages in docs/, of `results/*.json`.

Run `python benchmarks/report.py` after a benchmark has written its result. Nothing stands in the
page that no result file holds; a test compares the two.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import methods_table
from methods_table import section as methods_section
from record import GROUPS, RESULTS, ROOT, check, reached

PAGE = ROOT / "benchmarks" / "README.md"
CARD = ROOT / "docs" / "model_card.md"
METHODS = ROOT / "docs" / "methods.md"
FRONT = ROOT / "README.md"
NETWORKS = ("shipped_network", "shipped_unet")  # the result files that the model card shows
BEGIN, END = "<!-- begin: benchmarks/report.py -->", "<!-- end -->"
# What the front page says: a result file, a number in it, and the words for it.
HEADLINES = (
    (
        "shipped_network",
        "shipped network: F1 in 3D at IoU .5",
        "F1 in 3D on synthetic cells that it never saw",
    ),
    (
        "demo",
        "make demo: F1 in 3D at IoU .5",
        "F1 in 3D on another one, after a hundred steps of fine-tuning (`make demo`)",
    ),
    (
        "real_slices",
        "real slices: best F1 of centres within 3 px",
        "F1 on nine real slices, whose labels are incomplete; the phantom was adapted to them",
    ),
    ("demo", "make demo: all", "time of `make demo`, on two CPU cores"),
    ("shipped_network", "shipped network: file", "the network's file"),
)
# Rows of the table of methods that stand on the front page.
BESIDE = ("light", "unet", "stardist", "cellpose", "log")
Results = Mapping[str, Mapping[str, Any]]

HEAD = """# Benchmarks

`benchmarks/report.py` makes this page from the files in `benchmarks/results/`. Each number belongs
to a run; the section "Runs" gives the command, the commit and the machine of each.
Times differ between machines and between runs: compare ratios, or measure both sides on one
machine. "Load" is the load average of the last five minutes: above the number of threads, other
work ran beside the measurement and times are too long.
Older measurements, ablations and negative results are in [notes/](notes/).
"""


def main() -> None:
    """Writes the page, the card, the table of methods and the front page's table."""
    results = read_results()
    PAGE.write_text(page(results))
    CARD.write_text(with_section(CARD.read_text(), card_section(results)))
    METHODS.write_text(with_section(METHODS.read_text(), methods_tables(results)))
    FRONT.write_text(with_section(FRONT.read_text(), front_section(results)))
    made = ", ".join(str(path.relative_to(ROOT)) for path in (PAGE, CARD, METHODS, FRONT))
    print(f"{len(results)} results: {made}")


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The content of every result file, by its name without suffix, in order of the name.

    Raises:
        ValueError: a file lacks a field; see `record.check`.
    """
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    for name, content in results.items():
        check(content, f"{name}.json")
    return results


def page(results: Results) -> str:
    """The page as Markdown: a table for each group, figures, and the runs."""
    parts = [HEAD]
    for group in GROUPS:
        if rows := group_rows(results, group):
            parts.append(
                f"## {group.capitalize()}\n\n| measure | value | target | reached | run |\n"
                "|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
            )
    for content in results.values():
        if table := content["details"].get("table"):
            parts.append(f"## {content['title']}\n\n{table_text(table)}")
        if figure := content["details"].get("figure"):
            parts.append(f"![{content['title']}](results/{figure})\n")
    runs = [
        f"| {name} | {content['title']} | `{content['command']}` | {content['date']}, "
        f"`{content['commit']}` | {machine_text(content['machine'])} | {seeds(content)} |"
        for name, content in results.items()
    ]
    parts.append(
        "## Runs\n\nA `+` behind a commit says that tracked files were changed.\n\n"
        "| run | what | command | date, commit | machine | seeds |\n|---|---|---|---|---|---|\n"
        + "\n".join(runs)
        + "\n"
    )
    return "\n".join(parts)


def group_rows(results: Results, group: str) -> list[str]:
    """The rows of a group's table."""
    rows = []
    for name, content in results.items():
        for number in content["numbers"]:
            if number["group"] != group:
                continue
            target = content["targets"].get(number["name"])
            said = "" if target is None else "yes" if reached(number["value"], target) else "**no**"
            rows.append(
                f"| {number['name']} | {value_text(number)} | {target_text(target)} | {said} "
                f"| {name} |"
            )
    return rows


def table_text(table: Mapping[str, Any]) -> str:
    """A table of a result, with its caption: `columns`, and `rows` of as many texts."""
    rows = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
    return f"{table['caption']}\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def value_text(number: Mapping[str, Any]) -> str:
    """Three significant digits and the unit; whole numbers in full."""
    value = number["value"]
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {number['unit']}".rstrip()


def target_text(target: str | None) -> str:
    """A target with the signs of mathematics."""
    if target is None:
        return ""
    return target.replace(">=", "≥").replace("<=", "≤").replace("+-", "±")


def machine_text(machine: Mapping[str, Any]) -> str:
    """A machine in a few words."""
    flags = [flag for flag in machine["flags"] if flag in ("avx512_bf16", "amx_bf16")]
    cores = f"{machine['threads']} of {machine['cores']} cores, load {machine['load']:g}"
    parts = [machine["cpu"], cores, *flags]
    return ", ".join([*parts, machine["gpu"]] if machine["gpu"] else parts)


def seeds(content: Mapping[str, Any]) -> str:
    """The seeds; a run of consecutive ones as `0 to 4`."""
    numbers = content["seeds"]
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def methods_tables(results: Results) -> str:
    """The tables of methods: on synthetic cells, and on public images."""
    parts = [methods_section(results.get("methods"))]
    if public := results.get("public_data"):
        parts.append(
            f"### Public images of nuclei\n\n{table_text(public['details']['methods'])}\n"
            f"{public['date']}, {public['machine']['cpu']}: `{public['command']}`.\n"
        )
    return "\n".join(parts)


def card_section(results: Results) -> str:
    """What the model card says of the files, their training and their scores."""
    return "\n".join(card_table(results[name]) for name in NETWORKS if name in results)


def card_table(content: Mapping[str, Any]) -> str:
    """The table of one network."""
    rows = [f"| {key} | {value} |" for key, value in content["details"].get("card", {}).items()]
    for number in content["numbers"]:
        target = target_text(content["targets"].get(number["name"]))
        beside = f" (target {target})" if target else ""
        rows.append(f"| {number['name']} | {value_text(number)}{beside} |")
    rows.append(f"| measured with | `{content['command']}` |")
    rows.append(f"| on | {content['date']}, commit `{content['commit']}` |")
    return "| | |\n|---|---|\n" + "\n".join(rows) + "\n"


def front_section(results: Results) -> str:
    """The few numbers of the front page, those that a result file holds."""
    rows = []
    for file, name, words in HEADLINES:
        for number in results.get(file, {}).get("numbers", ()):
            if number["name"] == name:
                rows.append(f"| {words} | {value_text(number)} |")
    headlines = "| | measured |\n|---|---|\n" + "\n".join(rows) + "\n"
    compared = results.get("methods", {}).get("details", {}).get("rows", {})
    beside = [methods_table.front_row(compared[name]) for name in BESIDE if name in compared]
    if not beside:
        return headlines
    return headlines + "\n" + methods_table.table(methods_table.FRONT, beside)


def with_section(text: str, section: str) -> str:
    """The text with what stands between the two marks replaced.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the text lacks '{BEGIN}' or '{END}'")
    return f"{before}{begin}\n{section}{end}{after}"


if __name__ == "__main__":
    main()
