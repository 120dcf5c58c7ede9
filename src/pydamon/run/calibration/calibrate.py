"""All that can be measured here, one after the other, and why the rest keeps its default."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import date

import msgspec

from pydamon.errors import MachineError, RequestError
from pydamon.linux.cpu import first_cpu
from pydamon.linux.metrics import MachineMetrics
from pydamon.run.calibration import files, pages, swapping
from pydamon.run.calibration.pages import Found
from pydamon.run.calibration.timing import MOST, Bench, Clock, spread
from pydamon.spec.costs import TABLE, Spread
from pydamon.spec.units import format_size

LEAST_MEMORY, USUAL_MEMORY, MOST_MEMORY = 16 << 20, 256 << 20, 2 << 30
_SHARE_NS, _QUICK_NS = 700_000_000, 100_000_000  # for each measurement
_QUICK_MOST = 10
_SPARE = 2  # times as much memory has to be available: nobody is to be paged out for this

# What is measured, by name: it gives these costs, or raises MachineError that says why not.
MEASUREMENTS: dict[tuple[str, ...], Callable[[Bench], Found]] = {
    ("zram_ratio_permil",): swapping.ratio,  # before ours are in it
    ("minor_fault_ns",): pages.minor_fault,
    ("mark_ns",): pages.mark,
    ("collapse_ns",): pages.collapse,
    ("tlb_miss_ns",): pages.tlb,
    ("migrate_ns",): pages.migrate,
    ("file_in_ns", "file_readahead"): files.read,
    ("file_out_ns",): files.drop,
    (
        "zram_in_ns",
        "zram_out_ns",
        "zram_readahead",
        "ssd_in_ns",
        "ssd_out_ns",
        "ssd_readahead",
        "willneed_ns",
    ): swapping.swap,
}
_ONE_KIND = "this machine's swap is of the other kind"
_NEVER = {
    "look_ns": "it is of the action that looks",
    "region_ns": "it is of the action",
    "check_ns": "it differs by primitive; pydamon doctor lists them",
    "overlap_permil": "it is of the program",
    "reclaim_on_app_permil": "it is of the program, and of how busy the CPUs are",
    "memory_share_permil": "it is of the program",
    "latency_ns": "one load after the other cannot be timed from here; Intel MLC or lmbench do it",
    "bandwidth_bytes": "it is of all CPUs together; STREAM or Intel MLC measure it",
    "slow_latency_ns": "one load after the other cannot be timed from here; Intel MLC or lmbench do it",
    "slow_bandwidth_bytes": "it is of all CPUs together; STREAM or Intel MLC measure it",
}


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What was found: ``measured`` costs by name, why the ``left`` ones keep their default, where, and in what time."""

    measured: dict[str, Spread]
    left: dict[str, str]
    machine: str
    memory: int
    directory: str
    took_ns: int


def calibrate(
    *,
    memory: int = USUAL_MEMORY,
    directory: str = "/var/tmp",
    quick: bool = False,
    clock: Clock | None = None,
) -> Calibration:
    """Measure. Raises RequestError for what is no directory, and for too little or too much memory."""
    began_ns = time.monotonic_ns()
    if "\0" in directory or not os.path.isdir(directory):
        raise RequestError(f"{directory!r} is no directory", where="directory")
    if not LEAST_MEMORY <= memory <= MOST_MEMORY:
        least, most = format_size(LEAST_MEMORY), format_size(MOST_MEMORY)
        raise RequestError(f"is {format_size(memory)}; it must be {least} to {most}", where="memory")
    available = MachineMetrics().available_bytes()
    if available is not None and available < _SPARE * memory:
        text = f"{format_size(available)} of memory are available; at most half of that may be taken"
        raise RequestError(text, where="memory")
    share_ns, most_results = (_QUICK_NS, _QUICK_MOST) if quick else (_SHARE_NS, MOST)
    bench = Bench(memory, directory, share_ns, clock=clock, most=most_results)
    measured: dict[str, Spread] = {}
    left: dict[str, str] = {}
    for names, measure in MEASUREMENTS.items():
        found, why = _one(measure, bench)
        for row in TABLE:
            if row.name in names and found.get(row.name):
                measured[row.name] = spread(row, found[row.name])
            elif row.name in names:
                left[row.name] = why or _ONE_KIND
    left = {row.name: (_NEVER | left)[row.name] for row in TABLE if row.name not in measured}
    took_ns = time.monotonic_ns() - began_ns
    return Calibration(
        measured=measured, left=left, machine=machine_words(), memory=memory, directory=directory, took_ns=took_ns
    )


def _one(measure: Callable[[Bench], Found], bench: Bench) -> tuple[Found, str]:
    """What was found, or why nothing was."""
    try:
        return measure(bench), ""
    except MachineError as error:
        return {}, str(error)
    except OSError as error:
        return {}, f"the kernel refuses it: {error.strerror}"


def machine_words() -> str:
    """Which machine this is: its CPUs, its kernel, the day."""
    uname = os.uname()
    try:
        told = first_cpu()
    except OSError:
        told = ""
    names = [line.partition(":")[2].strip() for line in told.split("\n") if line.startswith("model name")]
    cpu = names[0] if names else uname.machine
    return f"{cpu}, {os.cpu_count()} CPUs, {uname.sysname} {uname.release}, {date.today().isoformat()}"
