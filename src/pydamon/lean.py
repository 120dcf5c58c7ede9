"""Starting and ending cheaply: what a verb spends before its work begins counts against the bound on the CPU share."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

# Each library that NumPy may be built with starts a thread per CPU that spins for a while; nothing here multiplies
# matrices. (OpenBLAS: 70 ms of CPU time on two CPUs.)
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Import NumPy and what needs it in here: without its threads, and without searching what is new for garbage.

    The environment is put back, for the commands that are launched. What was imported is never searched again.
    """
    wanted = [name for name in _THREADS if name not in os.environ]
    collects = gc.isenabled()
    gc.disable()
    os.environ.update(dict.fromkeys(wanted, "1"))
    try:
        import numpy  # noqa: F401 - the one that reads the variables

        yield
    finally:
        for name in wanted:
            os.environ.pop(name, None)
        if collects:
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
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or its reader is gone: it was said
            stream.flush()
    atexit._run_exitfuncs()
    os._exit(status)
