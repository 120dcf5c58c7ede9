"""What a record, its targets and their addresses are called: the same words in reports, screens and pages."""

from __future__ import annotations

from pydamon.analysis.totals import TOTAL
from pydamon.linux.process import Mapping
from pydamon.plain import fit, printable
from pydamon.records.joined import AnyReader
from pydamon.spec.primitives import sees_writes_only


def target_line(reader: AnyReader, target: int, width: int | None = None, ellipsis: str = "…") -> str:
    """What is monitored, in words: ``my_service run.conf (pid 1234)``; the command is cut to fit ``width``."""
    if target == TOTAL:
        return "all targets"
    info = reader.info.target(target)
    head = f"target {target}: " if len(reader.info.targets) > 1 else ""
    if info.pid is None and not info.command:
        return "physical memory" if reader.info.ops == "paddr" else f"target {target}"
    if not info.command:
        return f"{head}pid {info.pid}"
    tail = f" (pid {info.pid})" if info.pid is not None else ""
    words = printable(info.command).split(" ")
    # The directories of a program, or of an interpreter and its script, say little and take much room.
    words[:2] = [word.rpartition("/")[2] or word for word in words[:2]]
    command = " ".join(words)
    if width is not None:
        command = fit(command, max(width - len(head) - len(tail), 8), ellipsis)
        return fit(head + command + tail, width, ellipsis)
    return head + command + tail


def source_line(reader: AnyReader) -> str:
    """How it was monitored: ``vaddr by bpf``; empty if the record does not say."""
    info = reader.info
    if info.clock == "virtual" and info.ops != "reported":
        return "simulated"
    ops, primitive = (printable(text) if text else "" for text in (info.ops, info.primitive))
    return " by ".join(part for part in (ops, primitive) if part) + (
        " (writes)" if sees_writes_only(info.primitive) else ""
    )


def mappings_over(reader: AnyReader, target: int) -> list[Mapping]:
    """A target's mappings over the whole record: at up to eight times, as one list."""
    times = reader.mapping_times(target)
    picked = sorted({times[at * (len(times) - 1) // 7] for at in range(8)}) if times else []
    return [mapping for time_ns in picked for mapping in reader.mappings_at(target, time_ns)]
