"""An environment that has isgseg from a wheel and nothing else of this checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path


def empty_environment(place: Path, wheel: Path) -> str:
    """A new environment in `place` with the wheel alone; dependencies are those of the running one.

    Returns:
        Its Python.
    """
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)
    here = next(Path(entry) for entry in sys.path if (Path(entry) / "torch").is_dir())
    (site,) = place.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"import sys; sys.path.append({str(here)!r})\n")
    return python
