"""From what is odd about a granule to the probability that it is to be mended.

A score card, which is a logistic regression on piecewise linear features: each feature adds so many
logits, read off between knots, and the logistic function of the sum is the probability. The numbers
are fitted (`benchmarks/proofreading.py --fit`) to six synthetic cells of 48 slices, in which a
granule was to be mended where the ground truth has another one, several, or none there. Each
counted as much as mending it adds to F1, so that the order is that of the expected gain. The
numbers are those of the network that comes with isgseg; for another one the order still says
something.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

UNKNOWN = 1.4  # a score over the threshold, where there is none


@dataclass(frozen=True)
class Card:
    """A score card.

    Attributes:
        bias: logits.
        points: for each feature its knots, rising, and the logits at them.
    """

    bias: float
    points: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]]

    def logits(self, values: Mapping[str, float]) -> dict[str, float]:
        """What each feature adds."""
        return {
            name: float(np.interp(values[name], knots, logits))
            for name, (knots, logits) in self.points.items()
        }

    def excess(self, values: Mapping[str, float]) -> dict[str, float]:
        """What each feature adds over its best value: how much it is to blame, logits."""
        lowest = {name: min(logits) for name, (_, logits) in self.points.items()}
        return {name: added - lowest[name] for name, added in self.logits(values).items()}

    def probability(self, values: Mapping[str, float]) -> float:
        """That it is to be mended, from 0 to 1."""
        return 1 / (1 + math.exp(-self.bias - sum(self.logits(values).values())))


# Features. `score`: the mean score of the detections, over the object score threshold. `best`: the
# highest one, in the same way. `fit`: IoU with the ball of the same volume. `size`: deviations of
# the logarithm of the diameter from the usual one. `slices`: in how many it was detected.
GRANULE = Card(
    0.07,
    {
        "score": ((0.6, 1.0, 1.4, 1.9), (1.5, 0.38, -0.75, -1.13)),
        "fit": ((0.45, 0.6, 0.75), (0.72, 0.97, -1.69)),
        "size": ((-2.0, 0.0, 1.5), (-1.05, 0.45, 0.6)),
        "slices": ((1.0, 3.0), (0.33, -0.33)),
    },
)
# That what was left out, below the threshold, is a granule, or that one is to be drawn there.
CANDIDATE = Card(
    -1.55,
    {
        "best": ((0.5, 0.75, 1.0), (-0.6, -0.5, 1.1)),
        "fit": ((0.45, 0.6, 0.75), (-0.41, -0.17, 0.57)),
        "size": ((-2.0, 0.0, 2.0), (1.45, -0.22, -1.22)),
        "slices": ((1.0, 3.0), (-0.65, 0.65)),
    },
)
