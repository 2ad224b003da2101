"""Synthetic soft X-ray tomograms of insulin-secreting cells, with instance and organelle labels.

`cell` lays out cells and nuclei, `organelles` and `granules` fill them, `surroundings` adds what
else is in the field, `imaging` blurs and adds noise, and `synthesis` puts them together.
"""

from isgseg.phantom.cell import ORGANELLES
from isgseg.phantom.synthesis import Phantom, make_phantom

__all__ = ["ORGANELLES", "Phantom", "make_phantom"]
