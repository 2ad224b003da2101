"""Synthetic soft X-ray tomograms of insulin-secreting cells, with instance and organelle labels.

`settings` holds every range and `character` draws one cell from them. `cell` lays out cells and
nuclei, `painting` paints them, `mitochondria`, `granules` and `organelles` fill them where `places`
has room, `surroundings` adds what covers them, `imaging` blurs and adds noise, and `synthesis` puts
all of it together.
"""

from isgseg.phantom.cell import ORGANELLES
from isgseg.phantom.settings import PhantomSettings
from isgseg.phantom.synthesis import Phantom, make_phantom

__all__ = ["ORGANELLES", "Phantom", "PhantomSettings", "make_phantom"]
