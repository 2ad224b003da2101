"""isgseg in napari: see granules, correct them, teach a network with them.

`napari.yaml` beside this folder tells napari what there is. What needs no window is in modules of
its own: `session` (proofreading), `journal` (what was done, on the disk at once), `finding`,
`teaching`, `reading` and `writing`. The docks are `find_dock`, `proofread_dock` and `teach_dock`.
"""
