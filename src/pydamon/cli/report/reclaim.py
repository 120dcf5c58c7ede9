"""What could be taken away of a target's memory, and why not more: what is idle, by kind, and whether there is swap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydamon.analysis.summary import WARM_S, Holding
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size

KINDS = ("file", "anonymous", "shared")
_TIME = format_duration_ns(round(WARM_S * 10**9))


def cold_by_kind(held: Iterable[Holding]) -> dict[str, int]:
    """The bytes of each kind that have been idle for `WARM_S` or longer."""
    cold = dict.fromkeys(KINDS, 0)
    for one in held:
        cold[one.kind] += one.cold
    return cold


def has_swap(reader: RecordReader) -> bool | None:
    """Whether there was swap when it was recorded; None if the record does not tell, or the machine was simulated."""
    if reader.info.ops == "sim":
        return None
    told = reader.info.machine.get("swap_bytes")
    if isinstance(told, int):
        return told > 0
    return True if any(row["swap_bytes"] for row in reader.table_rows("footprint")) else None


def words(cold: dict[str, int], swap: bool | None) -> str:
    """In a line: pages of files can go, anonymous ones and shared memory only to swap."""
    if not any(cold.values()):
        return f"nothing has been idle for {_TIME} or more"
    to_swap = {True: "to swap", False: "not here: there is no swap", None: "with swap, if there is any"}[swap]
    parts = [f"{format_size(cold['file'])} of files"] if cold["file"] else []
    parts += [f"{format_size(cold['anonymous'])} anonymous, {to_swap}"] if cold["anonymous"] else []
    parts += [f"{format_size(cold['shared'])} shared, if nobody else uses it"] if cold["shared"] else []
    return f"could be taken (idle for ≥ {_TIME}, by regions): {'; '.join(parts)}"


def as_object(cold: dict[str, int], swap: bool | None) -> dict[str, Any]:
    """The same for JSON."""
    return {"idle_at_least_s": WARM_S, **{f"{kind}_bytes": cold[kind] for kind in KINDS}, "swap": swap}
