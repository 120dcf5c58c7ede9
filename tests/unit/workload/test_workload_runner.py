"""The real process: what it tells, what it touches, how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tests.helpers.command import PYDAMON
from tests.helpers.waiting import GENEROUS_S, wait_until

from pydamon.cli import main
from pydamon.cli.workload import command
from pydamon.errors import MachineError, RequestError
from pydamon.workload import model, runner, truth
from pydamon.workload.memory import Memory
from pydamon.workload.model import Access

SMALL = """\
hot, 1 MiB
cold, 300000

warm-up
100
hot, 0, 4096, 1, rw
cold, 0, 4096, 2

steady
100
hot, 0, 4096, 1{mode}
"""


@contextmanager
def running(path: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A workload in a process of its own, which is ended with the block."""
    with subprocess.Popen(
        [*PYDAMON, "workload", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.cfg"
    path.write_text(SMALL.format(mode=""))
    return path


def test_json_tells_what_is_touched_and_when(small: Path) -> None:
    before_ns = time.monotonic_ns()
    result = CliRunner().invoke(command, [str(small), "--json", "--time-scale", "0.05", "--repeat", "2"])
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["event"] for event in events] == ["layout", *["phase"] * 4, "end"]

    layout = events[0]
    assert layout["pid"] == os.getpid()
    assert layout["clock"] == "monotonic"
    assert layout["repeat"] == 2
    hot, cold = layout["regions"]
    assert (hot["name"], hot["end"] - hot["start"], hot["size_bytes"]) == ("hot", 1 << 20, 1 << 20)
    assert (cold["end"] - cold["start"], cold["size_bytes"]) == (303_104, 300_000)
    assert layout["phases"][0] == {
        "name": "warm-up",
        "duration_ms": 5,
        "duration_ns": 5_000_000,
        "accesses": [
            {"region": "hot", "random": False, "stride_bytes": 4096, "probability": 1, "mode": "rw"},
            {"region": "cold", "random": False, "stride_bytes": 4096, "probability": 2, "mode": "wo"},
        ],
    }

    assert [(event["index"], event["name"]) for event in events[1:5]] == [(0, "warm-up"), (1, "steady")] * 2
    assert events[2]["hot"] == [{"start": hot["start"], "end": hot["end"]}]
    assert len(events[1]["hot"]) == 2
    starts_ns = [event["start_ns"] for event in events[1:5]] + [events[5]["end_ns"]]
    assert starts_ns[0] > before_ns
    # Never early: each phase begins at its planned time or after. (How late is a matter of the machine's load.)
    assert all(start - starts_ns[0] >= 5_000_000 * i - 1_000_000 for i, start in enumerate(starts_ns))

    known = truth.from_events(result.stdout.splitlines())
    assert known.hot_bytes(starts_ns[1]) == 1 << 20
    assert known.hot_bytes(starts_ns[0]) == (1 << 20) + 303_104


def test_text(small: Path) -> None:
    result = CliRunner().invoke(command, [str(small), "--time-scale", "0.01"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{small}: pid {os.getpid()}, 2 regions of 1.3 MiB in all, 2 phases of 2 ms in all"
    assert lines[1].split()[0::2] == ["hot", "1.0"]
    assert [line.split(" s  ")[1] for line in lines[3:]] == ["warm-up: touches hot cold", "steady: touches hot", "end"]


@pytest.mark.parametrize("name", ["stairs", "zigzag", "random"])  # hotspots takes a gigabyte
def test_builtin_workloads_run(name: str) -> None:
    result = CliRunner().invoke(command, [name, "--time-scale", "0.0001", "--mapping", "one"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (["no-such"], "workload 'no-such'"),
        (["stairs", "--time-scale", "0"], "--time-scale"),
        (["stairs", "--time-scale", "nan"], "--time-scale"),
        (["stairs", "--time-scale", "inf"], "--time-scale"),
        (["stairs", "--repeat", "-1"], "--repeat"),
    ],
)
def test_bad_requests(args: list[str], where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workload", *args]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"pydamon: {where}: ")
    assert said.out == ""


def test_more_memory_than_there_is() -> None:
    workload = model.parse("a, 4 TiB\nb, 4 TiB\n\np\n1\na, 0, 4096, 1\n", source="x")
    with pytest.raises(MachineError, match=r"needs 8.0 TiB of memory and .* available"):
        runner.run(workload, io.StringIO())


def test_init_file_is_loaded(tmp_path: Path) -> None:
    content = np.random.default_rng(1).integers(0, 256, 6000, dtype=np.uint8).tobytes()
    path = tmp_path / "data"
    path.write_bytes(content)
    text = f"more, 4097, {path}\nless, 10000, {path}\nno, 100, none\n\np\n1\nno, 0, 1, 1\n"
    with Memory(model.parse(text, source="x"), "one") as memory:
        more, less, no = (view.tobytes() for view in memory.views)
    assert more == content[:4097]
    assert less == content + bytes(4000)
    assert no == bytes(100)
    with pytest.raises(RequestError, match="cannot read the init file: No such file"):
        Memory(model.parse(text.replace(str(path), str(path) + "x"), source="x"), "separate")


@pytest.mark.parametrize("size", [1, 5_000, 2048 * 64, 2048 * 64 + 1, 300_000])
@pytest.mark.parametrize("mode", ["ro", "wo", "rw"])
def test_sequential_steps_touch_each_position_once_per_pass(size: int, mode: str) -> None:
    view = np.zeros(size, dtype=np.uint8)
    access = Access(0, False, 64, 1, mode)
    positions = truth.nr_positions(access, model.WorkloadRegion("a", size))
    step = runner._sequential_step(view, access, positions)
    counted = 0
    while counted < positions:
        counted += step()
    assert counted == positions
    assert np.flatnonzero(view).tolist() == ([] if mode == "ro" else list(range(0, size, 64)))
    step()  # rw flips a bit: the first positions again, from the beginning
    assert view[0] == {"ro": 0, "wo": 1, "rw": 0}[mode]


@pytest.mark.parametrize("mode", ["ro", "wo", "rw"])
def test_random_steps_touch_all_over_the_region(mode: str) -> None:
    view = np.zeros(10_000, dtype=np.uint8)
    step = runner._random_step(view, Access(0, True, 4096, 1, mode), 10_000)
    for _ in range(20):
        assert step() == runner.RANDOM_BATCH
    # 20,480 draws of 10,000: each byte is left out with e^-2.048 = 0.129.
    assert abs(np.count_nonzero(view) / 10_000 - (0 if mode == "ro" else 0.871)) < 0.02


def test_patterns_share_the_accesses_by_probability() -> None:
    text = "a, 4 MiB\nb, 64 KiB\n\np\n20\na, 0, 4096, 1\nb, 0, 4096, 3\nb, 0, 64, 0\n"
    workload = model.parse(text, source="x")
    made = {"a": 0, "b": 0}
    original = runner._sequential_step

    def counting(view: runner.View, access: Access, positions: int) -> runner.Step:
        step = original(view, access, positions)

        def counted() -> int:
            count = step()
            made[workload.regions[access.region].name] += count
            return count

        return counted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_sequential_step", counting)
        runner.run(workload, io.StringIO())
    # Exact but for the chunk that was last: 1024 accesses of a pass over "a".
    assert abs(made["b"] - 3 * made["a"]) <= 3 * runner.CHUNK


def smaps(pid: int) -> dict[tuple[int, int], dict[str, int]]:
    """(start, end) of each mapping to its fields, in kB."""
    result: dict[tuple[int, int], dict[str, int]] = {}
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            start, end = (int(word, 16) for word in words[0].split("-"))
            fields = result[start, end] = {}
        elif words[-1] == "kB":
            fields[words[0][:-1]] = int(words[1])
    return result


@pytest.mark.parametrize("mode", ["", ", ro", ", rw"])
@pytest.mark.usefixtures("processes")
def test_only_the_hot_region_looks_accessed_from_outside(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "w.cfg"
    path.write_text(
        SMALL.format(mode=mode).replace("steady\n100", "steady\n100000").replace("warm-up\n100", "warm-up\n1")
    )
    with running(path, "--json") as child:
        assert child.stdout is not None
        hot, cold = json.loads(child.stdout.readline())["regions"]
        while json.loads(child.stdout.readline())["name"] != "steady":
            pass
        try:
            Path(f"/proc/{child.pid}/clear_refs").write_text("1")
        except OSError as error:
            pytest.skip(f"/proc/PID/clear_refs: {error.strerror}")
        wait_until(lambda: smaps(child.pid)[hot["start"], hot["end"]]["Referenced"] == 1024)
        fields = smaps(child.pid)
        assert fields[cold["start"], cold["end"]]["Referenced"] == 0
        # All is resident, in pages of its own, however it is accessed.
        assert fields[cold["start"], cold["end"]]["Anonymous"] == 296
        assert fields[hot["start"], hot["end"]]["Anonymous"] == 1024
        # What else of its memory the process touches is its own overhead, and must not pass for a hot range.
        others = [f for (start, _), f in fields.items() if start not in (hot["start"], cold["start"])]
        assert sum(f["Referenced"] for f in others if f["Rss"] == f["Anonymous"]) < 4096


@pytest.mark.usefixtures("processes")
def test_one_mapping_is_one_vma(small: Path) -> None:
    with running(small, "--json", "--mapping", "one", "--repeat", "0") as child:
        assert child.stdout is not None
        hot, cold = json.loads(child.stdout.readline())["regions"]
        assert hot["end"] == cold["start"]
        assert (hot["start"], cold["end"]) in smaps(child.pid)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
@pytest.mark.usefixtures("processes")
def test_signals_end_it_quietly(small: Path, signum: int, status: int) -> None:
    with running(small, "--repeat", "0") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.send_signal(signum)
        assert child.wait(GENEROUS_S) == status
        assert child.stderr.read().strip() == ""


@pytest.mark.usefixtures("processes")
def test_a_reader_that_goes_away_ends_it_quietly(small: Path) -> None:
    with running(small, "--repeat", "0", "--time-scale", "0.01") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(GENEROUS_S) == 0
        assert child.stderr.read() == ""
