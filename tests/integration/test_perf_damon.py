"""``perf damon …`` with a stock perf, as the seeds write it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.again import for_longer

from pydamon.perf_damon import translate

SMAPS = ["--primitive", "smaps", "--sample", "10ms", "--aggr", "50ms"]


class TestWords:
    @pytest.mark.parametrize(
        ("perf", "pydamon"),
        [
            ("start 123 456", "start 123 456"),
            ("record -o x.damon 123", "record -o x.damon 123"),
            ("record -o x.damon sleep 1", "record -o x.damon -- sleep 1"),
            ("record --faithful sleep 1", "record --faithful -- sleep 1"),
            ("record --duration=3s sleep -x 1", "record --duration=3s -- sleep -x 1"),
            ("record -o x.damon -- sleep 1", "record -o x.damon -- sleep 1"),
            ("record cut -i x", "record cut -i x"),
            ("report", "report access"),
            ("report -i x.damon", "report access -i x.damon"),
            ("report heatmap -i x.damon", "report heatmap -i x.damon"),
            ("report --help", "report --help"),
            ("stop --undo", "stop --undo"),
        ],
    )
    def test_they_become_pydamons(self, perf: str, pydamon: str) -> None:
        assert translate(perf.split()) == pydamon.split()


@pytest.fixture(name="bin_directory")
def bin_fixture(tmp_path: Path) -> Path:
    """A directory with perf-damon, as an installation has it."""
    program = tmp_path / "bin" / "perf-damon"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom pydamon.perf_damon import main\nmain()\n")
    program.chmod(0o755)
    return program.parent


@pytest.fixture(name="sleeper")
def sleeper_fixture() -> Iterator[int]:
    code = "import time; block = bytearray(8 << 20); print(flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.kill()


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed (apt-get install linux-perf)")
class TestPerf:
    @pytest.fixture(autouse=True)
    def _environment(self, bin_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        (tmp_path / "run").mkdir(mode=0o700)
        monkeypatch.chdir(tmp_path)

    def perf(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["perf", "damon", *arguments], capture_output=True, text=True, timeout=240, check=False)

    def test_start_status_and_stop(self, sleeper: int) -> None:
        started = self.perf("start", *SMAPS, str(sleeper))
        assert started.returncode == 0, started.stderr
        assert f"monitoring {sleeper}" in started.stdout
        assert str(sleeper) in self.perf("status").stdout
        stopped = self.perf("stop")
        assert (stopped.returncode, "kdamond 0: stopped" in stopped.stdout) == (0, True)

    def test_record_a_command_and_report(self) -> None:

        def record(lasts: str) -> None:
            code = f"import time; time.sleep({int(lasts[:-2]) / 1000})"
            recorded = self.perf("record", *SMAPS, sys.executable, "-c", code)
            assert recorded.returncode == 0, recorded.stderr

        for_longer(record, lambda: "samples" in self.perf("report").stdout, 1)
        assert "working set" in self.perf("report", "wss").stdout

    def test_what_is_wrong_is_one_line_and_the_status_is_handed_on(self) -> None:
        wrong = self.perf("nonsense")
        assert (wrong.returncode, wrong.stderr) == (
            2,
            "perf damon: there is no 'nonsense'; there are start, record, report, status, tune, stop\n",
        )
        assert self.perf("report", "-i", "none.damon").returncode == 2
        assert self.perf("help").stdout.startswith(
            "usage: perf damon start"
        )  # perf looks for a manual page with --help
