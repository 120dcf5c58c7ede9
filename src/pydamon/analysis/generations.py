"""Idle times from the kernel's generations: for each bound what has been idle for so long surely, and what perhaps.

A generation tells of its pages only between which two times they were accessed last. So a bound between the two gives
two numbers, which are as far apart as a generation is large: that is the resolution.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pydamon.analysis.distribution import IDLE_BOUNDS_S
from pydamon.linux.lru_gen import Generation, Part


class Idle(NamedTuple):
    """Bytes that have been idle for at least ``bound_s``: surely, and those of which it may be."""

    bound_s: int
    least_bytes: int
    most_bytes: int


def size_of(generation: Generation) -> int:
    """Bytes of both kinds."""
    return generation.anon_bytes + generation.file_bytes


def idle(parts: Iterable[Part]) -> list[Idle]:
    """From the bound 0 (all of it) to the last one that any page may have reached."""
    generations = [generation for part in parts for generation in part.generations]
    rows: list[Idle] = []
    for bound_s in (0, *IDLE_BOUNDS_S):
        ms = bound_s * 1000
        least = sum(size_of(g) for g in generations if g.low_ms >= ms)
        most = sum(size_of(g) for g in generations if g.high_ms is None or g.high_ms >= ms)
        if bound_s and least == 0 and (not rows or rows[-1].least_bytes == 0):
            break  # nothing is known of what is beyond
        rows.append(Idle(bound_s, least, most))
    return rows


def within(parts: Iterable[Part], cgroup: str) -> list[Part]:
    """Those of a cgroup and of all below it; ``/`` is all of them."""
    stem = "/" + cgroup.strip("/")
    return [part for part in parts if part.path == stem or part.path.startswith(stem.rstrip("/") + "/")]


def by_cgroup(parts: Iterable[Part]) -> list[tuple[str, list[Part]]]:
    """The parts of each cgroup, that with the most memory first."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.path, []).append(part)
    return sorted(found.items(), key=lambda item: (-sum(_size(part) for part in item[1]), item[0]))


def _size(part: Part) -> int:
    return sum(map(size_of, part.generations))
