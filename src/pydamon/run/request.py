"""What a spec does not say about how it is run, and where what is found goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from pydamon.ops.reported.sources.base import Source
    from pydamon.spec.machine import MachineSpec
    from pydamon.workload.model import Workload
    from pydamon.workload.program import Program

ENGINES = ("auto", "user", "kernel", "sim", "reported")


class Request(msgspec.Struct, frozen=True):
    """How a spec is to be run. Times in ns, ``max_cpu`` as a share of one CPU, and ``usual_cpu`` likewise: what
    intervals that tune themselves keep to where nothing else was said.

    ``engine``: one of `ENGINES`, or None for the one that its operations set suggests; ``auto`` is the kernel's DAMON
    if that is free and can do it. ``launch`` is a command to start and to monitor. ``workload`` (a name, a file, one
    that was read already, or several programs) is for a simulation, on ``machine``, ``repeat`` times (0: for ever);
    with ``real_time`` that takes as long as what it simulates. ``source``, ``threads``, ``cpus``, ``nodes`` and
    ``writes`` (nothing else counts) are for reported accesses, also those beside sampling. ``dry_run``: schemes only
    find out what they would do; ``undo``: what they did is taken back in the end, with ``remember_homes`` it may be.
    ``by_addresses``: all of a region counts, as in the kernel, and not what of it is resident. ``output`` is the
    record, if there is to be one; of one that was there nothing is kept with ``force``. ``rotate`` is after how many
    bytes, or ns, a new file begins; with ``pause`` a disk that is full ends the file only: another is begun as soon as
    there is room. ``launch_only_advised``: the command gets huge pages only where it, or we, ask for them, if the
    kernel can do that. ``panel`` is the number of pages of the page panel, 0 for none, None for the usual number where
    there can be one.
    """

    engine: str | None = None
    launch: list[str] | None = None
    launch_only_advised: bool = False
    duration_ns: int | None = None
    seed: int | None = None
    max_cpu: float | None = None
    usual_cpu: float | None = None
    workload: Workload | str | tuple[Program, ...] | None = None
    mapping: str = "separate"
    machine: MachineSpec | None = None
    repeat: int = 1
    real_time: bool = False
    source: Source | str | None = None
    threads: frozenset[int] | None = None
    cpus: frozenset[int] | None = None
    nodes: frozenset[int] | None = None
    writes: bool = False
    dry_run: bool = False
    undo: bool = False
    remember_homes: bool = False
    resctrl: bool = False
    by_addresses: bool = False
    output: str = ""
    force: bool = False
    rotate: tuple[int | None, int | None] | None = None
    keep: int | None = None
    pause: bool = False
    panel: int | None = None

    @property
    def only_user(self) -> dict[str, Any]:
        """What was asked for that only the user engine can do, by field."""
        fields = {
            "dry_run": self.dry_run,
            "undo": self.undo,
            "max_cpu": self.max_cpu,
            "resctrl": self.resctrl,
            "panel": self.panel,
            "source": self.source,
        }
        return {name: value for name, value in fields.items() if value}
