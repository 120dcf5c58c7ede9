"""The page panel in a record: one row for each look, and none where there can be no panel."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.again import for_longer
from tests.unit.primitives.bpf_child import OBSTACLE

from pydamon.cli import main
from pydamon.core.panel import BOUNDS_S
from pydamon.library.build import make_spec
from pydamon.records.reader import RecordReader
from pydamon.run.request import Request
from pydamon.run.run import Run

SIM = ["record", "--ops", "sim", "--workload", "stairs", "--duration", "5s"]


def rows(path: Path, *options: str) -> list[dict[str, object]]:
    assert main([*SIM, *options, "-o", str(path)]) == 0
    with RecordReader(str(path)) as reader:
        return list(reader.table_rows("panel"))


def test_each_look_is_a_row(tmp_path: Path) -> None:
    found = rows(tmp_path / "r", "--seed", "3")
    times = [row["time_ns"] for row in found]
    assert times == [10**9 * second for second in range(1, 6)]
    last = found[-1]
    lists = [last["idle"], last["unseen"], last["ended"]]
    assert all(isinstance(held, list) and len(held) == len(BOUNDS_S) for held in lists)
    idle, unseen, _ = lists
    assert last["target"] == last["unknown"] == 0
    assert last["resident_bytes"] == 100 << 20
    assert last["pages"] == sum(idle) + sum(unseen)  # type: ignore[call-overload]
    assert abs(last["pages"] - 1024) < 160  # type: ignore[operator]  # five standard deviations
    # Since the warm-up of a second only one of ten ranges is accessed.
    assert idle[0] / last["pages"] == pytest.approx(0.1, abs=0.05)  # type: ignore[index]
    assert rows(tmp_path / "again", "--seed", "3") == found
    assert rows(tmp_path / "other", "--seed", "4") != found


def test_its_size_is_an_option_and_it_may_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 80 < rows(tmp_path / "r", "--panel", "128")[0]["pages"] < 190  # type: ignore[operator]
    assert rows(tmp_path / "r", "--panel", "0") == []
    assert rows(tmp_path / "r", "--faithful") == []
    assert main([*SIM, "--faithful", "--panel", "128", "-o", str(tmp_path / "r")]) == 2
    assert "--panel: is for --ops vaddr, fvaddr or sim, without --faithful" in capsys.readouterr().err


def test_looks_are_told_beside_the_rows() -> None:
    """Whoever asks for looks gets each once, whether rows are taken or not; the first time only begins it."""
    spec = make_spec(ops="sim", sample=5_000, aggr=100_000)
    request = Request(workload="stairs", duration_ns=5 * 10**9, seed=3)
    with Run(spec, request) as made:
        told, rows = [], []
        assert made.engine.looks() == []
        for number, snapshots in enumerate(made.monitor()):
            told += made.engine.looks()
            if number % 3 == 0:
                rows += made.engine.side_rows(snapshots).get("panel", [])
        rows += made.engine.side_rows([]).get("panel", [])
        told += made.engine.looks()
    assert [look.time_ns for look in told] == [10**9 * second for second in range(1, 6)]
    assert [row["time_ns"] for row in rows] == [look.time_ns for look in told]
    assert rows[-1]["ended"] == told[-1].ended.tolist()


@pytest.fixture
def sleepers(processes: None) -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        children = []
        for _ in range(2):
            children.append(stack.enter_context(subprocess.Popen(["sleep", "600"])))
            stack.callback(children[-1].kill)
        yield [str(child.pid) for child in children]


def test_where_single_pages_cannot_be_asked_that_is_said_once(
    tmp_path: Path, sleepers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "r")
    arguments = ["record", *sleepers, "--primitive", "smaps", "--sample", "100ms", "--duration", "2s", "-o", path]
    said = "there is no page panel: smaps asks no single pages of processes"
    assert main(arguments) == 0
    assert capsys.readouterr().err.count(said) == 1
    assert main([*arguments, "--panel", "0"]) == 0
    assert said not in capsys.readouterr().err
    with RecordReader(path) as reader:
        assert list(reader.table_rows("panel")) == []


@pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")
def test_each_process_has_a_part_of_the_panel(tmp_path: Path, sleepers: list[str]) -> None:
    path = str(tmp_path / "r")
    found: list[dict[str, Any]] = []

    def record(duration: str) -> None:
        words = ["record", *sleepers, "--primitive", "bpf", "--force", "--duration", duration, "-o", path]
        assert main(words) == 0
        with RecordReader(path) as reader:
            found[:] = reader.table_rows("panel")

    for_longer(record, lambda: {row["target"] for row in found} == {0, 1}, 4)
    last = [row for row in found if row["time_ns"] == found[-1]["time_ns"]]
    assert len(last) == 2
    for row in last:
        assert 64 <= row["pages"] + row["unknown"] <= row["resident_bytes"] // 4096
        assert row["idle"][0] < 20  # they sleep


FAMILY = Path(__file__).with_name("family.py")
MIB = 1 << 20


@pytest.fixture
def family(processes: None) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, str(FAMILY)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        yield int(parent.stdout.readline())
        os.killpg(parent.pid, signal.SIGKILL)


def pss_bytes(pid: int) -> int:
    """What this process and its children hold, each page divided by all processes that map it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    rolls = [Path(f"/proc/{one}/smaps_rollup").read_text().splitlines() for one in (pid, *children)]
    return sum(int(line.split()[1]) << 10 for roll in rolls for line in roll if line.startswith("Pss:"))


@pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")
def test_a_family_counts_what_it_shares_once(tmp_path: Path, family: int, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "r")
    arguments = ["record", str(family), "--include-children", "--primitive", "bpf", "--duration", "7s", "-o", path]
    assert main(arguments) == 0
    pss = pss_bytes(family)
    capsys.readouterr()
    assert main(["report", "summary", "--json", "-i", path]) == 0
    total = json.loads(capsys.readouterr().out)["total"]
    assert (total["targets"], total["without_panel"], total["shared_once"]) == (4, 0, True)
    assert total["sum_bytes"] > 2 * pss
    # Libraries are shared with other processes, too: Pss has a part of them only.
    assert 0.9 * pss < total["resident_bytes"] < 1.25 * pss
    used = total["used"][0]
    # Twice the error: chance is beyond it once in ten thousand tries.
    assert used["low_bytes"] - (used["bytes"] - used["low_bytes"]) <= 26 * MIB
    assert used["high_bytes"] + (used["high_bytes"] - used["bytes"]) >= 22 * MIB
