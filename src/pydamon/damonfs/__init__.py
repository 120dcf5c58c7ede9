"""damonfs: DAMON's sysfs tree (and the legacy debugfs one) served by the user engine.

``nodes`` and ``formats`` are files and directories that live in memory and answer as sysfs would; ``tree`` and
``scheme_tree`` lay DAMON's out; ``request`` reads a spec from it; ``runner`` runs that in a thread; ``commands`` is
what ``state`` understands; ``fuse`` shows it all to other programs.
"""
