"""How a benchmark writes its result: one JSON file, in `benchmarks/results/` to be shown.

A benchmark makes a `Result`, adds one number after the other, and writes it:

    result = Result("Linking slices to granules", seeds=[5])
    result.add("speed", "6,000 granules in 473 slices", 3.0, unit="s", target="<= 15")
    result.write(args.output)

`benchmarks/report.py` makes the page `benchmarks/README.md` from these files and from nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
GROUPS = ("quality", "speed", "memory")
FIELDS = {
    "title": str,
    "script": str,
    "command": str,
    "commit": str,
    "date": str,
    "machine": dict,
    "seeds": list,
    "numbers": list,
    "targets": dict,
    "details": dict,
}
MACHINE = {"cpu", "cores", "flags", "threads", "load", "gpu"}
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what decides the speed of convolutions
TARGET = re.compile(r"(>=|<=|within \+-) (\d*\.?\d+)")


class Result:
    """What one run of one benchmark found.

    Args:
        title: what was measured, in a few words.
        seeds: of everything random.
    """

    def __init__(self, title: str, seeds: Sequence[int] = ()) -> None:
        self.title = title
        self.seeds = list(seeds)
        self.numbers: list[dict[str, Any]] = []
        self.targets: dict[str, str] = {}
        self.details: dict[str, Any] = {}
        self.commit = commit()  # of the code that runs, whatever changes meanwhile

    def add(
        self, group: str, name: str, value: float, unit: str = "", target: str | None = None
    ) -> None:
        """Adds a number and prints it.

        Args:
            group: `quality`, `speed` or `memory`.
            name: what the number says; unique in this result.
            value: a finite number.
            unit: such as `s`, `MB` or `px`; empty for a ratio.
            target: `>= x`, `<= x` or `within +- x`; None: there is none.
        """
        self.numbers.append({"group": group, "name": name, "value": float(value), "unit": unit})
        if target:
            self.targets[name] = target
        print(f"{name:60} {value:10.4g} {unit:8} {target or ''}", flush=True)

    def content(self) -> dict[str, Any]:
        """The content of the file; `FIELDS` lists its keys."""
        return {
            "title": self.title,
            "script": relative(sys.argv[0]),
            "command": command(sys.argv, os.environ),
            "commit": self.commit,
            "date": date.today().isoformat(),
            "machine": machine(),
            "seeds": self.seeds,
            "numbers": self.numbers,
            "targets": self.targets,
            "details": self.details,
        }

    def write(self, path: Path | None) -> None:
        """Writes the file; None writes nothing.

        Raises:
            ValueError: see `check`.
        """
        if path is None:
            return
        content = self.content()
        check(content, str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        print(f"Written to {path}")


def public_data() -> Path:
    """The folder of public data, which ISGSEG_TEST_DATA names."""
    return Path(os.environ.get("ISGSEG_TEST_DATA", ROOT.parent / "shared" / "data"))


def add_output(parser: argparse.ArgumentParser) -> None:
    """Gives a benchmark the option `--output`, the JSON file to write."""
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE.json",
        help="write the result there, such as benchmarks/results/<name>.json",
    )


def check(content: Mapping[str, Any], where: str) -> None:
    """Refuses a result that the report cannot show.

    Args:
        content: of a result file.
        where: names it in the message.

    Raises:
        ValueError: a field is missing or unknown, a number is not finite, a name stands twice, or
            a target belongs to no number or has no known form.
    """
    for name, kind in FIELDS.items():
        if not isinstance(content.get(name), kind):
            raise ValueError(f"{where}: '{name}' must be there, and a {kind.__name__}")
    if unknown := content.keys() - FIELDS.keys():
        raise ValueError(f"{where}: unknown fields {sorted(unknown)}; put them into 'details'")
    if lacking := MACHINE - content["machine"].keys():
        raise ValueError(f"{where}: 'machine' lacks {sorted(lacking)}")
    names = [number["name"] for number in content["numbers"]]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{where}: no numbers, or a name that stands twice: {names}")
    for number in content["numbers"]:
        if number["group"] not in GROUPS or not math.isfinite(number["value"]):
            raise ValueError(f"{where}: {number} needs a group of {GROUPS} and a finite value")
    for name, target in content["targets"].items():
        if name not in names or not TARGET.fullmatch(target):
            raise ValueError(
                f"{where}: target '{name}: {target}' must name a number and read '>= 0.5', "
                "'<= 15' or 'within +- 0.05'"
            )


def reached(value: float, target: str) -> bool:
    """Whether a value reaches a target such as `>= 0.85`."""
    kind, text = TARGET.fullmatch(target).groups()  # type: ignore[union-attr]
    limit = float(text)
    if kind == ">=":
        return value >= limit
    return (value if kind == "<=" else abs(value)) <= limit


def relative(argument: str) -> str:
    """A path below the project's folder as seen from there; one elsewhere by its name only.

    A result is public: it holds no folder of one machine.
    """
    key, mark, value = argument.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return argument
    short = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    return f"{key}{mark}{short}"


def command(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """The command that a reader types in the project's folder to measure again."""
    threads = environment.get("OMP_NUM_THREADS")
    before = f"OMP_NUM_THREADS={threads} " if threads else ""
    return f"{before}python {shlex.join(relative(argument) for argument in arguments)}"


def commit() -> str:
    """The commit that is checked out, with `+` where a tracked file outside of results differs."""

    def git(*arguments: str) -> str:
        run = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    try:
        changes = git("status", "--porcelain", "-uno", "--", ":!benchmarks/results")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """The processor, its cores, what decides its speed and its load; no name of the machine."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    found = dict(re.findall(r"^(model name|flags)\s*:\s*(.+)$", info, re.MULTILINE))
    flags = found.get("flags", "").split()
    torch = sys.modules.get("torch")  # a benchmark without torch need not import it
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    return {
        "cpu": found.get("model name", "unknown"),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "threads": torch.get_num_threads() if torch else int(threads or 1),
        "load": round(os.getloadavg()[1], 1),  # of 5 minutes: what else ran, and this
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
    }
