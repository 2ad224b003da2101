"""The size of the package, how long imports take, and how many packages come with it.

Run `OMP_NUM_THREADS=1 python benchmarks/installing.py --output benchmarks/results/installing.json`.
It builds wheel and sdist, installs the wheel into an empty environment, and asks pip what an
installation of isgseg, cellpose and stardist would bring (`pip install --dry-run`), which needs a
package index. Numbers of the others are those of the versions that pip chose.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import ROOT, Result, add_output

sys.path.insert(0, str(ROOT / "tests"))
from empty_environment import empty_environment

PEERS = ("cellpose", "stardist")
# What the packages of isgseg come with, each with all that it needs; they overlap.
PARTS = {
    "torch and torchvision": ["torch", "torchvision"],
    "these and lightning": ["torch", "torchvision", "lightning"],
    "these and tensorboard": ["torch", "torchvision", "lightning", "tensorboard"],
}
RUNS = 3
SHAPE = "[24,243,236]"  # of the sample of docs/start/first_labels.md
FIRST_LABELS = f"""
import subprocess, sys

def run(command, *arguments):
    subprocess.run([sys.executable, "-m", f"isgseg.{{command}}", *arguments], check=True)

cells = ["source=phantom", "source.phantom.shape={SHAPE}", "source.phantom.train_seeds=[0]"]
run("prepare", *cells, "patches.z_context=2", "output_dir=sample")
run("predict", "sample/volumes/phantom_1000.mrc", "output_dir=labels", "device=cpu")
"""


def main() -> None:
    """Builds, installs, counts and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_output(parser)
    args = parser.parse_args()
    result = Result("The package, and what comes with it")
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        wheel = build(place, result)
        python = empty_environment(place / "env", wheel)
        code = "import isgseg"
        result.add("speed", "import isgseg", seconds([python, "-c", code]), "s")
        code = "from isgseg import create_segmenter"
        result.add(
            "speed", "the same, with the segmenter and torch", seconds([python, "-c", code]), "s"
        )
        help_ = [python, "-m", "isgseg.predict", "--help"]
        result.add("speed", "isgseg-predict --help", seconds(help_), "s", target="<= 3")
        bare = seconds([python, "-c", "pass"])
        result.add("speed", "an empty Python, beside these", bare, "s")
        first = seconds([python, "-c", FIRST_LABELS], runs=1)
        name = "first labels: isgseg-prepare and isgseg-predict on a sample, processor time"
        result.add("speed", name, first, "s", target="<= 300")
        for name, parts in PARTS.items():
            count = len(installation(*parts))
            result.add("memory", f"{name}: packages that pip installs", count)
        for name, what in (("isgseg", str(wheel)), *((peer, peer) for peer in PEERS)):
            packages = installation(what)
            versions[name] = next(p["version"] for p in packages if p["name"].lower() == name)
            result.add(
                "memory", f"{name} {versions[name]}: packages that pip installs", len(packages)
            )
            if name != "isgseg":
                size = wheel_of(f"{name}=={versions[name]}", place)
                result.add("memory", f"{name} {versions[name]}: wheel", size, "MB")
    result.details = {"versions": versions, "python": sys.version.split()[0]}
    result.write(args.output)


def build(place: Path, result: Result) -> Path:
    """Builds sdist and wheel, and returns the wheel."""
    run = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(place), str(ROOT)]
    subprocess.run(run, check=True, capture_output=True)
    (wheel,), (sdist,) = place.glob("*.whl"), place.glob("*.tar.gz")
    result.add(
        "memory", "wheel, with the network", wheel.stat().st_size / 1e6, "MB", target="<= 12"
    )
    result.add("memory", "sdist", sdist.stat().st_size / 1e6, "MB")
    return wheel


def seconds(command: list[str], runs: int = RUNS) -> float:
    """The least processor time of a few runs, after one that is not counted.

    It is the wall time where nothing else runs and there is one thread.
    """
    times = []
    for _ in range(runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            start = used()
            subprocess.run(command, cwd=folder, env={}, check=True, capture_output=True)
            times.append(used() - start)
    return min(times[1:])


def used() -> float:
    """Processor time of all processes that this one has started and that have ended, s."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def installation(*what: str) -> list[dict[str, Any]]:
    """Name and version of each package that pip would install into an empty environment."""
    ask = ["--dry-run", "--ignore-installed", "--quiet", "--prefer-binary", "--report", "-"]
    install = [sys.executable, "-m", "pip", "install", *ask, *what]
    run = subprocess.run(install, check=True, capture_output=True, text=True)
    return [entry["metadata"] for entry in json.loads(run.stdout)["install"]]


def wheel_of(what: str, place: Path) -> float:
    """The size of a package's wheel, without what it depends on, MB."""
    folder = place / "wheels"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), what],
        check=True,
        capture_output=True,
    )
    return max(path.stat().st_size for path in folder.glob(f"{what.partition('=')[0]}*")) / 1e6


if __name__ == "__main__":
    main()
