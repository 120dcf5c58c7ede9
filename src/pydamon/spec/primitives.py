"""What is known of each primitive (a way to ask whether pages were accessed) before any is loaded: one row each.

The modules behind the rows are named in `pydamon.primitives.registry`. To add a primitive: its module, its row there,
and its row (and name) here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydamon.errors import RequestError

PrimitiveName = Literal["auto", "bpf", "bpf+idle", "idle", "smaps", "soft-dirty"]
_PROCESSES = ("vaddr", "fvaddr")


class PrimitiveFacts(NamedTuple):
    """One primitive. ``what`` is for ``doctor``.

    ``auto``: tried when no primitive is asked for, in the order of the table. ``page_granular``: an answer is about one
    page, else about its whole mapping. ``sees``: all accesses, or writes only. ``walks_all``: a sample walks all of a
    process's memory, so that its cost grows with that; the intervals are to follow the cost. ``ops``: the operations
    sets that can ask through it. ``has_panel``: pages of a page panel can be asked beside the regions.
    """

    name: PrimitiveName
    what: str
    auto: bool = True
    page_granular: bool = True
    sees: Literal["any", "write"] = "any"
    walks_all: bool = False
    ops: tuple[str, ...] = _PROCESSES
    has_panel: bool = False

    @property
    def knows_ages(self) -> bool:
        """Whether it tells of a single page that it was not accessed for a while (filters of the type young)."""
        return self.page_granular and self.sees == "any"


# Best first. idle and bpf+idle do not flush the TLB, so they miss accesses to pages that stay cached there.
PRIMITIVES = (
    PrimitiveFacts("bpf", "page-granular: reads page tables through BPF, clears through process_madvise",
                   has_panel=True),
    PrimitiveFacts("bpf+idle", "page-granular: reads page tables through BPF, clears through the idle bitmap",
                   has_panel=True),
    PrimitiveFacts("idle", "page-granular: idle page tracking; needs no BPF", ops=(*_PROCESSES, "paddr"),
                   has_panel=True),
    PrimitiveFacts("smaps", "per mapping: clear_refs and Referenced; no privilege needed for one's own processes",
                   page_granular=False, walks_all=True),
    PrimitiveFacts("soft-dirty", "writes only: soft-dirty bits",
                   auto=False, sees="write", walks_all=True),
)  # fmt: skip
CHOICES: tuple[str, ...] = ("auto", *(row.name for row in PRIMITIVES))


def facts(name: str) -> PrimitiveFacts:
    """The row of the primitive ``name`` (not ``auto``). Raises RequestError if there is none."""
    for row in PRIMITIVES:
        if row.name == name:
            return row
    raise RequestError(f"{name!r} is no primitive; there are {', '.join(CHOICES[1:])}", where="primitive")


def sees_writes_only(name: str | None) -> bool:
    """Whether ``name`` (which may be of another tool's record) is a primitive that sees writes only."""
    return any(row.name == name and row.sees == "write" for row in PRIMITIVES)


def serving(ops: str) -> tuple[str, ...]:
    """Names of the primitives through which ``ops`` can ask, best first."""
    return tuple(row.name for row in PRIMITIVES if ops in row.ops)


def seeing(kind: Literal["any", "write"]) -> tuple[str, ...]:
    """Names of the primitives that see all accesses, or writes only, best first."""
    return tuple(row.name for row in PRIMITIVES if row.sees == kind)
