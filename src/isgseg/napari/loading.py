"""PyTorch in a process that draws.

Mesa's software renderer and Triton, which PyTorch imports, each bring an LLVM. Where the window was
drawn first, Triton would take functions of the renderer's LLVM, and the process would crash.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys


def load_torch() -> None:
    """Imports PyTorch; its Triton prefers its own functions."""
    known = "triton._C.libtriton" in sys.modules or importlib.util.find_spec("triton") is None
    if hasattr(os, "RTLD_DEEPBIND") and not known:
        flags = sys.getdlopenflags()
        sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
        try:
            importlib.import_module("triton._C.libtriton")
        except ImportError:
            pass  # another Triton; PyTorch imports it, or does without
        finally:
            sys.setdlopenflags(flags)
    importlib.import_module("torch")
