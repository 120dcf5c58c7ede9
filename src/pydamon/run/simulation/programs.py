"""The programs of a simulation, as a user names them."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from pydamon.errors import RequestError, located
from pydamon.ops.reported.sources.base import Source
from pydamon.ops.sim.field import CELLS
from pydamon.spec import Intervals, NrRegions
from pydamon.workload.builtin import TEXTS, load
from pydamon.workload.program import Phases, Program

if TYPE_CHECKING:
    from pydamon.run.simulation.recorded import Recorded

TRACE_SAMPLE_US = 50  # an instruction of a trace takes a nanosecond: seconds of it are billions of them
MOST_PROGRAMS = 64
MOST_HELD = 16_000_000  # regions of recordings, pages and stretches of time of traces: some 24 bytes each
RECORD = "record:"
_PLENTY = 4  # times `CELLS` of all recordings together
_LEAST_CELLS = 1 << 10
_FEWEST_REGIONS, _MOST_REGIONS = 10, 100_000


class Programs(msgspec.Struct, frozen=True):
    """All of a simulation: ``recordings`` are those of them that are recorded, ``remarks`` what is to be said of them.

    ``traced``: some are traces.
    """

    programs: tuple[Program, ...]
    recordings: tuple[Recorded, ...]
    traced: bool
    paths: list[str]
    remarks: list[str]

    @property
    def intervals(self) -> Intervals:
        """What it is best monitored at: as the first recording was, fast with traces, else as usual."""
        if self.traced:
            return every(TRACE_SAMPLE_US, 20 * TRACE_SAMPLE_US)
        if self.recordings:
            return every(self.recordings[0].sample_us, self.recordings[0].aggr_us)
        return every(5_000, 100_000)

    @property
    def nr_regions(self) -> NrRegions:
        """The bounds of their number: those of all recordings together, else as usual."""
        if not self.recordings:
            return NrRegions()
        bounds = {one.path: one.regions for one in self.recordings}.values()
        low, high = (sum(pair[number] for pair in bounds) for number in (0, 1))
        return NrRegions(min=min(low, _MOST_REGIONS), max=min(max(high, _FEWEST_REGIONS), _MOST_REGIONS))


def gather(names: Sequence[str], target: int | None = None, *, hidden: bool = True) -> Programs:
    """A program by each of the names: a workload or its file, a trace; of a recording each target, or ``target`` only.

    ``hidden``: also the accesses that only page panels tell of, see `Recorded.program`. Raises RequestError, and
    PydamonError for a recording in which there is nothing to play.
    """
    found: list[Program | list[Recorded]] = []
    remarks: list[str] = []
    left = MOST_HELD
    for name in names:
        if is_recording(name):
            recorded, rows = _recorded(name, target, left, remarks)
            left -= rows
            found.append(recorded)
        elif is_trace(name):
            program, pairs = _traced(name, left)
            left -= pairs
            found.append(program)
        else:
            found.append(Phases(load(name), name))
    recordings = tuple(one for part in found if isinstance(part, list) for one in part)
    if target is not None and not recordings:
        raise RequestError("is of recordings, and none was given", where="target")
    number = sum(len(part) if isinstance(part, list) else 1 for part in found)
    if number > MOST_PROGRAMS:
        text = f"{number} processes are too many; the most is {MOST_PROGRAMS}"
        raise RequestError(f"{text}: choose a target" if recordings else text, where="program")
    cells = max(min(CELLS, _PLENTY * CELLS // max(len(recordings), 1)), _LEAST_CELLS)
    programs: list[Program] = []
    for part, name in zip(found, names, strict=True):
        programs += _played(part, name, cells, hidden) if isinstance(part, list) else [part]
    paths = [path for name in names for path in files_of(name)]
    return Programs(tuple(programs), recordings, any(map(is_trace, names)), paths, remarks)


# -- traces -----------------------------------------------------------------------------------------------------------


def _lackey(path: str) -> Source:
    from pydamon.ops.reported.sources.valgrind import open_trace

    return open_trace(path)


def _perf_script(path: str) -> Source:
    from pydamon.ops.reported.sources.perf_script import open_script

    return open_script(path)


SOURCES: dict[str, Callable[[str], Source]] = {"lackey": _lackey, "perf-script": _perf_script}


def is_trace(text: str) -> bool:
    """Whether it names a trace."""
    return text.partition(":")[0] in SOURCES and ":" in text


def _traced(text: str, most: int) -> tuple[Program, int]:
    """The program of ``lackey:FILE`` or ``perf-script:FILE``, and how much it holds. Raises RequestError."""
    kind, _, path = text.partition(":")
    if not path:
        raise RequestError(f"names no file; write it like {kind}:trace.txt", where=f"program {text!r}")
    from pydamon.ops.reported.program import program_of

    with located(kind, ": "):
        program = program_of(SOURCES[kind](path), path, most=most)
    return program, program.held


# -- recordings -------------------------------------------------------------------------------------------------------


def is_recording(text: str) -> bool:
    """Whether it names a record, or what a record can be made of (``record:FILE``), or the parts of one (a pattern)."""
    from pydamon.records.joined import is_record

    if text.startswith(RECORD):
        return True
    if text in TEXTS or is_trace(text) or "\0" in text:
        return False
    if glob.has_magic(text) and not os.path.lexists(text):
        return True
    return os.path.lexists(text) and (text.endswith(".damon") or is_record(text))


def _recorded(text: str, target: int | None, most: int, remarks: list[str]) -> tuple[list[Recorded], int]:
    """The targets of a record, and how many regions it has."""
    from pydamon.analysis.whatif.part import acted
    from pydamon.records.joined import open_record
    from pydamon.run.simulation.recorded import load as load_recorded

    path = text.removeprefix(RECORD)
    if not glob.has_magic(path) and not os.path.lexists(path):
        raise RequestError("there is no such file", where=f"program {text!r}")
    with open_record(path) as reader:
        numbers = {one.target for one in reader.info.targets}
        if target is not None and target not in numbers:
            raise RequestError(f"{path} has no target {target}; it has {_listed(numbers)}", where="target")
        if reader.rows > most:
            more = "" if most == MOST_HELD else f", with the programs before it {most:,}"
            long = f"has {reader.rows:,} regions in all; at most {MOST_HELD:,} can be played{more}"
            raise RequestError(f"{long}: cut it with pydamon record cut", where=path)
        found = load_recorded(reader, target=target)
        idle = numbers - {one.target for one in found}
        if target is None and idle:
            remarks.append(f"{path}: of target {_listed(idle)} nothing was in memory: left out")
        if not all(one.has_panel for one in found):
            remarks.append(f"{path}: without a page panel single pages that come back in idle regions are not played")
        if did := acted(reader):
            remarks.append(
                f"{path}: schemes acted while it was recorded ({', '.join(did)}), and so its ages are theirs"
            )
        remarks += [f"{path}: {line}" for line in reader.warnings()]
        return found, reader.rows


def _played(recordings: list[Recorded], text: str, cells: int, hidden: bool) -> list[Program]:
    """A process of each target, all of them there from the beginning."""
    path = text.removeprefix(RECORD)
    began_ns = min(one.began_ns for one in recordings)
    return [
        one.program(
            path if len(recordings) == 1 else f"{path}:{one.target}",
            hidden=hidden,
            after_ns=one.began_ns - began_ns,
            cells=cells,
        )
        for one in recordings
    ]


def _listed(numbers: set[int]) -> str:
    shown = sorted(numbers)
    return ", ".join(map(str, shown[:10])) + (", …" if len(shown) > 10 else "") if shown else "none"


def files_of(text: str) -> list[str]:
    """The files that are read for it."""
    if text in TEXTS:
        return []
    path = text.partition(":")[2] if is_trace(text) else text.removeprefix(RECORD)
    found = [path] if os.path.lexists(path) else sorted(glob.glob(path))
    return [path for path in found if os.path.isfile(path)]


def every(sample_us: int, aggr_us: int) -> Intervals:
    """These intervals; mappings are looked at once a second, or with each aggregation if that is longer."""
    return Intervals(sample_us=sample_us, aggr_us=aggr_us, ops_update_us=max(1_000_000, aggr_us))
