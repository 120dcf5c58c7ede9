"""That processes whose parents have ended become children of this one, and not of init (PR_SET_CHILD_SUBREAPER)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on `ended` tells the fate of all that descends from this process, also where it has no other parent."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def ended() -> Iterator[tuple[int, int]]:
    """(pid, exit status, negative for a signal) of each child that has ended, which is waited for."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, os.waitstatus_to_exitcode(status)
