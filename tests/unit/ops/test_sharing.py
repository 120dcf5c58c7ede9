"""Which pages of one process are which of another: of real processes with known memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pydamon.errors import MachineError
from pydamon.linux import pagemap
from pydamon.linux.process import Mapping, Process
from pydamon.ops.sharing import Sharing

PAGE = 4096


def obstacle() -> str | None:
    try:
        pagemap.probe()
    except MachineError as error:
        return str(error)
    return None


pytestmark = [
    pytest.mark.usefixtures("processes"),
    pytest.mark.skipif(obstacle() is not None, reason=obstacle() or ""),
]


class Both:
    """This process and a child as targets 0 and 1."""

    def __init__(self, child: int) -> None:
        self.processes = [Process(os.getpid()), Process(child)]
        self.found = [process.mappings() for process in self.processes]

    def mappings(self, target: int) -> list[Mapping]:
        return self.found[target]


@contextlib.contextmanager
def forked(do: Callable[[], object]) -> Iterator[Both]:
    """A child that has done that, and waits."""
    ready, done = os.pipe()
    child = os.fork()
    if not child:
        try:
            do()
            os.write(done, b"1")
            signal.pause()
        finally:
            os._exit(0)
    try:
        os.read(ready, 1)
        both = Both(child)
        yield both
        for process in both.processes:
            process.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(done)


def address_of(memory: mmap.mmap) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def pages(memory: mmap.mmap) -> np.ndarray:
    return np.arange(len(memory) // PAGE, dtype=np.uint64) * np.uint64(PAGE) + np.uint64(address_of(memory))


def filled(memory: mmap.mmap) -> mmap.mmap:
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, len(memory), PAGE):
        memory[at] = 1
    return memory


def where(both: Both, addresses: np.ndarray, target: int = 1, owner: int = 0) -> np.ndarray:
    found = Sharing(both).also_mapped(np.full(len(addresses), owner, np.intp), addresses, target)
    assert found is not None
    return found


def test_what_a_child_has_inherited_is_shared_until_it_is_written() -> None:
    memory = filled(mmap.mmap(-1, 16 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    mine = pages(memory)

    def write() -> None:
        for page in range(4):
            memory[page * PAGE] = 2

    with forked(write) as both:
        found = where(both, mine)
        assert found.tolist() == [0] * 4 + mine[4:].tolist()
        assert where(both, mine, target=0, owner=1).tolist() == [0] * 4 + mine[4:].tolist()
        assert not where(both, mine, target=0, owner=0).any()  # its own are not shared


def test_a_file_is_the_same_wherever_it_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(16 * PAGE))
    with open(tmp_path / "f", "r+b") as file:
        memory = filled(mmap.mmap(file.fileno(), 16 * PAGE))
        mine = pages(memory)
        elsewhere: list[mmap.mmap] = []

        def map_again() -> None:
            memory.madvise(mmap.MADV_DONTNEED)
            elsewhere.append(mmap.mmap(file.fileno(), 8 * PAGE, offset=8 * PAGE))
            for at in range(0, 8 * PAGE, PAGE):
                elsewhere[0][at]

        with forked(map_again) as both:
            found = where(both, mine)
            second = [m.start for m in both.mappings(1) if m.name.endswith("/f") and m.offset == 8 * PAGE]
            assert len(second) == 1
            assert found.tolist() == [0] * 8 + [second[0] + PAGE * page for page in range(8)]


def test_who_has_ended_maps_nothing() -> None:
    memory = filled(mmap.mmap(-1, 4 * PAGE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))
    with forked(lambda: memory[:]) as both:
        assert where(both, pages(memory)).all()
        os.kill(both.processes[1].pid, signal.SIGKILL)
        os.waitid(os.P_PID, both.processes[1].pid, os.WEXITED | os.WNOWAIT)
        assert not where(both, pages(memory)).any()


def test_without_frame_numbers_it_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydamon.ops.sharing.frames_of", lambda entries: np.zeros(len(entries), np.uint64))
    memory = filled(mmap.mmap(-1, 4 * PAGE, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))
    with forked(lambda: None) as both:
        addresses = pages(memory)
        assert Sharing(both).also_mapped(np.zeros(4, np.intp), addresses, 1) is None
