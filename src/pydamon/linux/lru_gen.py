"""The generations of the multi-generational LRU (Linux 6.1), as debugfs tells them: memory by its idle time.

Documentation/admin-guide/mm/multigen_lru.rst. For each memory cgroup and NUMA node there are up to four generations;
whatever the kernel finds accessed when it begins a new one goes into that. It is only read here: beginning
generations, which the same file can do, changes what is reclaimed first.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pydamon.errors import MachineError, RequestError
from pydamon.linux.causes import cause
from pydamon.linux.mounts import mounts
from pydamon.linux.texts import MISREAD, decode, read_text

WHERE = "generations"
_ENABLED = Path("/sys/kernel/mm/lru_gen/enabled")
_MOST_BYTES = 64 << 20  # some hundred thousand cgroups
_GROUP = re.compile(r"memcg +(\d{1,9})(?: (.*))?", re.ASCII | re.DOTALL)
_NODE = re.compile(r" +node +(\d{1,4})", re.ASCII)
_GENERATION = re.compile(r" +(\d{1,19}) +(\d{1,15}) +(\d{1,13})x? +(\d{1,13})x? *", re.ASCII)


class Generation(msgspec.Struct, frozen=True):
    """Pages that were found accessed after ``number`` began and before the next one did; both kinds in bytes.

    ``low_ms``: for how long they have been idle at least, ``high_ms`` at most; None: not known, as of the oldest one,
    into which what is older yet is put.
    """

    number: int
    low_ms: int
    high_ms: int | None
    anon_bytes: int
    file_bytes: int


class Part(msgspec.Struct, frozen=True):
    """What a cgroup (``path`` from the root of the hierarchy) has on a node, the oldest generation first."""

    path: str
    node: int
    generations: tuple[Generation, ...]


def find() -> Path:
    """The file that tells the generations; raises MachineError with what would help where there is none."""
    try:
        state = int(read_text(_ENABLED), 0)
    except OSError:
        raise MachineError("this kernel has no generations (CONFIG_LRU_GEN, Linux 6.1)", where=WHERE) from None
    except ValueError:
        raise MachineError("is not understood", where=str(_ENABLED)) from None
    if not state & 1:
        raise MachineError(f"is switched off ({_ENABLED} is {state:#06x}); as root: echo y > {_ENABLED}", where=WHERE)
    roots = mounts("debugfs")
    if not roots:
        raise MachineError(
            "debugfs, which tells the generations, is not mounted; as root: mount -t debugfs none /sys/kernel/debug",
            where=WHERE,
        )
    return roots[0] / "lru_gen"


def probe() -> None:
    """Raise MachineError with the reason if the generations cannot be read here."""
    read(find())


def read(path: Path) -> list[Part]:
    """What a file of that format says; raises MachineError if this user may not read it, RequestError if it is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except PermissionError as error:
        raise MachineError(f"cannot be read: {cause(error, 'it needs root')}", where=str(path)) from None
    except (OSError, ValueError) as error:  # a NUL character
        raise RequestError(f"cannot be read: {getattr(error, 'strerror', error)}", where=str(path)) from None
    if len(raw) > _MOST_BYTES:
        raise RequestError(f"has more than {_MOST_BYTES >> 20} MiB; that is no list of generations", where=str(path))
    if not raw.strip():
        raise RequestError("is empty: it holds no generations; debugfs has them in lru_gen", where=str(path))
    parts = parse(decode(raw))
    if not parts:
        raise RequestError("has no generations in it; debugfs has them in lru_gen", where=str(path))
    return parts


def parse(text: str) -> list[Part]:
    """The parts in their order; lines that are not understood are left out and counted."""
    parts: list[Part] = []
    path: str | None = None
    node: int | None = None
    rows: list[tuple[int, ...]] = []
    for line in [*text.split("\n"), "memcg 0"]:  # the last ends what stands before it
        group, beside = _GROUP.fullmatch(line), _NODE.fullmatch(line)
        row = _GENERATION.fullmatch(line)
        if group or beside:
            if path is not None and node is not None and rows:
                parts.append(Part(path, node, _generations(rows)))
            rows = []
            node = int(beside[1]) if beside else None
            path = (group[2] or "/") if group else path
        elif row and path is not None and node is not None:
            rows.append(tuple(map(int, row.groups())))
        elif line:
            MISREAD.note("lru_gen", line)
    return parts


def _generations(rows: Sequence[tuple[int, ...]]) -> tuple[Generation, ...]:
    """From (number, age in ms, pages, pages), in whatever order: nothing younger is older than what is older."""
    youngest_first = sorted(rows, reverse=True)
    found: list[Generation] = []
    low = 0
    for number, age, anon, file in youngest_first:
        high = max(age, low)
        found.append(Generation(number, low, high, anon * mmap.PAGESIZE, file * mmap.PAGESIZE))
        low = high
    found[-1] = msgspec.structs.replace(found[-1], high_ms=None)
    return tuple(reversed(found))
