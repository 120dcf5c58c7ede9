"""``damo monitor`` and ``damo report trace``, unmodified, on damonfs: they go on until they are told to stop."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.integration.test_damonfs import why_not_mounted
from tests.integration.test_damonfs_damo import DAMO, damo_steps

pytestmark = [
    pytest.mark.skipif(why_not_mounted() is not None, reason=f"no FUSE here: {why_not_mounted()}"),
    pytest.mark.skipif(DAMO is None, reason="damo is not installed (pip install damo)"),
    pytest.mark.skipif(not os.path.isdir("/sys/kernel/tracing"), reason="damo needs tracefs; this kernel has none"),
    pytest.mark.skipif(shutil.which("perf") is None, reason="damo monitors and traces by perf, which is not installed"),
    pytest.mark.skipif(shutil.which("pgrep") is None, reason="pgrep (procps) is not installed"),
]

# With job control what is in the background has a process group of its own, to which Ctrl-C goes as in a terminal.
_BEGIN = """
set -e -m
grep -q ' /sys/kernel/mm/damon fuse.damonfs ' /proc/mounts
export PYTHONUNBUFFERED=1
step() { echo "== $1"; shift; "$DAMO" "$@"; }
until_there() { until "$@"; do kill -0 $JOB; end_orphans; sleep 0.1; done; }
# A recording of damo's that ends before its perf is up leaves it behind, and damo waits for it for ever.
end_orphans() {
    for PERF in $(pgrep -g $JOB -x perf); do
        PARENT=$(ps -o ppid= -p $PERF) && [ "$(ps -o pgid= -p $PARENT)" -eq $JOB ] || kill -INT $PERF || true
    done
}
interrupt() { kill -INT -- -$JOB; wait $JOB && echo "status 0" || echo "status $?"; }
"""
# Its reports never fail of what was not recorded (of heats they do), so that it would go on for ever.
MONITOR = f"""{_BEGIN}
"$DAMO" monitor $TARGET --report_type wss --delay 1 > monitor.txt 2>&1 &
JOB=$!
twice() {{ [ $(grep -c percentile monitor.txt) -ge 2 ]; }}
until_there twice
step running report damon
echo "== interrupted"
interrupt
cat monitor.txt
step after report damon --kdamonds_summary
step start start $TARGET
step once monitor ongoing --count 1 --report_type wss --delay 1
step still report damon --kdamonds_summary
step stop stop
"""
TRACE = f"""{_BEGIN}
step start start $TARGET
"$DAMO" report trace --event damon:damon_aggregated --tracer perf --output trace.txt > shown.txt 2>&1 &
JOB=$!
traced() {{ for CHILD in $(cat /proc/$JOB/task/$JOB/children); do tr '\\0' ' ' < /proc/$CHILD/cmdline; done \\
    | grep -q '^perf trace'; }}
until_there traced
echo "== interrupted"
interrupt
cat trace.txt
step still report damon --kdamonds_summary
step stop stop
"""


# Of three tries one hung in damo, which waits for a perf that it has left behind, and one ended by itself.
@pytest.mark.skipif("PYDAMON_LONG" not in os.environ, reason="damo monitor hangs now and then; set PYDAMON_LONG=1")
def test_monitor_goes_on_until_it_is_interrupted_and_stops_what_it_has_started(tmp_path: Path) -> None:
    steps, pid = damo_steps(MONITOR, tmp_path)
    assert f"pid: {pid}" in steps["running"]
    assert "state: on" in steps["running"]
    assert steps["interrupted"].startswith("status 0\n")
    assert "signal 2 received" in steps["interrupted"]
    assert "state: off" in steps["after"]
    assert "percentile" in steps["once"]  # of what the kernel's own DAMON does, or "no snapshot"
    assert "state: on" in steps["still"]


def test_report_trace_goes_on_until_it_is_interrupted_and_leaves_what_runs(tmp_path: Path) -> None:
    steps, _ = damo_steps(TRACE, tmp_path)
    assert steps["interrupted"].startswith("status 0\n")
    assert "damo_report_trace_output_tracer: perf" in steps["interrupted"]
    assert "state: on" in steps["still"]
