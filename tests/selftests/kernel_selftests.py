"""The kernel's own DAMON selftests, unmodified, against damonfs (or, in the guest lab, against the kernel's DAMON).

They are taken from Debian's package linux-source-6.12, or from the source that `lab/build-kernel 7.3` has fetched, when
they are needed, and never kept with this project (they are GPL). By hand:
``python -m tests.selftests.kernel_selftests [--of 7.3 [--level 7.2]] [--kernel] [NAME …]``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.command import PYDAMON

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pydamon"
_BOTH = (
    "sysfs.sh",
    "damon_nr_regions.py",
    "damos_quota.py",
    "damos_quota_goal.py",
    "damos_apply_interval.py",
    "damos_tried_regions.py",
    "sysfs_update_schemes_tried_regions_wss_estimation.py",
    "sysfs_update_schemes_tried_regions_hang.py",
    "sysfs_update_removed_scheme_dir.sh",
)
# By the kernel whose tests they are. Those of 7.3 that read the kernel's memory (drgn) or look for what it has lost
# (kmemleak), and those of modules, are about nothing that damonfs has (docs/damonfs.md).
TESTS = {"6.12": _BOTH, "7.3": (*_BOTH, "sysfs_refresh.py")}
DEBUGFS_TESTS = (
    "debugfs_attrs.sh",
    "debugfs_schemes.sh",
    "debugfs_target_ids.sh",
    "debugfs_empty_targets.sh",
    "debugfs_huge_count_read_write.sh",
    "debugfs_duplicate_context_creation.sh",
    "debugfs_rm_non_contexts.sh",
    "debugfs_target_ids_read_before_terminate_race.sh",
    "debugfs_target_ids_pid_leak.sh",
)
SKIPPED = 4  # the kernel's selftests' exit status for it
_MEMBERS = "tools/testing/selftests/damon/"
_LIMIT_S = 600
# No test is started where this does not say that damonfs is there: nothing reaches the machine's own DAMON.
_ONLY_ON_DAMONFS = """
grep -q ' /sys/kernel/mm/damon fuse.damonfs ' /proc/self/mounts || { echo "damonfs is not there"; exit 99; }
exec "$@"
"""


class Missing(Exception):
    """What the tests need is not on this machine."""


@dataclass(frozen=True)
class Result:
    """How a test ended: its exit status, what it printed, how long it took, and at which try."""

    status: int
    output: str
    seconds: float
    tries: int


def source_of(kernel: str) -> Path:
    """The source of that kernel; raises Missing, saying where it comes from."""
    if kernel == "6.12":
        packed, how = [Path("/usr/src/linux-source-6.12.tar.xz")], "apt-get install linux-source-6.12"
    else:
        packed, how = sorted((_CACHE / "lab" / "sources" / kernel).glob("*.tar.xz")), f"lab/build-kernel {kernel}"
    if not packed or not packed[-1].is_file():
        raise Missing(f"the source of Linux {kernel} is missing ({how})")
    return packed[-1]


def prepare(kernel: str = "6.12") -> Path:
    """The directory with the tests of that kernel, their C programs compiled; made once per version of its source."""
    source = source_of(kernel)
    if shutil.which("cc") is None:
        raise Missing("there is no C compiler (apt-get install gcc)")
    status = source.stat()
    key = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    cache = _CACHE / "selftests"
    ready = cache / key
    if ready.is_dir():
        return ready
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "damon"
        made.mkdir()
        strip = f"--strip-components={1 + _MEMBERS.count('/')}"
        subprocess.run(
            ["tar", "-xJf", source, "-C", made, strip, "--wildcards", f"*/{_MEMBERS}*"], check=True, timeout=300
        )
        for source in made.glob("*.c"):
            subprocess.run(["cc", "-w", "-o", source.with_suffix(""), source], check=True, timeout=60)
        if not ready.is_dir():  # somebody else may have been faster
            made.rename(ready)
    return ready


def run(
    name: str,
    *,
    of: str = "6.12",
    level: str | None = None,
    kernel: bool = False,
    tries: int = 1,
    more: Sequence[str] = (),
) -> Result:
    """Run the test ``name`` until it passes, at most ``tries`` times: they measure time, also on a busy machine.

    ``of`` is the kernel whose test it is, ``level`` what damonfs looks like (None: that kernel). ``kernel``: against
    the kernel's own DAMON; only ever in the guest lab. ``more``: options of ``pydamon mount``.
    """
    for number in range(1, tries + 1):
        began = time.monotonic()
        status, output = _run(name, of, level or of, kernel, more)
        result = Result(status, output, time.monotonic() - began, number)
        if status in (0, SKIPPED):
            break
    return result


def _run(name: str, of: str, level: str, kernel: bool, more: Sequence[str]) -> tuple[int, str]:
    folder = prepare(of)
    command = ["bash" if name.endswith(".sh") else sys.executable, name]
    if kernel:
        if "pydamon.lab=1" not in Path("/proc/cmdline").read_text().split():
            raise Missing("the kernel's own DAMON is tested in the guest lab only")
    else:
        legacy = tempfile.mkdtemp(prefix="damonfs-debug-") if name in DEBUGFS_TESTS else None
        place = tempfile.mkdtemp(prefix="damonfs-test-")
        mount = [*PYDAMON, "mount", place, "--level", level, *more]
        mount += ["--debugfs", legacy] if legacy else []
        command = [*mount, "--", "sh", "-c", _ONLY_ON_DAMONFS, "sh", *command]
        # Some clear the kernel's log, which is the machine's.
        command = ["setpriv", "--bounding-set=-syslog", "--inh-caps=-syslog", *command]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as child:
        try:
            output, _ = child.communicate(timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            output = f"did not end in {_LIMIT_S} s"
            os.killpg(child.pid, signal.SIGINT)
        finally:
            try:  # what it left running is ours: it has our session
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    if not kernel:
        for path in (place, legacy):
            if path is not None:
                if os.path.ismount(path):  # it was killed
                    subprocess.run(["umount", "-l", path], check=False)
                os.rmdir(path)
    return child.returncode, output


def main() -> int:
    """Run the tests that are named, or all; prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--of", choices=sorted(TESTS), default="6.12", help="the kernel whose tests they are")
    parser.add_argument("--level", help="what damonfs looks like, if not like that kernel")
    parser.add_argument("--kernel", action="store_true", help="against the kernel's own DAMON (guest lab only)")
    parser.add_argument("--tries", type=int, default=1)
    parser.add_argument("--primitive", default="auto", help="what damonfs asks processes through")
    parser.add_argument("--faithful", action="store_true", help="damonfs samples as the kernel does")
    options = parser.parse_args()
    more = ["--primitive", options.primitive, *(["--faithful"] if options.faithful else [])]
    failed = 0
    for name in options.names or (*TESTS[options.of], *(DEBUGFS_TESTS if options.of == "6.12" else ())):
        result = run(name, of=options.of, level=options.level, kernel=options.kernel, tries=options.tries, more=more)
        word = {0: "pass", SKIPPED: "skip"}.get(result.status, f"FAIL {result.status}")
        print(f"{name:<55} {word:<7} {result.seconds:6.1f} s  try {result.tries}", flush=True)
        if word.startswith("FAIL"):
            failed += 1
            print("    " + "\n    ".join(result.output.splitlines()[-6:]), flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
