"""Volumes in and out: MRC, TIFF and NPY files, pairs of volumes and labels, atomic writing."""
