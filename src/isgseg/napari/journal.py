"""What a person did to labels, written down at once: nothing is lost when the program is killed.

A line of JSON for each edit, flushed to the disk, so that only the line that was being written can
be lost. The labels themselves stay as they are until they are saved.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from isgseg.errors import InputError
from isgseg.inference.manifest import hash_labels
from isgseg.instances.components import Ints, Labels
from isgseg.instances.editing import Edit
from isgseg.io.atomic import disk_errors, writing
from isgseg.io.volumes import stem

log = logging.getLogger(__name__)

VERSION = 1
_MOST = 2**31  # bytes that a line may expand to


def journal_path(labels: Path) -> Path:
    """Where the journal of a label file lies: `<stem>_labels.review.jsonl` beside it."""
    name = labels.name if labels.is_dir() else stem(labels)
    return labels.with_name(f"{name.removesuffix('.zarr')}.review.jsonl")


class Journal:
    """The journal of one label volume.

    Args:
        path: of the file; its folder exists.
        labels: (z, y, x), as they are on the disk: before any of the edits.

    Raises:
        InputError: the file is the journal of other labels, or none, or cannot be written.
    """

    def __init__(self, path: Path, labels: Labels) -> None:
        self.path = path
        self.shape = labels.shape
        self._header = {
            "isgseg_review": VERSION,
            "labels_sha256": hash_labels(labels),
            "shape": list(labels.shape),
        }
        self.entries = self._read() if path.exists() else []
        with writing(path):
            self._file = path.open("ab")
        if path.stat().st_size == 0:
            self._write(self._header)

    def close(self) -> None:
        """Closes the file; nothing can be written any more."""
        self._file.close()

    def remove(self) -> None:
        """Removes the file: what it holds is in the labels now, or is not wanted."""
        self.close()
        with writing(self.path):
            self.path.unlink(missing_ok=True)

    def add_edit(self, edit: Edit) -> None:
        """Writes an edit down.

        Raises:
            InputError: the disk is full or failing.
        """
        flat = np.ravel_multi_index(edit.where, self.shape)
        order = np.argsort(flat, kind="stable")
        self._write(
            {
                "at": _packed(np.diff(flat[order], prepend=0)),
                "to": _packed(edit.values[order].astype(np.int64)),
            }
        )

    def add_states(self, states: Mapping[int, str]) -> None:
        """Writes down what was said of granules, by label: `accepted`, or another state."""
        self._write({"states": {str(label): state for label, state in states.items()}})

    def add_slices(self, slices: Mapping[int, bool]) -> None:
        """Writes down which slices were said to be complete."""
        self._write({"slices": {str(z): done for z, done in slices.items()}})

    def edits(self) -> Iterator[Edit | dict[str, dict[str, Any]]]:
        """What the file held when it was opened, in order: edits, and `states` or `slices`."""
        for number, entry in enumerate(self.entries, start=2):
            if "at" not in entry:
                yield entry
                continue
            try:
                flat = np.cumsum(_unpacked(entry["at"]))
                values = _unpacked(entry["to"])
                z, y, x = np.unravel_index(flat, self.shape)
                if len(values) != len(flat) or values.min(initial=0) < 0:
                    raise ValueError("lengths differ, or a label is negative")
            except (ValueError, KeyError, TypeError, zlib.error) as error:
                raise InputError(
                    f"{self.path}, line {number}: damaged ({error}); move the file away to begin "
                    "anew"
                ) from error
            yield Edit((z, y, x), values)

    def _write(self, entry: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _read(self) -> list[dict[str, Any]]:
        """The entries of the file; a last line that was cut short is taken off it."""
        with writing(self.path):
            content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        try:
            header, *entries = [json.loads(line) for line in whole.splitlines()] or [{}]
            version = header.get("isgseg_review")
            if not all(isinstance(entry, dict) for entry in entries):
                raise ValueError("a line is no entry")
        except (ValueError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{self.path} is no journal of a review ({error}); move it away, and open the "
                "labels again"
            ) from error
        if content and not whole:
            version = VERSION  # killed while the first line was written
            header = self._header
        if version != VERSION:
            raise InputError(
                f"{self.path}: isgseg_review={version} must be {VERSION}; a newer isgseg may know "
                "it. Move it away to begin anew"
            )
        if header.get("labels_sha256") != self._header["labels_sha256"]:
            raise InputError(
                f"{self.path} is of other labels than those beside it, which were changed since; "
                "move it away to begin anew, or bring the former labels back"
            )
        if len(whole) < len(content):
            log.warning("%s: its last line was cut short; that edit is lost", self.path)
            with writing(self.path), self.path.open("r+b") as file:
                file.truncate(len(whole))
        return entries


def _packed(values: Ints) -> str:
    return base64.b64encode(zlib.compress(values.astype("<i8").tobytes(), 1)).decode()


def _unpacked(text: str) -> Ints:
    stream = zlib.decompressobj()
    content = stream.decompress(base64.b64decode(text, validate=True), _MOST)
    if stream.unconsumed_tail:
        raise ValueError("too long")
    return np.frombuffer(content, "<i8").astype(np.int64)
