"""Programs of a few lines that are monitored: they print ``ready`` once their memory is as it is to be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SLEEPS = "print('ready', flush=True)\nimport time\ntime.sleep(1000)"


@contextmanager
def program(text: str, *options: str) -> Iterator[int]:
    """The pid of a Python, with these options, that runs ``text`` and has said that it is ready."""
    with subprocess.Popen([sys.executable, *options, "-c", text], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"ready\n"
            yield child.pid
        finally:
            child.kill()
