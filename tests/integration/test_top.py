"""``pydamon top`` on a terminal, over processes of the test: what somebody sees who types into it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON, pydamon
from tests.helpers.programs import SLEEPS, program
from tests.helpers.shell import Shell

from pydamon.primitives import registry

OBSTACLE = registry.obstacle("bpf")
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=f"bpf primitive: {OBSTACLE}")

# 16 of 48 MiB are used all the time; the name of the program tries to colour and to rename the terminal.
HOT = """
import ctypes, mmap, time
ctypes.CDLL(None).prctl(15, b"\\x1b[31m[red]", 0, 0, 0)
memory = bytearray(48 << 20)
memory[::4096] = b'x' * (48 << 8)
print('ready', flush=True)
while True:
    memory[: 16 << 20 : 4096] = b'y' * (16 << 8)
    time.sleep(0.1)
"""


@pytest.fixture(name="hot")
def hot_fixture() -> Iterator[int]:
    with program(HOT, "-S") as pid:
        yield pid


def top(tmp_path: Path, *arguments: str, size: tuple[int, int] = (100, 40), **environment: str) -> Shell:
    """The command on a terminal; only what the test has started is looked at."""
    keep = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    keep |= {"TERM": "xterm-256color", "TZ": "UTC", "XDG_RUNTIME_DIR": str(tmp_path)}
    return Shell([*PYDAMON, "top", *arguments], keep | environment, str(tmp_path), size)


def used(line: str) -> float:
    """MiB that a line of the list says were used."""
    found = re.search(r">?([\d.]+)M", line)
    assert found is not None, line
    return float(found[1])


def test_one_goes_from_the_list_to_a_process_and_back_and_writes_what_was_seen(hot: int, tmp_path: Path) -> None:
    mine = str(os.getpid())
    with program(SLEEPS, "-S") as cold, top(tmp_path, "--children", mine) as shell:
        text = shell.wait_for("IDLE TREND")
        for pid in (hot, cold):
            text = shell.wait_for(f" {pid} ")
        shell.type("\\")
        shell.wait_for("filter")
        shell.type(f"{hot}\r")
        shell.wait_for(f"filter: {hot}")
        shell.wait_without(f" {cold} ")
        shell.wait_for(" bpf ")
        shell.wait_for(" pages/")  # they were looked at
        shell.type("w")
        shell.wait_for("top.damon")
        shell.type("\r")
        shell.wait_for("looks of")
        shell.type("\r")
        shell.wait_for("HOT")
        text = shell.wait_for("anon")
        assert text.startswith(f"{hot} ")
        shell.wait_for("used in 10 s")
        shell.type("w")
        shell.wait_for("top.damon")
        shell.type("\r")
        shell.wait_for("snapshots of")
        shell.type("\x1b")
        shell.wait_for("filter:")
        shell.type("q")
        assert shell.wait_for_end() == 0
    report = pydamon("report", "wss", "-i", str(tmp_path / "top.damon"), "--json")
    assert report.returncode == 0, report.stderr
    with top(tmp_path, "-i", "top.damon", size=(80, 24)) as shell:
        shell.wait_for("anon")
        before = shell.wait_for(f"{hot} ")
        shell.type("T")
        assert " before)" in shell.wait_for(" before)")
        assert " before)" not in before
        shell.type("\x1b")
        assert shell.wait_for_end() == 0


def test_what_is_used_is_told_in_the_list(hot: int, tmp_path: Path) -> None:
    done = pydamon("top", "-b", "--children", str(hot), "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    (row,) = json.loads(line)["processes"]
    # 16 MiB, and what the interpreter needs
    assert row["used"]["low_bytes"] < 22 << 20
    assert row["used"]["high_bytes"] > 16 << 20
    assert row["resident_bytes"] > 48 << 20
    text = pydamon("top", "-b", "--children", str(hot))
    assert "\x1b" not in text.stdout
    (line,) = (line for line in text.stdout.splitlines() if line.startswith(f"{hot:>7} "))
    assert 10 < used(line) < 30


def test_a_process_that_ends_while_it_is_looked_at_is_said_to_have(tmp_path: Path) -> None:
    with program(HOT, "-S") as pid:
        shell = top(tmp_path, str(pid))
        shell.__enter__()
        shell.wait_for("anon")
    try:
        shell.wait_for("ended")
        shell.type("q")
        assert shell.wait_for_end() == 0
    finally:
        shell.__exit__(None, None, None)


def test_it_follows_the_window_and_needs_no_colour(hot: int, tmp_path: Path) -> None:
    with top(tmp_path, "--children", str(hot), size=(80, 24), NO_COLOR="1") as shell:
        shell.wait_for(f" {hot} ")
        shell.resize(40, 12)
        text = shell.wait_for("COMMAND")
        assert max(map(len, text.splitlines())) <= 40
        shell.type("?")
        shell.wait_for("any key: back")
        shell.type("x")
        shell.resize(120, 30)
        shell.wait_for("TREND")
        shell.type("q")
        assert shell.wait_for_end() == 0


def test_a_kdamond_in_the_background_is_read_by_its_socket(hot: int, tmp_path: Path) -> None:
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    started = pydamon("start", "--name", "mine", str(hot), env=environment)
    assert started.returncode == 0, started.stderr
    try:
        with top(tmp_path, "mine") as shell:
            shell.wait_for("anon")
            shell.wait_for("used in 10 s")
            shell.type("T")
            shell.wait_for(" before)")
            shell.type("l")
            stopped = pydamon("stop", "mine", env=environment)
            assert stopped.returncode == 0, stopped.stderr
            shell.wait_for("mine:")  # why it does not answer any more
            shell.type("q")
            assert shell.wait_for_end() == 0
    finally:
        pydamon("stop", "mine", env=environment)
