"""From a spec to an operations set on this machine: who is monitored, and that nothing stays open."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.waiting import wait_until

from pydamon.engines.base import Choice
from pydamon.engines.user import access, open_ops
from pydamon.engines.user.choose import offers
from pydamon.engines.user.engine import UserEngine
from pydamon.errors import MachineError, RequestError
from pydamon.linux.process import Process
from pydamon.ops import paddr
from pydamon.spec import Spec, from_builtins
from pydamon.spec.primitives import CHOICES, seeing, serving

FAST = {"sample_us": 2_000, "aggr_us": 10_000, "ops_update_us": 20_000}
# One mapping of 1 MiB; says where it is.
CHILD = (
    "import ctypes, mmap, time\n"
    "area = mmap.mmap(-1, 1 << 20)\n"
    "print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)\n"
    "time.sleep(600)"
)
USABLE = [offer.name for offer in offers() if offer.obstacle is None and offer.name in seeing("any")]


def spec(**context: Any) -> Spec:
    return from_builtins({"kdamonds": [{"contexts": [{"intervals": FAST, **context}]}]})


@pytest.fixture
def child(processes: None) -> Iterator[tuple[int, int]]:
    """(pid, start of its mapping)"""
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield process.pid, int(process.stdout.readline())
        process.kill()


def open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the one of the listing itself
            continue
    return sorted(found)


@pytest.mark.parametrize("primitive", USABLE)
@pytest.mark.parametrize("ops", ["vaddr", "fvaddr"])
def test_nothing_stays_open_behind_an_engine(child: tuple[int, int], primitive: str, ops: str) -> None:
    pid, start = child
    target = {"pid": pid, "regions": [{"start": start, "end": start + (1 << 20)}]}
    request = spec(ops=ops, primitive=primitive, targets=[target])
    # What a process opens once and keeps (the kernel's symbols, say) is open after the first time.
    for _ in range(2):
        before = open_files()
        engine = UserEngine(request)
        for count, _snapshots in enumerate(engine.monitor()):
            if count == 3:
                engine.kdamond.stop()
        del engine
        after = open_files()
    assert after == before


def test_what_processes_share_is_closed_when_opening_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    monkeypatch.setattr(access.Access, "close", lambda self: closed.append("access"))
    before = open_files()
    for targets, ops in (
        ([{"pid": 2**22 + 5}], "vaddr"),
        ([{"pid": os.getpid(), "regions": []}, {"pid": 2**22 + 5}], "vaddr"),
        ([{"pid": os.getpid(), "regions": [{"start": 4096, "end": 8192}]}] * 1
         + [{"pid": 2**22 + 5, "regions": [{"start": 4096, "end": 8192}]}], "fvaddr"),
    ):  # fmt: skip
        with pytest.raises(RequestError, match="no process has the id"):
            UserEngine(spec(ops=ops, primitive="smaps", targets=targets))
    assert closed == ["access"] * 3
    assert open_files() == before


def children_of(pid: int) -> list[str]:
    """The command lines of a process's children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/cmdline").read_bytes().decode().rstrip("\0").replace("\0", " ") for child in children]


@pytest.mark.usefixtures("processes")
def test_children_and_cgroups_come_from_the_spec_alone() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600 & wait"], start_new_session=True) as root:
        try:
            wait_until(lambda: children_of(root.pid) == ["sleep 600", "sleep 600"])  # not on their way to that
            request = spec(primitive="smaps", targets=[{"pid": root.pid, "include_children": True}])
            engine = UserEngine(request)
            for _ in engine.monitor():
                if engine.ops.nr_targets == 3:
                    engine.kdamond.stop()
            commands = [row["command"] for row in engine.ops.take_joined()]
        finally:
            os.killpg(root.pid, 9)
    assert commands[1:] == ["sleep 600", "sleep 600"]
    with pytest.raises((RequestError, MachineError)) as caught:
        UserEngine(spec(primitive="smaps", targets=[{"cgroup": "no/such/cgroup"}]))
    assert caught.value.where == "cgroup"


class TestPhysicalMemory:
    @pytest.mark.parametrize("primitive", sorted({*CHOICES} - {"auto", *serving("paddr")}))
    def test_it_is_not_asked_through_a_processs_primitive(self, primitive: str) -> None:
        context = spec(ops="paddr", primitive=primitive, targets=[{}]).kdamonds[0].contexts[0]
        with pytest.raises(RequestError, match="physical memory is asked through idle"):
            open_ops.choose_for(context)

    def test_what_is_missing_names_the_ops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def choose(name: str) -> Choice:
            raise MachineError(f"no {name} here", where="primitive idle")

        monkeypatch.setattr(open_ops, "choose", choose)
        with pytest.raises(MachineError) as caught:
            UserEngine(spec(ops="paddr", targets=[{}]))
        assert str(caught.value) == "ops paddr: no idle here"

    def test_without_frame_numbers_of_others_it_is_monitored_without_owners(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pydamon.ops import reverse_map

        def refuse() -> None:
            raise MachineError("shows no frame numbers")

        given: list[object] = []
        monkeypatch.setattr(reverse_map, "probe", refuse)
        monkeypatch.setattr(paddr, "PaddrOps", lambda **options: given.append(options["reverse_map"]))
        open_ops._physical(spec(ops="paddr", targets=[{}]).kdamonds[0].contexts[0], None)  # type: ignore[arg-type]
        assert given == [None]


def test_fixed_ranges_do_not_follow_the_mappings(child: tuple[int, int]) -> None:
    pid, start = child
    request = spec(
        ops="fvaddr",
        primitive="smaps",
        targets=[{"pid": pid, "regions": [{"start": 1 << 40, "end": 1 << 41}, {"start": start, "end": start + 8192}]}],
    )
    engine = UserEngine(request)
    for count, (snapshot,) in enumerate(engine.monitor()):
        assert (int(snapshot.start[0]), int(snapshot.end[-1])) == (1 << 40, start + 8192)
        assert int((snapshot.end - snapshot.start).sum()) == 8192 + (1 << 40)
        if count == 5:
            engine.kdamond.stop()
    assert [row["pid"] for row in engine.ops.take_joined()] == [pid]
    assert isinstance(engine.ops.processes[0], Process)
