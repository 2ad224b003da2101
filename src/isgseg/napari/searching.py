"""A search for granules in a thread, so that the window stays alive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QThread, Signal

from isgseg.errors import InputError
from isgseg.napari.finding import Cancelled, find


class Search(QThread):
    """Runs `find` beside the window."""

    slice_done = Signal(int, int, object)
    found = Signal(object)
    failed = Signal(str)

    def __init__(self, volume: Any, voxel_size: Any, network: Path, slices: Any) -> None:
        super().__init__()
        self.arguments = volume, voxel_size, network
        self.slices, self.stopped = slices, False

    def run(self) -> None:
        """Qt's: what the thread does."""
        try:
            self.found.emit(find(*self.arguments, self._told, self.slices))
        except Cancelled:
            self.failed.emit("Stopped. What was found so far is in the layer.")
        except InputError as error:
            self.failed.emit(str(error))
        except MemoryError:
            self.failed.emit("Not enough memory; choose fewer slices.")
        except Exception as error:  # a window must not close over it
            self.failed.emit(f"{type(error).__name__}: {error}")

    def _told(self, number: int, of: int, labels: Any) -> None:
        if self.stopped:
            raise Cancelled
        self.slice_done.emit(number, of, labels)
