"""SIGKILL at many random points: what was set is found by ``status`` and put back by ``stop --undo``."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.helpers.fake_cgroup import fake_cgroup

from pydamon.run.acts import left

KILLS = 50

# Sets memory.low of a cgroup again and again, as `protect` does whose working set changes, and ends regularly now and
# then, as runs do.
SETS = """
import itertools, sys, time
from pathlib import Path
from pydamon.linux.memcg_control import Cgroup
from pydamon.modules.controller import SetMemoryLow
from pydamon.run.acts.hands import MachineHands

root, path = Path(sys.argv[1]), sys.argv[2]
for turn in itertools.count():
    if turn == 7:
        began = time.monotonic()
    if turn == 14:  # it tells how long all that is different takes on this machine
        print(time.monotonic() - began, flush=True)
    hands = MachineHands(Cgroup(path, (root,)), below=(root,))
    for pages in range(1, 1 + turn % 7):
        hands.do(SetMemoryLow(bytes=4096 * (pages + turn % 100)), 0)
    hands.finish()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "runtime"
    base.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    return base / "pydamon"


def test_a_kill_leaves_nothing_that_is_not_shown_and_undone(tmp_path: Path, runtime: Path) -> None:
    root = tmp_path / "cgroup"
    path = fake_cgroup(root)
    low, chance, shown = path / "memory.low", random.Random(1), 0
    low.write_text("4096\n")
    for _ in range(KILLS):
        command = [sys.executable, "-c", SETS, str(root), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            time.sleep(chance.uniform(0, float(child.stdout.readline())))  # anywhere in its work
            child.kill()
        assert child.returncode == -9
        things = left.left()
        if low.read_text().split("\n")[0] != "4096":
            (pid, thing), *others = things
            assert (pid, others) == (child.pid, [])
            assert thing.words().endswith("(it was 4096)")
            shown += 1
        left.undo_left(below=(root,))
        assert low.read_text().split("\n")[0] == "4096"
        assert left.left() == []
        assert list(runtime.glob("*.left*")) == []
    assert shown > KILLS // 10  # kills did hit where something was set


def pydamon(*words: str) -> str:
    command = [sys.executable, "-m", "pydamon", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_is_left_is_told_in_the_commands(tmp_path: Path, runtime: Path) -> None:
    gone = tmp_path / "gone"
    text = (
        "from pydamon.run.acts.left import Ledger, Low; import os, sys; "
        "Ledger().note('x', Low(sys.argv[1], 7, '0', ('8192',))); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", text, str(gone)], check=False).returncode == -9
    shown = pydamon("status")
    assert "left behind by processes that were killed; pydamon stop --undo undoes it:" in shown
    assert f"memory.low of {gone} is 8192 (it was 0)" in shown
    assert '"what": "memory.low of' in pydamon("status", "--json")
    assert pydamon("stop", "--undo") == f"undone: memory.low of {gone}: the cgroup was removed\n"
    assert "nothing runs in the background" in pydamon("status")
    assert list(runtime.glob("*.left*")) == []
