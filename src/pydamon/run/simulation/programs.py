"""The programs of a simulation, as a user names them."""

from __future__ import annotations

from collections.abc import Callable

from pydamon.errors import RequestError, located
from pydamon.ops.reported.sources.base import Source
from pydamon.workload.builtin import load
from pydamon.workload.program import Phases, Program

TRACE_SAMPLE_US = 50  # an instruction of a trace takes a nanosecond: seconds of it are billions of them


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


def find(text: str) -> Program:
    """A workload by its name or file, ``lackey:FILE`` or ``perf-script:FILE``; raises RequestError."""
    if not is_trace(text):
        return Phases(load(text), text)
    kind, _, path = text.partition(":")
    if not path:
        raise RequestError(f"names no file; write it like {kind}:trace.txt", where=f"program {text!r}")
    from pydamon.ops.reported.program import program_of

    with located(kind, ": "):
        return program_of(SOURCES[kind](path), path)


def file_of(text: str) -> str | None:
    """The file that is read for it, if any."""
    from pydamon.workload.builtin import TEXTS

    return text.partition(":")[2] if is_trace(text) else None if text in TEXTS else text
