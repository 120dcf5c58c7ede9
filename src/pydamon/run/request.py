"""What a user asks for when something is monitored, beside the spec."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """How a spec is to be run and where what is found goes. Times in ns, ``max_cpu`` as a share of one CPU.

    ``launch`` is a command to start and to monitor. ``rotate`` is after how many bytes, or ns, a new file begins.
    ``engine``: ``user``, ``kernel`` or ``auto``. ``dry_run``: schemes only find out what they would do; ``undo``: what
    they did is taken back in the end.
    """

    output: str
    duration_ns: int | None
    launch: list[str] | None
    pids: tuple[int, ...]
    include_children: bool
    cgroup: str | None
    ops: str
    primitive: str
    workload: str | None
    mapping: str
    seed: int | None
    fit_intervals: bool
    max_cpu: float | None
    dry_run: bool = False
    undo: bool = False
    rotate: tuple[int | None, int | None] | None = None
    keep: int | None = None
    source: str | None = None
    threads: frozenset[int] | None = None
    cpus: frozenset[int] | None = None
    nodes: frozenset[int] | None = None
    resctrl: bool = False
    engine: str = "user"
