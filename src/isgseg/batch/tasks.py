"""Around the tasks of a launcher: all of them are waited for."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def all_awaited(outcomes: list[str | None]) -> Iterator[None]:
    """Makes submitit's launcher wait for all tasks, where it would end at the first that died.

    Args:
        outcomes: is filled, a task each: None, or why it failed.
    """
    if importlib.util.find_spec("submitit") is None:
        yield
        return
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core import core
    from submitit.core.utils import FailedJobError, UncompletedJobError

    original = core.Job.results

    def results(job: Any) -> list[Any]:
        try:
            returned = original(job)
            outcomes.append(returned[0].return_value)
        except (UncompletedJobError, FailedJobError):
            state = str(job.state).lower()
            outcomes.append(
                f"its task ended without a result (state {state}{_last_line(job.paths.stderr)}); "
                f"its output is in {job.paths.stderr}"
            )
        except Exception as error:  # the task could not even begin
            outcomes.append(" ".join(f"{type(error).__name__}: {error}".split()))
        return [JobReturn(_return_value=None, status=JobStatus.COMPLETED)]

    core.Job.results = results  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        core.Job.results = original  # type: ignore[method-assign]


def _last_line(path: Path) -> str:
    """The last line of a task's output, for a message."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last[-200:]}" if last else ""
