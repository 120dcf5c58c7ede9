"""``damo``, unmodified: what it records on damonfs is imported with what is beside it, and it reads what we export."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON
from tests.integration.test_damonfs import needs_fuse
from tests.integration.test_damonfs_damo import DAMO, damo_steps
from tests.unit.records.format_samples import put, some, trace_text

from pydamon.records.formats.damo_parts import parts_of
from pydamon.records.joined import AnyReader, open_record
from pydamon.spec import from_builtins

needs_damo = pytest.mark.skipif(DAMO is None, reason="damo is not installed (pip install damo)")
needs_tracing = pytest.mark.skipif(
    shutil.which("perf") is None or not os.path.isdir("/sys/kernel/tracing"),
    reason="damo records nothing without tracefs, and perf or trace-cmd",
)

# Functions of all CPUs by perf (cpu_profile) are left out: they take long, and nothing of them is read.
RECORDS = """
set -e
grep -q ' /sys/kernel/mm/damon fuse.damonfs ' /proc/mounts
step() { echo "== $1"; shift; "$DAMO" "$@"; }
step start start --target_pid $TARGET --damos_action stat --probe --probe_filter allow anon
step plain record --snapshot 0 3 --schemes_target_regions --do_record access mem_footprint vmas proc_stats --out r.data
step parts record --snapshot 1 4 --output_flush_sec 1 --do_record access mem_footprint vmas proc_stats --out p.data
step running report damon --kdamonds_summary
step stop stop
"""


def _imported(path: Path) -> AnyReader:
    output = path.with_suffix(".damon")
    done = subprocess.run(
        [*PYDAMON, "import", str(path), "-o", str(output)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return open_record(str(output))


@needs_damo
@needs_fuse
@needs_tracing
def test_what_damo_records_is_imported_with_all_that_is_beside_it(tmp_path: Path) -> None:
    steps, pid = damo_steps(RECORDS, tmp_path)
    assert "state: on" in steps["running"]
    parts = parts_of(str(tmp_path / "p.data"))
    assert len(parts) >= 2
    for path, schemes in ((tmp_path / "r.data", True), (tmp_path / "p.data", False)):
        with _imported(path) as reader:
            (target,) = reader.info.targets
            assert target.pid == pid
            assert target.start_ticks is not None
            assert (target.command or "").startswith("python")
            context = from_builtins(reader.info.request).context
            assert context.pids == (pid,)
            assert [probe.filters[0].filter_type for probe in context.probes] == ["anon"]
            names = {one.name for one in reader.mappings_at(0, 1 << 62)}
            assert {"", "[stack]"} < names
            assert not names & {"0"}
            # It keeps 64 MiB.
            assert all(64 << 20 < row["resident_bytes"] < 1 << 30 for row in reader.table_rows("footprint"))
            assert len(list(reader.table_rows("footprint"))) >= 2
            found = [(row["scheme"], row["action"]) for row in reader.table_rows("schemes")]
            assert found == ([(0, "stat")] * 3 if schemes else [])
            begin, end = reader.time_range() or (0, 0)
            times = [row["time_ns"] for row in reader.table_rows("footprint")]
            # On the same clock: how long damo takes for a snapshot depends on the machine.
            assert begin - 3600 * 10**9 < min(times) <= max(times) < end + 3600 * 10**9


@needs_damo
def test_damo_reports_what_is_exported(tmp_path: Path) -> None:
    made = some(20, first_ns=60_100_000_000)
    trace = put(tmp_path / "trace", trace_text(made))
    kdamonds = [{"contexts": [{"ops": "vaddr", "targets": [{"pid": 1}]}]}]
    (tmp_path / "trace.kdamonds").write_text(json.dumps(kdamonds))
    rest = {"shared": 1, "trs": 1, "lrs": 0, "drs": 1, "dt": 0}
    sizes = [{"pid": 1, "footprint": {"size": 1024, "resident": 512} | rest}]
    (tmp_path / "trace.mem_footprint").write_text(json.dumps([{"time": 60.0, "footprints": sizes}] * 2))
    _imported(trace).close()
    environment = os.environ | {"HOME": str(tmp_path)}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment, timeout=200
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(*PYDAMON, "export", "trace.damon", "--format", "damo", "-o", "out.data")
    # 1,024 pages are 4 MiB, 512 are 2.
    footprints = run(DAMO or "", "report", "footprints", "-i", "out.data.mem_footprint")
    assert "4.000 MiB" in footprints
    assert "2.000 MiB" in footprints
    assert "intervals: sample 5 ms aggr 100 ms" in run(DAMO or "", "report", "attrs", "--input", "out.data")
    text = run(*PYDAMON, "export", "trace.damon", "--format", "perf-script", "-o", "-")
    # What report trace writes begins so, and what it reads.
    head = "damo_report_trace_output_format_version: 0\ndamo_report_trace_output_time: 0\n"
    (tmp_path / "text").write_text(f"{head}damo_report_trace_output_tracer: perf\n{text}")
    lines = run(DAMO or "", "report", "trace", "--input", "text", "--event", "all").splitlines()
    regions = [region for one in made for region in one[2]]
    assert [line.split()[-2:] for line in lines] == [[str(nr), str(age)] for _, _, nr, age in regions]
    assert all(" damon:damon_aggregated 0 " in line for line in lines)
