"""A review to a file, with which it goes on."""

from __future__ import annotations

from pathlib import Path

from isgseg.napari.journal import Journal, journal_path
from isgseg.napari.session import UNREVIEWED, Session
from isgseg.napari.steps import granules
from isgseg.napari.writing import save


def save_review(session: Session, path: Path, source: Path | None = None) -> list[Path]:
    """Saves labels, table and manifest; from then on the journal lies beside these labels.

    The new journal holds what was said of granules and slices, so that opening the saved file goes
    on. The journal of the former file stays where it is, unless this one takes its place.

    Args:
        session: of the labels.
        path: of the file.
        source: that the labels were read from.

    Returns:
        What `save` returns.

    Raises:
        InputError: a file cannot be written.
    """
    size = session.voxel_size
    voxel_size = None if size is None else (float(size[0]), float(size[1]), float(size[2]))
    written = save(path, session.labels, voxel_size, granules(session), source, session.volume)
    if session.journal is not None:
        session.journal.close()
    journal_path(path).unlink(missing_ok=True)
    journal = session.journal = Journal(journal_path(path), session.labels)
    labels, said = session.table.index.tolist(), session.table["state"].tolist()
    states = dict(zip(labels, said, strict=True))
    journal.add_states({label: state for label, state in states.items() if state != UNREVIEWED})
    journal.add_slices(dict.fromkeys(sorted(session.complete), True))
    return written
