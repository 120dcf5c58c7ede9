"""Modules on a cgroup that is removed while they run: they end with it, and say so once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.fake_cgroup import fake_cgroup, recorded_ns, removed

from pydamon.cli import main
from pydamon.linux import memcg, memcg_control
from pydamon.ops import cgroup
from pydamon.records.reader import RecordReader

COARSE = ["--primitive", "smaps", "--sample", "10ms", "--aggr", "50ms", "--update", "50ms"]
_LASTS_NS = 2_000_000_000  # what is recorded before: two steps of a loop


@pytest.mark.parametrize(
    ("module", "loops", "lives"),
    [
        ("reclaim min_age=10min files=only watermarks=off", False, True),
        ("reclaim driver=refaults files=only watermarks=off", True, True),
        ("reclaim driver=pressure interval=1s", True, True),
        ("reclaim min_age=10min files=only watermarks=free:2%:1%:0%/5s", False, False),
        ("protect interval=1s window=1s", True, True),
        ("stat", False, True),
    ],
)
def test_a_module_ends_with_its_cgroup(
    module: str,
    loops: bool,
    lives: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A loop may look once more before the end is seen; then it rests, which is its one line about it. Where
    watermarks keep all schemes from acting, the end of the last process is what is seen."""
    mount = tmp_path / "mount"
    group = fake_cgroup(mount, "service")
    (mount / "cgroup.procs").write_text("")
    for place in (cgroup, memcg, memcg_control):
        monkeypatch.setattr(place, "mounts", lambda *_: [mount])
    out = tmp_path / "run.damon"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        (group / "cgroup.procs").write_text(f"{child.pid}\n")
        words = ["record", "-o", str(out), *COARSE, "--cgroup", str(group), "--duration", "130s", "--module", module]
        # Without a process, watermarks keep all snapshots out of the file.
        when = (lambda: recorded_ns(out) >= _LASTS_NS) if lives else out.exists
        with removed(group, when, child, lives=lives):
            status = main(words)
    said = capsys.readouterr().err
    assert status == 0, said
    assert said.count(f"the cgroup {group} was removed") == 1
    assert said.count(f"modules rest: {group}: was removed") <= int(loops)
    assert "the time is over" not in said
    assert not [line for line in said.splitlines() if "Traceback" in line or "No such file" in line]
    with RecordReader(out) as reader:
        assert bool(list(reader.snapshots())) == lives
