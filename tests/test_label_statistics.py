from __future__ import annotations

import numpy as np
import pandas as pd

from isgseg.analysis.label_figure import share_by_size
from isgseg.analysis.labels import percentiles, recommend_crop, recommend_limits


def images(counts: list[int], slices: list[str | None]) -> pd.DataFrame:
    names = ["cell" if number else None for number in slices]
    axes = ["z" if number else None for number in slices]
    return pd.DataFrame({"objects": counts, "volume": names, "axis": axes, "slice": slices})


def test_caps_are_for_the_most_crowded_slice_with_a_margin() -> None:
    patches = images([90, 70, 100, 0], ["0001", "0001", "0002", "0003"])
    assert recommend_limits(patches) == {"proposals": 1000, "detections": 250}  # 160 objects
    alone = images([90, 70, 100, 0], [None] * 4)
    assert recommend_limits(alone)["detections"] == 150
    assert recommend_limits(images([3], [None]))["detections"] == 100


def test_crops_keep_the_network_image_small_and_the_largest_object_whole() -> None:
    assert recommend_crop(2, 14, 256) is None
    assert recommend_crop(4, 14, 256) == 128
    assert recommend_crop(4, 50, 473) == 224


def test_percentiles_of_what_is_not_known_are_none() -> None:
    assert percentiles(pd.Series([np.nan, np.nan])) is None
    assert percentiles(pd.Series([1.0, np.nan])) == dict.fromkeys(["5", "25", "50", "75", "95"], 1)


def test_shares_are_of_groups_of_like_size() -> None:
    sides, shares = share_by_size(pd.Series(np.arange(24.0)), pd.Series([False] * 4 + [True] * 20))
    assert sides.tolist() == [0.5 + 2 * group for group in range(12)]
    assert shares.tolist() == [0, 0] + [1] * 10
