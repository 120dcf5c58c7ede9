"""Modules on a cgroup that is removed while they run: they end with it, and say so once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.fake_cgroup import fake_cgroup

from pydamon.cli import main
from pydamon.linux import memcg, memcg_control
from pydamon.ops import cgroup
from pydamon.records.reader import RecordReader

COARSE = ["--primitive", "smaps", "--sample", "10ms", "--aggr", "50ms", "--update", "50ms"]
# Removes the directory that stands for its cgroup, and lives on for so long: in another cgroup, if it were a real one.
_SCRIPT = "import sys, shutil, time; time.sleep(2.5); shutil.rmtree(sys.argv[1]); time.sleep(float(sys.argv[2]))"


@pytest.mark.parametrize(
    ("module", "loops", "lives_s"),
    [
        ("reclaim min_age=10min files=only watermarks=off", False, 60),
        ("reclaim driver=refaults files=only watermarks=off", True, 60),
        ("reclaim driver=pressure interval=1s", True, 60),
        ("reclaim min_age=10min files=only watermarks=free:2%:1%:0%/5s", False, 0),
        ("protect interval=1s window=1s", True, 60),
        ("stat", False, 60),
    ],
)
def test_a_module_ends_with_its_cgroup(
    module: str,
    loops: bool,
    lives_s: int,
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
    with subprocess.Popen([sys.executable, "-c", _SCRIPT, str(group), str(lives_s)]) as child:
        (group / "cgroup.procs").write_text(f"{child.pid}\n")
        out = tmp_path / "run.damon"
        words = ["record", "-o", str(out), *COARSE, "--cgroup", str(group), "--duration", "40s", "--module", module]
        status = main(words)
        child.kill()
    said = capsys.readouterr().err
    assert status == 0, said
    assert said.count(f"the cgroup {group} was removed") == 1
    assert said.count(f"modules rest: {group}: was removed") <= int(loops)
    assert "the time is over" not in said
    assert not [line for line in said.splitlines() if "Traceback" in line or "No such file" in line]
    with RecordReader(out) as reader:
        assert bool(list(reader.snapshots())) == bool(lives_s)
