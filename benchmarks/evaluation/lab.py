"""The lab's guest, for the experiments that need it."""

from __future__ import annotations

import subprocess
import sys
from typing import NoReturn

from benchmarks.kernel import ROOT


def run_in_lab(name: str, *options: str, words: tuple[str, ...] = ()) -> NoReturn:
    """Boot the guest with these options of ``lab/run``, have the experiment of that name done there as it was asked for
    here, with ``words`` before that, and end with its status."""
    command = [str(ROOT / "lab/run"), *options, "--", sys.executable, "-m", "benchmarks.evaluation", name]
    raise SystemExit(subprocess.run([*command, *words, *sys.argv[1:]]).returncode)
