"""The volumes of one call of a command: which are to be done, and what became of all of them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from isgseg.batch.records import read_record, reason_of
from isgseg.errors import InputError, InputFileExistsError
from isgseg.io.paths import natural

if TYPE_CHECKING:  # pandas takes a second to import, and --help should not wait for it
    import pandas as pd

log = logging.getLogger(__name__)
_LISTED = 10  # volumes that a message names
_DONE = {"predict": "labelled", "analyse": "analysed"}  # what a command does with a volume


@dataclass(frozen=True)
class Row:
    """One volume in the summary.

    Attributes:
        volume: path of its file.
        status: `labelled` or `analysed`; `failed`; `begun`: its process works on it or was killed.
        granules: how many; None where there are no results.
        seconds: that it took; None where that is not known.
        device: that it was labelled on.
        warnings: that were logged meanwhile, with ` | ` between them.
        reason: why there are no results.
    """

    volume: str
    status: str
    granules: int | None = None
    seconds: float | None = None
    device: str = ""
    warnings: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Item:
    """One volume of the work.

    Attributes:
        volume: its file.
        done: the result that is written last.
        record: of `isgseg.batch.records`.
    """

    volume: Path
    done: Path
    record: Path


Kind = TypeVar("Kind", bound=Item)


@dataclass(frozen=True)
class Work(Generic[Kind]):
    """The volumes of one call of a command.

    Attributes:
        command: such as `predict`.
        folder: of the results.
        items: all of them.
        todo: those that are to be done.
        rows: reads the summary's rows of finished volumes from a folder.
        failed: why volumes failed that cannot even be begun, by their files.
    """

    command: str
    folder: Path
    items: Sequence[Kind]
    todo: Sequence[Kind]
    rows: Callable[[Path], Iterable[Row]]
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> Path:
        """Where the summary goes."""
        return self.folder / f"{self.command}_summary.csv"

    def check(self) -> None:
        """Refuses to replace a summary that isgseg did not write.

        Raises:
            InputFileExistsError: there is one.
        """
        header = ",".join(part.name for part in fields(Row))
        try:
            with self.summary.open(encoding="utf-8") as file:
                ours = file.readline().strip() == header
        except (FileNotFoundError, NotADirectoryError):  # the latter is said with each volume
            return
        except (OSError, ValueError):
            ours = False
        if not ours:
            raise InputFileExistsError(
                f"{self.summary} was not written by isgseg-{self.command}, which writes its "
                "summary there; move it, or set another output_dir"
            )

    @contextlib.contextmanager
    def noting(
        self, item: Item, failed: dict[str, str], reason: Callable[[BaseException], str]
    ) -> Iterator[None]:
        """Keeps one volume that fails from stopping the others: the log and `failed` say why.

        Args:
            item: the volume that the block works on.
            failed: reasons by the volumes' files; this one's is added.
            reason: says why it failed, in one line.
        """
        try:
            yield
        except (InputError, MemoryError) as error:
            failed[str(item.volume)] = reason(error)
            log.error("%s: %s", item.volume, failed[str(item.volume)])
        except Exception as error:
            failed[str(item.volume)] = reason(error)
            log.exception("%s could not be %s", item.volume, _DONE[self.command])

    def finish(self, failed: Mapping[str, str], always: bool = False) -> None:
        """Writes the summary of all volumes in the folder, where there are several.

        Args:
            failed: why volumes have no results, by their files.
            always: write it for one volume too.

        Raises:
            InputError: some have failed; the message names them, each with its reason.
        """
        from isgseg.analysis.granules import write_table

        if len(self.items) > 1 or always:
            try:
                table = summary_table(self.rows(self.folder), self.folder, self.command, failed)
                write_table(self.summary, table)
                log.info("Summary in %s", self.summary)
            except InputError as error:  # the folder cannot be written to
                if not failed:
                    raise
                log.error("%s", error)
        if failed:
            reasons = "; ".join(f"{name} ({why})" for name, why in list(failed.items())[:_LISTED])
            if len(failed) > _LISTED:
                reasons += f" and {len(failed) - _LISTED} more; see {self.summary}"
            done = _DONE[self.command]
            raise InputError(
                f"{len(failed)} of {len(self.items)} volumes were not {done}: {reasons}"
            )


def summary_table(
    finished: Iterable[Row], folder: Path, command: str, failed: Mapping[str, str]
) -> pd.DataFrame:
    """The summary: one row for each volume with results or a record in a folder.

    It is made of what lies in the folder, so that it is complete however many processes wrote into
    it.

    Args:
        finished: rows of those with results.
        folder: of results and records.
        command: of the records.
        failed: reasons that this process knows, by the volumes' files; they go before records.
    """
    import pandas as pd

    rows = {row.volume: row for row in finished}
    for path in folder.glob(f"*_{command}_unfinished.json"):
        record = read_record(path)
        if record is not None:
            row = Row(
                str(record.get("volume")),
                str(record.get("status")),
                seconds=record.get("seconds"),
                warnings=" | ".join(record.get("warnings", [])),
                reason=reason_of(record),
            )
            rows[row.volume] = row
    for name, why in failed.items():
        known = rows.get(str(Path(name).absolute()))
        if known is None or known.status != "failed":
            row = Row(str(Path(name).absolute()), "failed", reason=why)
            rows[row.volume] = row
    order = sorted(rows.values(), key=lambda row: natural(Path(row.volume)))
    names = [part.name for part in fields(Row)]
    table = pd.DataFrame([astuple(row) for row in order], columns=names)
    return table.astype({"granules": "Int64"})
