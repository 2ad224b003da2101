"""What to say of a volume that cannot be read: what the file is, and what would mend it."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")
_KINDS = {
    b"II*\0": "a TIFF file; name it .tif",
    b"MM\0*": "a TIFF file; name it .tif",
    b"II+\0": "a TIFF file; name it .tif",
    b"\x93NUMPY": "an NPY file; name it .npy",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"\x89HDF": "an HDF5 file; name it .h5, and the dataset: cell.h5:/entry/data",
    b"\x89PNG": "a PNG image; stack the slices into one TIFF file",
    b"\xff\xd8\xff": "a JPEG image; stack the slices into one TIFF file",
    b"<!DOC": "a web page; download the file again",
    b"<!doc": "a web page; download the file again",
    b"<html": "a web page; download the file again",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file by git lfs pull",
    b"\x1f\x8b": "a gzip archive; unpack it first, or name it .mrc.gz if it holds an MRC file",
}
_MAP = slice(208, 212)  # of an MRC header, the letters MAP
_REMEDIES = {  # what a library says, and what would be right
    "Unable to allocate": "give it more memory, or cut the volume",  # what numpy's MemoryError says
    "Unrecognised mode": "save it with mode 0, 1, 2, 6 or 12 (whole numbers or floats)",
    "imagecodecs": "save it uncompressed or with deflate, or install imagecodecs",
    "complex": "save real numbers",
    "filter": "write it with gzip or without compression, or install hdf5plugin",
    "large and may not be safe": "save one array of numbers with numpy.save",
}
_ANY = "copy or export it again, as MRC or TIFF"


def described(path: Path, error: BaseException) -> str:
    """One line on a file that a reader refused: what was said, what the file is, and a remedy.

    Args:
        path: of the file.
        error: of the reader; its message is kept where it already says what to do (a semicolon).
    """
    said = " ".join(str(error).split()) or type(error).__name__
    said = said if len(said) <= 300 else f"{said[:300]} ..."
    if ".npz" not in said and (kind := _kind(path)) is not None:
        return f"by its content it is {kind}"
    if "; " in said:
        return said
    for words, remedy in _REMEDIES.items():
        if words in said:
            return f"{said}; {remedy}"
    return f"{said}; {_ANY}"


def _kind(path: Path) -> str | None:
    """What a file is that its name says otherwise; None where that is not known."""
    try:
        with path.open("rb") as file:
            head = file.read(_MAP.stop)
        packed = head.startswith(b"\x1f\x8b")
        if packed and path.name.lower().endswith(".gz"):
            with gzip.open(path) as file:
                head = file.read(_MAP.stop)
    except (OSError, EOFError, zlib.error):
        return None
    name = path.name.lower()
    own = {".tif": (b"II", b"MM"), ".tiff": (b"II", b"MM"), ".npy": (b"\x93NUMPY",)}
    own |= dict.fromkeys(HDF5, (b"\x89HDF",))
    if head.startswith(own.get(Path(name).suffix, (b"\0\0\0\0none",))):
        return None
    for start, kind in _KINDS.items():
        if head.startswith(start):
            return f"{kind} and unpack it" if packed and start != b"\x1f\x8b" else kind
    if head[_MAP] in (b"MAP ", b"MAP\0") and not name.removesuffix(".gz").endswith(
        (".mrc", ".map", ".rec")
    ):
        return "an MRC file; name it .mrc"
    return None
