"""Which labels of two label volumes share voxels, and how many.

One pass counts how many voxels each pair of labels shares; everything else is arithmetic on these
pairs, of which there are about as many as instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isgseg.instances.components import Floats, Ints, Labels


@dataclass(frozen=True)
class Overlaps:
    """All pairs of labels that share voxels.

    Attributes:
        p: (E,) index of the prediction; t: (E,) index of the ground truth; shared: (E,) voxels.
        p_label, p_size, t_label, t_size: (P,) and (T,) of each prediction and ground truth.
    """

    p: Ints
    t: Ints
    shared: Ints
    p_label: Ints
    p_size: Ints
    t_label: Ints
    t_size: Ints

    @classmethod
    def of(cls, predicted: Labels, ground_truth: Labels) -> Overlaps:
        """Counts them, slice by slice.

        Raises:
            ValueError: shapes differ, or labels are no non-negative integers below 2**32.
        """
        keys, shared = _count_pairs(predicted, ground_truth)
        p, t = (
            (keys >> np.uint64(32)).astype(np.int64),
            (keys & np.uint64(2**32 - 1)).astype(np.int64),
        )
        p_label, p_index = np.unique(p, return_inverse=True)
        t_label, t_index = np.unique(t, return_inverse=True)
        p_size = np.bincount(p_index, shared, len(p_label)).astype(np.int64)
        t_size = np.bincount(t_index, shared, len(t_label)).astype(np.int64)
        # Label 0 took part as the rest of each instance; here it goes.
        p_skip, t_skip = int((p_label == 0).any()), int((t_label == 0).any())
        both = (p > 0) & (t > 0)
        return cls(
            (p_index - p_skip)[both],
            (t_index - t_skip)[both],
            shared[both],
            p_label[p_skip:],
            p_size[p_skip:],
            t_label[t_skip:],
            t_size[t_skip:],
        )

    @property
    def iou(self) -> Floats:
        """(E,) of each pair: voxels shared over voxels of either."""
        whole = self.p_size[self.p] + self.t_size[self.t] - self.shared
        return np.asarray(self.shared / whole, np.float64)


def _count_pairs(predicted: Labels, ground_truth: Labels) -> tuple[npt.NDArray[np.uint64], Ints]:
    """(E,) keys ``prediction << 32 | ground_truth``, not both 0; (E,) how many voxels have each."""
    if predicted.shape != ground_truth.shape:
        raise ValueError(
            f"shapes differ: predicted {predicted.shape}, ground truth {ground_truth.shape}"
        )
    for name, labels in (("predicted", predicted), ("ground_truth", ground_truth)):
        if labels.dtype.kind not in "ui":
            raise ValueError(f"{name} must be integers, not {labels.dtype}")
        if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= 2**32):
            raise ValueError(
                f"{name} has labels {labels.min()} to {labels.max()}: not 0 to 2**32 - 1"
            )
    keys: list[npt.NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    counts: list[Ints] = [np.zeros(0, np.int64)]
    # Slice by slice, so that the sorting is of one slice's foreground only.
    slices = (
        zip(predicted, ground_truth, strict=True)
        if predicted.ndim > 2
        else [(predicted, ground_truth)]
    )
    for p, t in slices:
        some = (p > 0) | (t > 0)
        key = p[some].astype(np.uint64) << np.uint64(32) | t[some].astype(np.uint64)
        found, count = np.unique(key, return_counts=True)
        keys.append(found)
        counts.append(count)
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(inverse, np.concatenate(counts), len(unique))
    return unique, total.astype(np.int64)
