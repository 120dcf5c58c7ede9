"""What a page that comes back costs, and one that goes: the few costs that an answer from a recording needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from pydamon.errors import RequestError

Backing = Literal["zram", "ssd"]
BACKINGS: tuple[Backing, ...] = ("zram", "ssd")
_SECOND_NS = 1_000_000_000
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class SwapCosts:
    """Times in ns per page of 4 KiB, shares in 1/1000; the defaults are of the order of a 3 GHz machine.

    ``zram_in_ns`` and ``ssd_in_ns`` are what an access waits for a page; ``zram_out_ns`` and ``ssd_out_ns`` the CPU
    time of swapping one out. ``overlap_permil``: share of a wait in which the program gets on;
    ``reclaim_on_app_permil``: share of swapping out that takes CPU time from it. Read-ahead is not counted: nothing in
    a recording says whether memory comes back in order. Raises RequestError.
    """

    zram_in_ns: int = 8_000
    zram_out_ns: int = 2_500
    ssd_in_ns: int = 90_000
    ssd_out_ns: int = 4_000
    overlap_permil: int = 0
    reclaim_on_app_permil: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, most = getattr(self, field.name), 1000 if field.name.endswith("permil") else _SECOND_NS
            if not 0 <= value <= most:
                raise RequestError(f"is {value}; it must be 0 to {most}", where=f"costs.{field.name}")

    @classmethod
    def of(cls, costs: Mapping[str, int]) -> SwapCosts:
        """Those of a larger table of costs, by their names; what it does not have keeps its default."""
        return cls(**{field.name: costs[field.name] for field in fields(cls) if field.name in costs})

    def lost(self, backing: Backing, back_per_s: float, out_per_s: float) -> float:
        """The share of its time that a program loses to so many bytes a second that come back and go out."""
        in_ns, out_ns = self._of(backing)
        wait = back_per_s / _PAGE * in_ns * (1000 - self.overlap_permil) / 1000
        work = out_per_s / _PAGE * out_ns * self.reclaim_on_app_permil / 1000
        return (wait + work) / _SECOND_NS

    def cpu(self, backing: Backing, back_per_s: float, out_per_s: float) -> float:
        """The share of one CPU that this takes: of an SSD, only what goes out, since reads do not compute."""
        in_ns, out_ns = self._of(backing)
        back_ns = in_ns if backing == "zram" else 0
        return (back_per_s * back_ns + out_per_s * out_ns) / _PAGE / _SECOND_NS

    def _of(self, backing: Backing) -> tuple[int, int]:
        if backing == "zram":
            return self.zram_in_ns, self.zram_out_ns
        return self.ssd_in_ns, self.ssd_out_ns
