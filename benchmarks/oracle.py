"""Somebody who knows the ground truth, and mends granules as a person does in the dock.

Of each granule the oracle says one of accept, delete, split, merge and redraw; of one below the
threshold, a candidate, whether it is a granule, or that one is to be drawn there. What it draws are
balls, as the dock draws them: the centre is a voxel, and the diameter a whole number of voxels. It
mends no other outline.
"""

from __future__ import annotations

import numpy as np

from isgseg.errors import InputError
from isgseg.napari import steps
from isgseg.napari.session import ABSENT, ACCEPTED, REJECTED, Session

ENOUGH = 0.5  # IoU from which on a granule holds an object
HELD = 0.5  # of an object that a granule must cover so that it is split off
SEEN = 0.25  # of an object that a granule must cover so that a person draws it anew
SPECK = 0.05  # of a granule; less of it is in an object by chance
AS_IT_IS = ("accept", "reject")
# What answers are worth in F1, one of a missed granule being 1. With F1 = .65 of n objects, one
# less that is no granule adds .65 / 2n, one more that is 1.35 / 2n, one for another 2 / 2n.
WORTH = {"delete": 0.5, "take": 1.0, "draw": 0.9, "redraw": 1.3, "split": 1.3, "merge": 1.2}


class Oracle:
    """Looks at granules of a session, one after the other.

    Args:
        session: is changed.
        ground_truth: (z, y, x), numbers of objects.
        draw: redraw and draw too; False: accept, delete, split and merge only.
    """

    def __init__(self, session: Session, ground_truth: np.ndarray, draw: bool = True) -> None:
        self.session, self.truth, self.draw = session, ground_truth, draw
        self.sizes = np.bincount(ground_truth.ravel())
        z, y, x = np.nonzero(ground_truth)
        objects = ground_truth[z, y, x]
        sums = [np.bincount(objects, axis, len(self.sizes)) for axis in (z, y, x)]
        self.middles = np.stack(sums, axis=1) / np.maximum(self.sizes, 1)[:, None]

    def look(self, label: int) -> str:
        """Looks at a granule or candidate, and does what there is to do."""
        answer, objects = self.answer(label)
        session = self.session
        if answer in AS_IT_IS:
            session.say([label], ACCEPTED if answer == "accept" else REJECTED)
        elif answer == "take":
            session.apply(steps.take_in(session, label))
            session.say([label], ACCEPTED)
        elif answer == "merge":
            session.apply(steps.merge(session, objects))
        elif answer == "split":
            self._split(label, objects)
        else:
            if answer in ("delete", "redraw"):
                session.apply(steps.delete(session, [label]))
            else:
                session.say([label], REJECTED)
            for number in objects:
                self._ball(number)
        return answer

    def answer(self, label: int) -> tuple[str, list[int]]:
        """What is to be done with a granule, and with which objects, or pieces to merge."""
        session = self.session
        box, absent = session.box(label), session.state(label) in ABSENT
        own = (session.offered if absent else session.labels)[box] == label
        size = int(own.sum())
        counts = np.bincount(self.truth[box][own], minlength=2)
        counts[0] = 0
        objects = [n for n in np.flatnonzero(counts).tolist() if self._is_free(n, label)]
        iou = {n: counts[n] / (size + self.sizes[n] - counts[n]) for n in objects}
        best = max(iou, key=lambda n: iou[n], default=0)
        good = bool(best) and iou[best] >= ENOUGH
        if absent:
            if good:
                return "take", [best]
            seen = best and counts[best] >= SEEN * min(self.sizes[best], size)
            drawn = self.draw and seen and not self._is_held(best, label)
            return ("draw", [best]) if drawn else ("reject", [])
        part = SEEN if self.draw else HELD
        held = [n for n in objects if counts[n] >= max(part * self.sizes[n], SPECK * size)]
        if len(held) > 1 and not (good and self.draw and sum(iou[n] > 0.1 for n in held) < 2):
            return "split", held
        if good:
            return "accept", []
        pieces = self._pieces(best)
        if label in pieces and len(pieces) > 1:
            return "merge", pieces
        seen = best and counts[best] >= SEEN * min(self.sizes[best], size)
        return ("redraw", [best]) if self.draw and seen else ("delete", [])

    def _split(self, label: int, objects: list[int]) -> None:
        """Splits at the middles of objects; a piece that holds none is drawn anew."""
        session, first = self.session, self.session.next_number
        points = [self.middles[n].tolist() for n in objects]
        try:
            session.apply(steps.split(session, label, points))
        except InputError:
            session.say([label], ACCEPTED)
            return
        for number, piece in zip(
            objects, [label, *range(first, first + len(objects) - 1)], strict=True
        ):
            if self.draw and piece in session.table.index:
                own = session.labels[session.box(piece)] == piece
                both = int((own & (self.truth[session.box(piece)] == number)).sum())
                if both / (own.sum() + self.sizes[number] - both) < ENOUGH:
                    session.apply(steps.delete(session, [piece]))
                    self._ball(number)

    def _ball(self, number: int) -> None:
        """Draws an object as a ball."""
        diameter = max(round(float(np.cbrt(6 * self.sizes[number] / np.pi))), 1)
        side = float(np.cbrt(np.prod(self.session.voxel_size or (1.0, 1.0, 1.0))))
        centre = self.middles[number].round().tolist()
        try:
            self.session.apply(steps.add_ball(self.session, centre, diameter * side))
        except InputError:
            return  # all of it is covered by others

    def _others(self, number: int, label: int) -> np.ndarray:
        """Voxels of an object by the granule that has them, without background and one granule."""
        inside = np.bincount(self._within(number), minlength=label + 1)
        inside[[0, label]] = 0
        return inside

    def _is_free(self, number: int, label: int) -> bool:
        """Whether no other granule holds an object well enough."""
        inside = self._others(number, label)
        other = int(inside.argmax())
        if not inside[other]:
            return True
        size = int(self.session.table["voxels"][other])
        return bool(inside[other] < ENOUGH * (size + self.sizes[number] - inside[other]))

    def _is_held(self, number: int, label: int) -> bool:
        """Whether another granule has most of an object, and is to be looked at for it."""
        return bool(self._others(number, label).max() > HELD * self.sizes[number])

    def _pieces(self, number: int) -> list[int]:
        """The granules that lie in an object for the larger part."""
        if not number:
            return []
        inside = np.bincount(self._within(number))
        inside[:1] = 0
        size = self.session.table["voxels"]
        return [n for n in np.flatnonzero(inside).tolist() if inside[n] > HELD * size[n]]

    def _within(self, number: int) -> np.ndarray:
        """(V,) the labels of an object's voxels; near its middle, where all of it is."""
        reach = int(np.ceil(3 * np.cbrt(self.sizes[number]))) + 3
        middle = self.middles[number].round().astype(int)
        box = tuple(slice(max(m - reach, 0), m + reach + 1) for m in middle.tolist())
        return self.session.labels[box][self.truth[box] == number].astype(np.int64)
