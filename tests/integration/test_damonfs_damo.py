"""The ``damo`` tool, unmodified, on damonfs: it finds the kernel's features, starts, tunes, reads and stops."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.test_damonfs import BUSY, MOUNT, why_not_mounted

DAMO = shutil.which("damo", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
pytestmark = [
    pytest.mark.skipif(why_not_mounted() is not None, reason=f"no FUSE here: {why_not_mounted()}"),
    pytest.mark.skipif(DAMO is None, reason="damo is not installed (pip install damo)"),
    pytest.mark.skipif(not os.path.isdir("/sys/kernel/tracing"), reason="damo needs tracefs; this kernel has none"),
]

SCRIPT = """
set -e
grep -q ' /sys/kernel/mm/damon fuse.damonfs ' /proc/mounts
step() { echo "== $1"; shift; "$DAMO" "$@"; }
step sysinfo report sysinfo
step start start --target_pid $TARGET --damos_action stat
step running report damon
step access report access --raw_form
step tune tune --target_pid $TARGET -s 10000 -a 200000 --damos_action stat
step tuned report damon
step pause tune --target_pid $TARGET -s 10000 -a 200000 --damos_action stat --pause_ctx 0
step paused report damon
step resume tune --target_pid $TARGET -s 10000 -a 200000 --damos_action stat
step resumed report access --raw_form
step stop stop
step scheme start --target_pid $TARGET --damos_action cold --damos_access_rate 0% 0% --damos_quota_space 4M \
    --damos_quota_interval 1s
step stats report damon --damos_stats
step end stop
step counting start --target_pid $TARGET --probe --probe_filter allow anon --probe --probe_filter reject anon \
    --damos_action stat
step hits report access --format_region 'REGION <access rate> <probe hits>'
step done stop
step weighing start --target_pid $TARGET --probe --probe_prep set_pgidle --probe_filter allow pgidle_unset \
    --probe_weight 100 --damos_action stat --refresh_stat 100ms
step attrs report attrs
step over stop
step two start --target_pid $TARGET --target_pid $$ --damos_action stat
step one tune --target_pid $TARGET --target_pid $$ --damos_action stat --obsolete_targets 1
step left report damon
step last stop
step goal start --target_pid $TARGET --damos_action stat --damos_quota_goal active_mem_bp 5% complement \
    --damos_quota_interval 1s
step rest report damon
step gone stop
"""


def damo_steps(script: str, tmp_path: Path) -> tuple[dict[str, str], int]:
    """(what each step of the script printed, the process it was about). Its own errors end the script, and the test."""
    path = tmp_path / "damo.sh"
    path.write_text(script)
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        environment = os.environ | {"DAMO": DAMO or "", "TARGET": str(busy.pid), "HOME": str(tmp_path)}
        done = subprocess.run(
            [*MOUNT, "--", "bash", str(path)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment,
            cwd=tmp_path,
        )
        busy.kill()
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(step.split("\n", 1) for step in done.stdout.split("== ")[1:]), busy.pid


def test_damo_does_its_work(tmp_path: Path) -> None:
    steps, pid = damo_steps(SCRIPT, tmp_path)
    assert "DAMON version: 7." in steps["sysinfo"]
    assert f"pid: {pid}" in steps["running"]
    assert "state: on" in steps["running"]
    assert "intervals: sample 5 ms, aggr 100 ms" in steps["running"]
    assert "intervals: sample 10 ms, aggr 200 ms" in steps["tuned"]
    assert steps["access"].strip()
    assert "pause: True" in steps["paused"]
    assert steps["resumed"].strip()
    assert "probe prep: set_pgidle, filter: allow pgidle_unset (weight: 100)" in steps["attrs"]
    assert f"pid: {pid}" in steps["left"]
    assert "target 1" not in steps["left"]
    assert "active_mem_bp (complement)" in steps["rest"]
    assert "nr_tried" in steps["stats"]
    found = re.findall(r"^REGION (\S+) % +(\d+) (\d+)$", steps["hits"], re.MULTILINE)
    # What it writes to all the time is anonymous memory.
    assert any(int(anon) and not int(other) for rate, anon, other in found if float(rate)), steps["hits"]
