"""A tiny dataset and network of the tests, for benchmarks that measure how training runs."""

from __future__ import annotations

import sys

from record import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from conftest import TINY_NETWORK, TINY_RUN
from conftest import discs_with_volumes as dataset

OPTIONS = [*TINY_NETWORK, *TINY_RUN, "logger=[]"]
__all__ = ["OPTIONS", "dataset"]
