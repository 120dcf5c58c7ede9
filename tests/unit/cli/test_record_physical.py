"""``pydamon record --ops paddr`` from the command line to the reports, over a made-up memory: runs on any machine."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.ops.test_paddr import IOMEM, RAM, FakePrimitive, Memory

from pydamon.cli import main
from pydamon.engines.base import Choice
from pydamon.engines.user import open_ops
from pydamon.linux.process import Mapping
from pydamon.ops.paddr import PaddrOps
from pydamon.ops.reverse_map import Owner, ReverseMap
from pydamon.primitives.base import UNKNOWN
from pydamon.records.reader import RecordReader
from pydamon.spec import Context

GIB, PAGE = 1 << 30, 4096
POSTGRES, NGINX = Owner(123, 5, "postgres"), Owner(7, 6, "nginx")
# The made-up machine ends the recording (Ctrl-C); the duration is for when it does not.
FAST = ["--sample", "1ms", "--aggr", "5ms", "--update", "10ms", "--duration", "60s"]
UPDATES = 6


class MadeUpReverseMap(ReverseMap):
    """Of the GiB at 4 GiB postgres maps the first quarter, nginx the second one; looked up at each update."""

    def refresh(self) -> None:
        page = np.arange(GIB // 2 // PAGE, dtype=np.uint64)
        self._frames = page + np.uint64(4 * GIB // PAGE)
        self.owners = [POSTGRES, NGINX]
        half = np.uint64(len(page) // 2)
        # postgres from address 0 on, nginx likewise
        self._packed = (page % half) | (page // half) << np.uint64(45)
        self.cost.refreshes += 1
        self.cost.total_ns += 2_000_000
        self.cost.last_ns = 2_000_000
        self.cost.pages = len(page)

    def refresh_if_due(self) -> bool:
        self.refresh()
        return True


class Refusing(FakePrimitive):
    """The bitmap is there, and takes nothing."""

    trouble = "the idle bitmap refused 12 times, the last time: writing was refused (Operation not permitted)"

    def prepare(self, addresses: np.ndarray) -> np.ndarray:
        self.asked = addresses.copy()
        return np.zeros(len(addresses), np.bool_)

    def replace(self, index: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        return np.zeros(len(index), np.bool_)

    def check(self) -> np.ndarray:
        return np.full(len(self.asked), UNKNOWN, np.uint8)


class Machine:
    """What the engine finds instead of this machine; ``steps`` are done one by one at its updates."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.memory = Memory()
        self.primitive = FakePrimitive()
        self.steps: list[str] = []  # texts of /proc/iomem from the second update on
        self.made: list[PaddrOps] = []
        self.updates = 0
        monkeypatch.setattr(open_ops, "choose", lambda name: Choice("idle", "made up"))
        monkeypatch.setattr(open_ops, "_physical", self.open)

    def read(self, path: str) -> str:
        if path == "/proc/iomem" and self.made:
            self.updates += 1
            if self.updates == UPDATES:
                os.kill(os.getpid(), signal.SIGINT)
            if self.steps:
                self.memory.iomem = self.steps.pop(0)
        return self.memory(path)

    def open(self, context: Context, rng: np.random.Generator) -> PaddrOps:
        def maps(owner: Owner) -> list[Mapping]:
            names = {POSTGRES: "", NGINX: "/usr/lib/libssl.so.3"}
            return [Mapping(0, GIB, "rw-p", 0, 0, names[owner])]

        ops = PaddrOps(
            ranges=open_ops._ranges(context.targets[0]),
            reverse_map=MadeUpReverseMap(),
            open_primitive=lambda: self.primitive,
            read=self.read,
            rng=rng,
            maps=maps,
        )
        self.made.append(ops)
        return ops


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def record(path: Path, *options: str) -> int:
    return main(["record", "-o", str(path), "--ops", "paddr", *options])


def rows(path: Path, name: str) -> list[dict[str, Any]]:
    with RecordReader(path) as reader:
        return [row for piece in reader.table(name) for row in piece.to_pylist()]


def test_who_and_what_it_cost_is_said_and_recorded(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "phys.damon"
    assert record(out, *FAST) == 0
    said = capsys.readouterr().err
    assert said.startswith("pydamon: monitoring physical memory through idle: the primitive for physical memory\n")
    assert said.count("cost:") == 1
    assert "what uses the memory was disturbed" in said
    assert said.count("whose memory it is was looked up") == 1
    with RecordReader(out) as reader:
        (target,) = reader.info.targets
        assert (target.target, target.pid, target.command) == (0, None, "physical memory")
        assert reader.info.ops == "paddr"
        spans = {(m.start, m.end) for m in reader.mappings_at(0, 0)}
    assert (0x1000, 0x9F000) in spans
    looked = rows(out, "reverse_map")
    assert len(looked) > 1
    assert looked[-1]["total_ns"] == 2_000_000 * looked[-1]["refreshes"]
    found = rows(out, "owners")
    last = [row for row in found if row["time_ns"] == found[-1]["time_ns"]]
    # Each process maps 256 MiB, wherever the regions' borders are.
    for owner, name in ((POSTGRES, ""), (NGINX, "/usr/lib/libssl.so.3")):
        mine = [row for row in last if row["pid"] == owner.pid]
        assert sum(row["mapped_bytes"] for row in mine) == GIB // 4
        assert {(row["command"], row["start_ticks"], row["mapping"]) for row in mine} == {
            (owner.command, owner.start_ticks, name)
        }
    assert machine.primitive.closed == 1


def test_reports_say_whose_memory_it_is(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "phys.damon"
    assert record(out, *FAST, "--region", "0x100000000-0x140000000", "--max-regions", "10") == 0
    capsys.readouterr()
    status, text, _ = report(capsys, "access", "-i", out)
    assert status == 0
    assert text.startswith("physical memory\n")
    assert "postgres (123) anon " in text
    status, text, _ = report(capsys, "access", "-i", out, "--json")
    regions = json.loads(text)["regions"]
    assert regions[0]["start"] == 4 * GIB
    # The region at 4 GiB begins in what postgres maps: 100 % where it ends before a quarter of a GiB.
    share = min(GIB // 4 / (regions[0]["end"] - 4 * GIB), 1)
    assert f"postgres (123) anon {100 * share:.0f} %" in regions[0]["names"]
    assert any("nginx (7) libssl.so.3 " in name for region in regions for name in region["names"])
    assert regions[-1]["names"] == [] or regions[-1]["start"] < 4 * GIB + GIB // 2


def test_memory_that_is_unplugged_is_said_once(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "phys.damon"
    less = IOMEM.replace("140000000-17fffffff : System RAM\n", "")
    machine.steps = [IOMEM, less, less, less]
    assert record(out, *FAST) == 0
    said = capsys.readouterr().err
    assert said.count("1.0 GiB of memory was removed") == 1
    with RecordReader(out) as reader:
        snapshots = list(reader.snapshots())
    spans = [span for span in RAM if span[0] != 0x100000000] + [[0x100000000, 0x140000000]]
    last = snapshots[-1]
    assert int((last.end - last.start).sum()) == sum(end - start for start, end in spans)
    assert not ((last.start >= 0x140000000) & (last.start < 0x180000000)).any()


def test_a_bitmap_that_refuses_is_said_once_and_nothing_looks_accessed(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.primitive = Refusing()
    out = tmp_path / "phys.damon"
    assert record(out, *FAST) == 0
    assert capsys.readouterr().err.count("writing was refused") == 1
    with RecordReader(out) as reader:
        assert not any(int(snapshot.nr_accesses.sum()) for snapshot in reader.snapshots())


def test_the_cost_report_has_the_reverse_map(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "phys.damon"
    assert record(out, *FAST) == 0
    capsys.readouterr()
    status, text, _ = report(capsys, "cost", "-i", out)
    assert status == 0
    assert "reverse map (whose memory it is)" in text
    status, text, _ = report(capsys, "cost", "-i", out, "--json")
    assert json.loads(text)["reverse_map"][-1]["pages"] == GIB // 2 // PAGE


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["1"], 2, "--ops paddr: takes no process"),
        (["--", "true"], 2, "--ops paddr: takes no process"),
        (["--primitive", "bpf"], 2, "--primitive: asks processes"),
        (["--cgroup", "/x"], 2, "--cgroup: is for --ops vaddr"),
        (["--include-children"], 2, "--include-children: is for --ops vaddr"),
        (["--access", "write"], 2, "--access write: needs --ops vaddr or fvaddr"),
        (["--resctrl"], 2, "--resctrl: goes with processes"),
        (["--region", "0x2000-0x1000"], 2, "--region: 0x2000-0x1000 is not a range"),
        (["--region", "0xa0000-0xb0000"], 3, "has no System RAM in the given ranges"),
    ],
)
def test_what_does_not_go_with_it_is_one_line(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], status: int, message: str
) -> None:
    assert record(tmp_path / "x.damon", *options) == status
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert not list(tmp_path.iterdir())


def test_the_plan_names_ram_and_its_limits(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record(tmp_path / "x", "--explain", "--region", "0x100000-0x200000") == 0
    text = capsys.readouterr().out
    assert "Monitor the physical memory of this machine (ops paddr)." in text
    assert "Target 0: System RAM within these ranges." in text
    assert "0x100000-0x200000 (1.0 MiB)." in text
    assert "memory that was added or removed" in text
    assert "through the primitive idle" in text
    assert "End on Ctrl-C; write" in text
