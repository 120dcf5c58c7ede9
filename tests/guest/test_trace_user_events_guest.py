"""``pydamon trace --user-events``: what a tracing tool sees of it, on a kernel with CONFIG_USER_EVENTS."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TRACING = Path("/sys/kernel/tracing")
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not (TRACING / "user_events_data").exists(), reason="the kernel has no CONFIG_USER_EVENTS"),
]
GROUP = TRACING / "events/user_events"


def wait_for(path: Path, there: bool = True) -> None:
    deadline = time.monotonic() + 60
    while path.exists() != there:
        assert time.monotonic() < deadline, f"{path} is {'not there' if there else 'still there'}"
        time.sleep(0.1)


def test_who_listens_sees_each_region_and_afterwards_the_event_is_gone() -> None:
    command = [sys.executable, "-m", "pydamon", "trace", "--user-events", "--quiet", str(os.getpid())]
    traced = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    event = GROUP / "damon_aggregated"
    try:
        wait_for(event)
        assert re.findall(r"field:(.+?);", (event / "format").read_text())[-6:] == [
            "u64 target_id", "u32 nr_regions", "u64 start", "u64 end", "u32 nr_accesses", "u32 age",
        ]  # fmt: skip
        (event / "enable").write_text("1")
        deadline = time.monotonic() + 60
        while "damon_aggregated:" not in (text := (TRACING / "trace").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        (event / "enable").write_text("0")
    finally:
        traced.send_signal(signal.SIGINT)
        _, errors = traced.communicate(timeout=60)
    assert traced.returncode == 0, errors
    line = next(line for line in text.splitlines() if "damon_aggregated:" in line)
    # ftrace's own text of a user event: target_id=0x0 (0) nr_regions=0x16 (22) …
    found = dict(re.findall(r"(\w+)=0x[0-9a-f]+ \((\d+)\)", line))
    names = ("target_id", "nr_regions", "start", "end", "nr_accesses", "age")
    target, regions, start, end, accesses, _ = (int(found[name]) for name in names)
    assert target == 0
    assert regions >= 3
    assert start < end
    assert start % 4096 == end % 4096 == 0
    assert accesses <= 20
    wait_for(event, there=False)
