"""``pydamon trace --user-events``: what a tracing tool sees of it, on a kernel with CONFIG_USER_EVENTS."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON
from tests.helpers.waiting import wait_until

TRACING = Path("/sys/kernel/tracing")
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not (TRACING / "user_events_data").exists(), reason="the kernel has no CONFIG_USER_EVENTS"),
]
GROUP = TRACING / "events/user_events"


@pytest.fixture(name="event")
def event_fixture() -> Iterator[Path]:
    """The event, while this process is traced; it is gone afterwards."""
    command = [*PYDAMON, "trace", "--user-events", "--quiet", str(os.getpid())]
    traced = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    event = GROUP / "damon_aggregated"
    try:
        wait_until(event.exists)
        yield event
    finally:
        traced.send_signal(signal.SIGINT)
        _, errors = traced.communicate(timeout=60)
    assert traced.returncode == 0, errors
    wait_until(lambda: not event.exists())


def check_region(found: dict[str, int]) -> None:
    assert found["target_id"] == 0
    assert found["nr_regions"] >= 3
    assert found["start"] < found["end"]
    assert found["start"] % 4096 == found["end"] % 4096 == 0
    assert found["nr_accesses"] <= 20


def test_who_listens_sees_each_region(event: Path) -> None:
    assert re.findall(r"field:(.+?);", (event / "format").read_text())[-6:] == [
        "u64 target_id", "u32 nr_regions", "u64 start", "u64 end", "u32 nr_accesses", "u32 age",
    ]  # fmt: skip
    (event / "enable").write_text("1")
    wait_until(lambda: "damon_aggregated:" in (TRACING / "trace").read_text(), every_s=0.5)
    text = (TRACING / "trace").read_text()
    (event / "enable").write_text("0")
    line = next(line for line in text.splitlines() if "damon_aggregated:" in line)
    # ftrace's own text of a user event: target_id=0x0 (0) nr_regions=0x16 (22) …
    check_region({name: int(value) for name, value in re.findall(r"(\w+)=0x[0-9a-f]+ \((\d+)\)", line)})


def test_hits_of_probes_are_seen() -> None:
    command = [*PYDAMON, "trace", "--user-events", "--quiet", "--probe", "anon"]
    command += ["-e", "damon_region_aggregated", str(os.getpid())]
    traced = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    event = GROUP / "damon_region_aggregated"
    try:
        wait_until(event.exists)
        (TRACING / "trace").write_text("")
        (event / "enable").write_text("1")
        wait_until(lambda: "damon_region_aggregated: " in (TRACING / "trace").read_text(), every_s=0.5)
        lines = re.findall("damon_region_aggregated: (.+)", (TRACING / "trace").read_text())
        (event / "enable").write_text("0")
    finally:
        traced.send_signal(signal.SIGINT)
        _, errors = traced.communicate(timeout=60)
    assert traced.returncode == 0, errors
    # A byte is printed as a character, too: probe_hits_0=\x0e(14)
    found = {name: int(value) for name, value in re.findall(r"(\w+)=[^(]*\((\d+)\)", lines[0])}
    check_region(found)
    assert found["probe_hits_0"] <= 20
    assert [found[f"probe_hits_{number}"] for number in (1, 2, 3)] == [0, 0, 0]


def run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_perf_records_it(event: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "perf.data")
    run("perf", "record", "-q", "-a", "-e", "user_events:damon_aggregated", "-o", data, "--", "sleep", "5")
    lines = [line for line in run("perf", "script", "-i", data).splitlines() if "user_events:damon_aggregated:" in line]
    assert len(lines) >= 3
    # perf prints fields whose type it does not know the size of as it likes: in decimal or in hexadecimal.
    found = dict(re.findall(r"(\w+)=(0x[0-9a-f]+|\d+)", lines[0].partition("damon_aggregated:")[2]))
    check_region({name: int(value, 0) for name, value in found.items()})


def test_trace_cmd_records_it(event: Path, tmp_path: Path) -> None:
    data = str(tmp_path / "trace.dat")
    run("trace-cmd", "record", "-q", "-e", "user_events:damon_aggregated", "-o", data, "sleep", "5")
    lines = [line for line in run("trace-cmd", "report", "-i", data).splitlines() if "damon_aggregated:" in line]
    assert len(lines) >= 3
    found = dict(re.findall(r"(\w+)=(0x[0-9a-f]+|\d+)", lines[0].partition("damon_aggregated:")[2]))
    check_region({name: int(value, 0) for name, value in found.items()})
