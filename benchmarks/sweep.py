"""A sweep of twelve trials that is killed after five, and goes on.

Each trial trains a small network on discs for 60 steps. The process is killed (SIGKILL) while the
sixth runs, and the same command is given again.

    python benchmarks/sweep.py --output benchmarks/results/sweep.json
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from discs import OPTIONS, dataset
from record import Result, add_output

TRIALS, KILLED = 12, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_output(parser)
    args = parser.parse_args()
    result = Result("A sweep that is killed and goes on", seeds=[0])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = [
            *(sys.executable, "-m", "isgseg.train", "-m", "hparams_search=optuna", *OPTIONS),
            *("~callbacks.learning_rate", f"data.root={dataset(folder / 'data')}"),
            *(f"paths.root={folder}", "trainer.max_epochs=15", "model.warmup_steps=5"),
            *("trainer.check_val_every_n_epoch=5", "model.optimizer=muon"),
            *(f"hydra.sweeper.n_trials={TRIALS}", "callbacks.pruning.warmup_epochs=5"),
        ]
        sweep = folder / "train" / "sweeps" / "optuna"
        log = (folder / "log.txt").open("w")
        first = subprocess.Popen(command, stdout=log, stderr=log)
        while not (sweep / str(KILLED) / "checkpoints").is_dir():
            if first.poll() is not None:
                raise RuntimeError((folder / "log.txt").read_text())
            time.sleep(0.2)
        first.kill()
        first.wait()
        start = time.perf_counter()
        again = subprocess.run(command, capture_output=True, text=True, check=False)
        if again.returncode:
            raise RuntimeError(again.stderr + again.stdout)
        seconds = time.perf_counter() - start
        table = pd.read_csv(sweep / "trials.csv")
        folders = sum(path.name.isdigit() for path in sweep.iterdir())
    keys = [name for name in table if name.startswith(("model.", "data."))]
    result.add("quality", "trials in the end", len(table), target=">= 12")
    result.add("quality", "trials more than asked for", len(table) - TRIALS, target="<= 0")
    twice = int(table.duplicated(keys).sum())
    result.add("quality", "trials with the values of another", twice, target="<= 0")
    ended = int(table["state"].isin(["complete", "stopped"]).sum())
    result.add("quality", "trials that ended with a value", ended, target=">= 12")
    result.add("quality", "of these stopped by pruning", int((table["state"] == "stopped").sum()))
    result.add("quality", "trainings that were started", folders, target="<= 13")
    result.add("quality", "best val/f1_3d", table["value"].max())
    result.add("speed", f"the last {TRIALS - KILLED} trials", seconds, unit="s")
    result.details = {"trials": table.drop(columns="folder").to_dict("records")}
    result.details = pd_free(result.details)
    result.details["end of the log"] = again.stdout.replace(str(folder), "FOLDER").splitlines()[-3:]
    result.write(args.output)


def pd_free(content: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    """Without the NaN of empty cells, which JSON does not have."""
    return {
        name: [
            {key: None if value != value else value for key, value in row.items()} for row in rows
        ]
        for name, rows in content.items()
    }


if __name__ == "__main__":
    main()
