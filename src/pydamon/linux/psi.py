"""Pressure stall information (Documentation/accounting/psi.rst): how long tasks waited, of the machine or a cgroup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

from pydamon.errors import MachineError
from pydamon.linux.causes import cause
from pydamon.linux.texts import read_text

Resource = Literal["memory", "io", "cpu"]
_OF_MACHINE = Path("/proc/pressure")
_SOME = re.compile(r"^some avg10=([\d.]+) avg60=([\d.]+) .*\btotal=(\d+)$", re.MULTILINE)


class Psi(msgspec.Struct, frozen=True):
    """Some task waited for ``total_us`` so far; in the last 10 and 60 seconds for that share of time, in percent."""

    total_us: int
    avg10_percent: float
    avg60_percent: float


def read(resource: Resource, cgroup: Path | None = None, *, of_machine: Path = _OF_MACHINE) -> Psi:
    """That of a cgroup (its directory), or of the machine. Raises MachineError where it is not told."""
    return read_file(of_machine / resource if cgroup is None else cgroup / f"{resource}.pressure")


def read_file(file: Path) -> Psi:
    """What such a file tells. Raises MachineError."""
    try:
        text = read_text(file)
    except OSError as error:
        needs = "it needs CONFIG_PSI, psi=1 at boot, and cgroup.pressure of the cgroup"
        raise MachineError(f"cannot be read: {cause(error)}; {needs}", where=str(file)) from None
    found = _SOME.search(text)
    if found is None:
        raise MachineError("names no total of 'some'", where=str(file))
    return Psi(int(found[3]), float(found[1]), float(found[2]))
