"""Runs a workload as a real process: maps its regions and touches them as its phases say.

Time is CLOCK_MONOTONIC. A chunk of a few thousand accesses is one NumPy call on a view of the region; between chunks
the clock is read and the next pattern chosen. Only the regions are to look hot from outside, so the loop allocates
nothing of size: reductions and fills of a view need no temporary array, the indices of random accesses come in batches
of 1024 (8 KiB, in the same heap pages each time), and the garbage collector, which would walk the heap, is off.
"""

from __future__ import annotations

import gc
import heapq
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import RequestError
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.workload.layout import Layout
from pydamon.workload.memory import Memory
from pydamon.workload.model import Access, Phase, Workload
from pydamon.workload.truth import Schedule, merged, nr_positions, phase_spans, scaled_ns

# Accesses between two looks at the clock: some 20 us of work, so that Python's own microseconds do not count for much,
# and far below the 2 ms that a phase may end late, also when each access is a page fault.
CHUNK = 2048
RANDOM_BATCH = 1024

View = NDArray[np.uint8]
Step = Callable[[], int]  # does a chunk of accesses and returns how many


def run(
    workload: Workload,
    out: TextIO,
    *,
    title: str = "workload",
    mapping: str = "separate",
    repeat: int = 1,
    time_scale: float = 1.0,
    as_json: bool = False,
) -> None:
    """Play the workload in this process and tell on ``out``, line by line, what is touched and when.

    ``repeat`` 0 is for ever; ``time_scale`` multiplies all durations. Raises RequestError for nonsense options or a
    bad init file, MachineError if the memory does not suffice, BrokenPipeError if nobody reads ``out`` any more.
    """
    check_options(repeat, time_scale)
    with Memory(workload, mapping) as memory:
        report = _JsonReport(out) if as_json else _TextReport(out)
        report.layout(title, workload, memory.layout, repeat, time_scale)
        gc_was_on = gc.isenabled()
        gc.disable()
        try:
            _play(workload, memory, report, repeat, time_scale)
        finally:
            if gc_was_on:
                gc.enable()


def check_options(repeat: int, time_scale: float) -> None:
    """Raises RequestError for a negative repeat count or a time scale that makes no sense."""
    if repeat < 0:
        raise RequestError(f"{repeat} is negative; give a number of times, or 0 for ever", where="repeat")
    if not (math.isfinite(time_scale) and 0 < time_scale <= 1e6):
        raise RequestError(f"{time_scale} is not a factor for time; give a number like 0.1 or 2", where="time_scale")


def _play(workload: Workload, memory: Memory, report: _Report, repeat: int, time_scale: float) -> None:
    schedule = Schedule.nominal(workload, time.monotonic_ns(), repeat=repeat, time_scale=time_scale)
    done = 0
    while repeat == 0 or done < repeat:
        shift_ns = done * schedule.cycle_ns
        for interval in schedule.cycle:
            phase = workload.phases[interval.phase]
            report.phase(interval.phase, workload, memory.layout, time.monotonic_ns(), schedule.start_ns)
            # The planned end, not the length from now on: what one phase is late, the next makes up for.
            _play_phase(phase, workload, memory, interval.end_ns + shift_ns)
        done += 1
    report.end(time.monotonic_ns(), schedule.start_ns)


def _play_phase(phase: Phase, workload: Workload, memory: Memory, end_ns: int) -> None:
    """Touch memory until ``end_ns``. Each pattern gets its share of the accesses, counted, not drawn by lot."""
    steps: list[tuple[Step, int]] = []
    for access in phase.accesses:
        if access.probability:
            view = memory.views[access.region]
            make = _random_step if access.random else _sequential_step
            steps.append(
                (make(view, access, nr_positions(access, workload.regions[access.region])), access.probability)
            )
    now_ns = time.monotonic_ns
    if not steps:
        while (left_ns := end_ns - now_ns()) > 0:
            time.sleep(left_ns / 1e9)
        return
    if len(steps) == 1:
        step = steps[0][0]
        while now_ns() < end_ns:
            step()
        return
    # The pattern that is the furthest behind its share comes next: (accesses per probability, index).
    behind = [(0.0, index) for index in range(len(steps))]
    while now_ns() < end_ns:
        progress, index = behind[0]
        step, probability = steps[index]
        heapq.heapreplace(behind, (progress + step() / probability, index))


def _sequential_step(view: View, access: Access, positions: int) -> Step:
    """Goes on through the region at the pattern's stride, from its beginning again after its end."""
    touch = {"ro": _read, "wo": _write, "rw": _read_write}[access.mode]
    stride = access.stride_bytes
    at = 0

    def step() -> int:
        nonlocal at
        beyond = min(at + CHUNK, positions)
        count = beyond - at
        touch(view[at * stride : (beyond - 1) * stride + 1 : stride])
        at = beyond if beyond < positions else 0
        return count

    return step


def _random_step(view: View, access: Access, positions: int) -> Step:
    """Touches a batch of random bytes of the region."""
    rng = np.random.default_rng()
    read = np.empty(RANDOM_BATCH, dtype=np.uint8)
    mode = access.mode

    def step() -> int:
        indices = rng.integers(0, positions, size=RANDOM_BATCH)
        if mode != "wo":
            view.take(indices, out=read, mode="clip")  # "raise" would go through a temporary copy of `out`
        if mode != "ro":
            view[indices] = 1
        return RANDOM_BATCH

    return step


def _read(part: View) -> None:
    np.bitwise_or.reduce(part)  # any() would stop at the first byte that is set; sum() converts into a buffer


def _write(part: View) -> None:
    part.fill(1)


def _read_write(part: View) -> None:
    np.bitwise_xor(part, 1, out=part)


class _Report:
    """Tells what is touched and when; each line is flushed, so that a reader knows it at once."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def layout(self, title: str, workload: Workload, layout: Layout, repeat: int, time_scale: float) -> None:
        raise NotImplementedError

    def phase(self, index: int, workload: Workload, layout: Layout, now_ns: int, start_ns: int) -> None:
        raise NotImplementedError

    def end(self, now_ns: int, start_ns: int) -> None:
        raise NotImplementedError


class _JsonReport(_Report):
    """One JSON object per line; see ``truth.from_events`` for the reader."""

    def layout(self, title: str, workload: Workload, layout: Layout, repeat: int, time_scale: float) -> None:
        regions = [
            {"name": place.name, "start": place.start, "end": place.end, "size_bytes": region.size_bytes}
            for place, region in zip(layout.regions, workload.regions, strict=True)
        ]
        phases = []
        for phase in workload.phases:
            duration_ns = scaled_ns(phase.duration_ms, time_scale)
            phases.append(
                {
                    "name": phase.name,
                    "duration_ms": round(duration_ns / 1e6),
                    "duration_ns": duration_ns,
                    "accesses": [_access_json(access, workload) for access in phase.accesses],
                }
            )
        event = {"event": "layout", "name": title, "pid": os.getpid(), "clock": "monotonic", "repeat": repeat}
        self._line(json.dumps({**event, "regions": regions, "phases": phases}))

    def phase(self, index: int, workload: Workload, layout: Layout, now_ns: int, start_ns: int) -> None:
        ranges = merged(phase_spans(workload, layout, index)).tolist()
        hot = [{"start": start, "end": end} for start, end in ranges]
        name = workload.phases[index].name
        self._line(json.dumps({"event": "phase", "index": index, "name": name, "start_ns": now_ns, "hot": hot}))

    def end(self, now_ns: int, start_ns: int) -> None:
        self._line(json.dumps({"event": "end", "end_ns": now_ns}))


def _access_json(access: Access, workload: Workload) -> dict[str, Any]:
    return {
        "region": workload.regions[access.region].name,
        "random": access.random,
        "stride_bytes": access.stride_bytes,
        "probability": access.probability,
        "mode": access.mode,
    }


class _TextReport(_Report):
    """For people: the regions first, then a line as each phase begins."""

    def layout(self, title: str, workload: Workload, layout: Layout, repeat: int, time_scale: float) -> None:
        once_ns = sum(scaled_ns(phase.duration_ms, time_scale) for phase in workload.phases)
        times = "" if repeat == 1 else f", {repeat} times" if repeat else ", again and again"
        lines = [
            f"{title}: pid {os.getpid()}, {_count(len(workload.regions), 'region')} of "
            f"{format_size(workload.total_bytes)} in all, {_count(len(workload.phases), 'phase')} of "
            f"{format_duration_ns(once_ns)} in all{times}"
        ]
        width = max(len(place.name) for place in layout.regions)
        for place, region in zip(layout.regions, workload.regions, strict=True):
            lines.append(
                f"  {place.name:{width}}  {place.start:012x}-{place.end:012x}  {format_size(region.size_bytes):>10}"
            )
        self._line("\n".join(lines))

    def phase(self, index: int, workload: Workload, layout: Layout, now_ns: int, start_ns: int) -> None:
        phase = workload.phases[index]
        names = [workload.regions[access.region].name for access in phase.accesses if access.probability]
        shown = " ".join(dict.fromkeys(names[:12])) + (" ..." if len(names) > 12 else "")
        self._line(f"{(now_ns - start_ns) / 1e9:8.3f} s  {phase.name}: touches {shown or 'nothing'}")

    def end(self, now_ns: int, start_ns: int) -> None:
        self._line(f"{(now_ns - start_ns) / 1e9:8.3f} s  end")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
