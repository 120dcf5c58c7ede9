"""The ``damo`` tool, unmodified, on the kernel's own DAMON and on damonfs: the same words leave the same in the files.

For what newer kernels have (probes with weights, pause, collapse); skipped on a kernel without it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.kernel_files import need_file
from tests.helpers.programs import program
from tests.integration.test_damonfs import MOUNT, why_not_mounted

from pydamon.linux.damon_sysfs import NR_KDAMONDS, Roots, Tree, find_occupants

DAMO = shutil.which("damo", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(DAMO is None, reason="damo is not installed (pip install damo)"),
    pytest.mark.skipif(why_not_mounted() is not None, reason=f"no FUSE here: {why_not_mounted()}"),
]

BUSY = """
import mmap
area = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print("ready", flush=True)
while True:
    for at in range(0, len(area), 4096):
        area[at] = 1
"""
BEGIN = """
set -e
kdamond=/sys/kernel/mm/damon/admin/kdamonds/0
say() { for file; do echo "$file $(cat $kdamond/$file)"; done; }
damo() { echo "== $1"; "$DAMO" "$@" >"$HOME/said" 2>&1 || { echo "damo: $?"; tail -n 3 "$HOME/said"; }; }
"""
PROBES = """
probes="--probe --probe_filter allow anon --probe_weight 100 --probe --probe_filter reject anon --probe_weight 1"
damo start --ops paddr --monitoring_nr_regions_range 10 20 $probes --damos_action stat
say state contexts/0/operations contexts/0/monitoring_attrs/probes/nr_probes
for probe in 0 1; do
    at=contexts/0/monitoring_attrs/probes/$probe
    say $at/weight $at/filters/nr_filters $at/filters/0/type $at/filters/0/matching $at/filters/0/allow
done
damo report access
damo stop
say state
"""
PAUSE = """
damo start --target_pid $TARGET --damos_action stat
say state contexts/0/pause
damo tune --target_pid $TARGET --damos_action stat --pause_ctx 0
say state contexts/0/pause
damo tune --target_pid $TARGET --damos_action stat
say state contexts/0/pause
damo stop
say state
"""
COLLAPSE = """
damo start --target_pid $TARGET --damos_action collapse
say state contexts/0/schemes/0/action contexts/0/operations
damo report damon --damos_stats
damo stop
say state
"""


@pytest.fixture(autouse=True)
def _left_as_found() -> Iterator[None]:
    """damo leaves its directory when it stops; whoever has tested takes it away, be it on or off."""
    assert find_occupants(Roots()) == []
    yield
    tree = Tree(Roots().damon)
    if (Path(Roots().damon) / "kdamonds/0/state").read_text().strip() == "on":
        tree.write("kdamonds/0/state", "off")
    tree.write(NR_KDAMONDS, 0)


def said(folder: Path, script: str, pid: int, *before: str) -> list[str]:
    """What the script prints; its steps have all succeeded."""
    folder.mkdir()
    environment = os.environ | {"DAMO": DAMO or "", "TARGET": str(pid), "HOME": str(folder)}
    done = subprocess.run(
        [*before, "bash", "-c", BEGIN + script],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "damo: " not in done.stdout, done.stdout
    return done.stdout.splitlines()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("script", "needs", "tells"),
    [
        (PROBES, "monitoring_attrs/probes/nr_probes", "contexts/0/monitoring_attrs/probes/0/weight 100"),
        (PAUSE, "pause", "contexts/0/pause Y"),
        (COLLAPSE, "action=collapse", "contexts/0/schemes/0/action collapse"),
    ],
    ids=["probes with weights", "pause", "collapse"],
)
def test_the_kernels_damon_and_damonfs_are_left_the_same(tmp_path: Path, script: str, needs: str, tells: str) -> None:
    need_file(needs)
    with program(BUSY) as pid:
        kernel = said(tmp_path / "kernel", script, pid)
        ours = said(tmp_path / "damonfs", script, pid, *MOUNT, "--")
    assert tells in kernel
    assert ours == kernel
