"""Starting and ending cheaply: what a verb spends before its work begins counts against the bound on the CPU share."""

from __future__ import annotations

import atexit
import gc
import os
import sys

TYPE_CHECKING = False  # neither typing nor contextlib: the shortest commands need this module
if TYPE_CHECKING:
    from typing import NoReturn

# Each library that NumPy may be built with starts a thread per CPU that spins for a while; nothing here multiplies
# matrices. (OpenBLAS: 70 ms of CPU time on two CPUs.)
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


# New objects until a search for garbage, which Python makes after 700: little of ours ever forms a cycle, and imports
# make 100,000 objects to stay (a tenth of a short recording's CPU time).
_NEW_OBJECTS = 50_000


def begin() -> None:
    """The first thing that a process of ours does."""
    gc.set_threshold(_NEW_OBJECTS)


class imports:
    """Import NumPy and what needs it in here: without its threads, and without searching what is new for garbage.

    The environment is put back, for the commands that are launched. What was imported is never searched again.
    """

    def __enter__(self) -> None:
        self._wanted = [name for name in _THREADS if name not in os.environ]
        self._collects = gc.isenabled()
        gc.disable()
        os.environ.update(dict.fromkeys(self._wanted, "1"))
        import numpy  # noqa: F401 - the one that reads the variables

    def __exit__(self, *_: object) -> None:
        for name in self._wanted:
            os.environ.pop(name, None)
        if self._collects:
            gc.freeze()
            gc.enable()


def keep_standard_files() -> None:
    """What is opened from now on must not become standard input, output or error, should those be closed."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def leave(status: int) -> NoReturn:
    """End the process: what is registered for that is done, but modules are not taken apart (35 ms of CPU time)."""
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 - contextlib is not there yet
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, or its reader is gone: it was said
    atexit._run_exitfuncs()
    os._exit(status)
