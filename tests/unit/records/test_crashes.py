"""A crash at any system call: every file that has its name is readable then, and holds what was flushed before.

A child process does the work, and ends without a word at its n-th call of those that change files (of a write, after
the first half); n counts up until the work gets done. `python -m benchmarks robustness` does the same at full size.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.records.record_samples import AGGR_NS, as_tuple, mapping, metadata, snapshot, write

from pydamon.cli import main
from pydamon.linux import temporary
from pydamon.records.joined import open_record
from pydamon.records.reader import RecordReader
from pydamon.records.rotating import RotatingWriter
from pydamon.records.writer import RecordWriter

pytestmark = pytest.mark.usefixtures("processes")

REGIONS = [(0x1000 * i, 0x1000 * (i + 1), i % 20, i) for i in range(1, 50)]
OLD = [snapshot(100, REGIONS)]
COUNT = 12
_CRASHED = 77
_MOST = 500


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _crash_at(number: int) -> None:
    """From now on the ``number``-th call that changes a file is the last thing that this process does."""
    left = [number]

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def replaced(*args: Any, **kwargs: Any) -> Any:
            changes = name != "open" or bool(args[1] & (os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_RDWR))
            left[0] -= changes
            if changes and left[0] == 0:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os._exit(_CRASHED)
            return call(*args, **kwargs)

        return replaced

    for name in ("open", "write", "rename", "replace", "link", "unlink", "ftruncate", "fchmod", "fchown", "close"):
        setattr(os, name, wrapped(name, getattr(os, name)))


def _crashes(work: Callable[[], object], check: Callable[[bool], object]) -> None:
    """Do the work in a child that crashes at its first, second, … call; ``check(whether it got done)`` after each."""
    for number in range(1, _MOST):
        for name in os.listdir():
            if name not in _KEPT:
                os.unlink(name)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _crash_at(number)
                work()
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, _CRASHED)
        for name in os.listdir():
            assert temporary.NAME.fullmatch(name) or not name.startswith("."), name
        check(status == 0)
        if status == 0:
            assert number > 5
            return
    raise AssertionError("it never gets done")


_KEPT = ("in.damon",)


def _flushed(path: str) -> int:
    """How many of the snapshots are in the file; they are the first ones."""
    with RecordReader(path) as reader:
        found = [as_tuple(one) for one in reader.snapshots()]
        assert not [line for line in reader.warnings() if "damaged" in line]
    assert found == [as_tuple(snapshot(number, REGIONS)) for number in range(len(found))]
    return len(found)


@pytest.mark.parametrize("existed", [False, True])
def test_recording(existed: bool) -> None:
    def work() -> None:
        with RecordWriter("r.damon", metadata=metadata(1)) as writer:
            writer.add_mappings(0, 0, [mapping(0x1000, 0x9000, "[heap]")])
            for number in range(COUNT):
                writer.add_snapshot(snapshot(number, REGIONS))
                writer.flush()

    def work_over_an_old_one() -> None:
        write(Path("r.damon"), OLD)
        work()

    def check(done: bool) -> None:
        if os.path.exists("r.damon"):
            with RecordReader("r.damon") as reader:
                old = [as_tuple(one) for one in reader.snapshots()] == [as_tuple(one) for one in OLD]
            assert (old and existed) or (_flushed("r.damon") == COUNT if done else _flushed("r.damon") >= 0)

    _crashes(work_over_an_old_one if existed else work, check)


def test_recording_in_parts() -> None:
    """What was there before the crash is read, whatever part was being begun."""

    def work() -> None:
        with RotatingWriter("run.damon", metadata=metadata(1), max_ns=4 * AGGR_NS, keep=2) as writer:
            for number in range(COUNT):
                writer.add_snapshot(snapshot(number, REGIONS))
                writer.tick(10**12 * number)  # at once

    def check(done: bool) -> None:
        parts = sorted(name for name in os.listdir() if name.startswith("run."))
        for part in parts:
            with RecordReader(part):
                pass
        if parts:
            with open_record("run.*.damon") as reader:
                times = [one.end_ns for one in reader.snapshots()]
                assert not [line for line in reader.warnings() if "left out" in line and "its last" not in line]
            assert times == sorted(times)
            assert len(times) == 2 * 4 if done else len(parts) <= 3

    _crashes(work, check)


@pytest.mark.parametrize(
    "arguments",
    [
        ("record", "cut", "-i", "in.damon", "-o", "out"),
        ("record", "merge", "in.damon", "-o", "out"),
        ("record", "aggregate", "-i", "in.damon", "--factor", "2", "-o", "out"),
        ("export", "in.damon", "--format", "csv", "-o", "out"),
        ("export", "in.damon", "--format", "damo", "-o", "out"),
        ("report", "heatmap", "-i", "in.damon", "-o", "out.html"),
    ],
)
def test_what_is_made_of_records_is_whole_or_not_there(arguments: tuple[str, ...]) -> None:
    write(Path("in.damon"), [snapshot(number, REGIONS) for number in range(COUNT)])
    assert main(arguments) == 0
    whole = Path(arguments[-1]).read_bytes()

    def check(done: bool) -> None:
        if done or os.path.exists(arguments[-1]):
            assert Path(arguments[-1]).read_bytes() == whole

    _crashes(lambda: main(arguments), check)
