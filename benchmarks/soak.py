"""A service for as long as you like: does its memory grow, or the number of its files? Processes come and go meanwhile.

``python -m benchmarks soak --minutes 60``: each second a process comes, and lives for 20 s. Thirty times a line for
each process of the service, and in the end what has grown since it was warm: caches fill in the first minutes. Compared
are the medians of the first three and of the last three lines after that.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

_LINES = 30
_LIVES_S = 20.0  # a process that comes and goes
_WARM_S = 300.0  # or a third of the time, if that is less
_ENDS = 3  # lines whose median is compared
_CODE = "import time\nx = bytearray(8 << 20)\nend = time.time() + {seconds}\nwhile time.time() < end:\n" \
    "    x[::4096] = bytes(len(x[::4096])); time.sleep(0.05)"  # fmt: skip


class Sample(msgspec.Struct, frozen=True):
    """A process at a moment: its anonymous memory (KiB), open files, threads.

    What it shares with the process that it was forked from counts: private memory grows as either writes to it.
    """

    memory_kb: int
    files: int
    threads: int


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(prog="benchmarks soak")
    parser.add_argument("--minutes", type=float, default=2.0)
    minutes = parser.parse_args().minutes
    if not minutes > 0:
        parser.error("--minutes must be more than 0")
    with tempfile.TemporaryDirectory(prefix="pydamon-soak-") as folder, _service(Path(folder)) as service:
        samples = _measure(service, Path(folder), minutes * 60)
    _print(samples, min(_WARM_S, minutes * 60 / 3))


@contextmanager
def _service(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A service of three monitors that records, in a directory of its own."""
    (folder / "run").mkdir(mode=0o700)
    (folder / "soak-target").symlink_to(sys.executable)
    monitors = [
        {"name": "named", "match": {"name": "soak-target*"}, "sample": "20ms", "schemes": ["stat rate=0%"]},
        {"name": "memory", "ops": "paddr", "sample": "100ms"},
        {"name": "own", "match": {"pid": os.getpid()}, "sample": "50ms"},
    ]
    record = {"directory": "records", "rotate": "10s", "keep": {"files": 3}}
    text = json.dumps({"monitors": monitors, "record": record, "metrics": "soak.prom"})
    (folder / "soak.yaml").write_text(text)
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder / "run")}
    command = [sys.executable, "-m", "pydamon", "service", "run", str(folder / "soak.yaml")]
    with open(folder / "said", "wb") as said:
        service = subprocess.Popen(command, env=environment, stderr=said)
    try:
        yield service
    finally:
        service.terminate()
        service.wait(60)


def _measure(service: subprocess.Popen[bytes], folder: Path, seconds: float) -> dict[str, list[tuple[float, Sample]]]:
    """Samples of each process by its name, with their times; the file is read anew a few times."""
    found: dict[str, list[tuple[float, Sample]]] = {}
    began, targets = time.monotonic(), list[subprocess.Popen[bytes]]()
    every = seconds / _LINES
    print(f"{'time':>8}  {'process':<12} {'memory':>9} {'files':>6} {'threads':>8}", flush=True)
    due = every
    while (now := time.monotonic() - began) < seconds:
        if service.poll() is not None:
            raise SystemExit(f"the service has ended: {(folder / 'said').read_text()}")
        targets = [target for target in targets if target.poll() is None]
        if len(targets) < _LIVES_S:
            code = _CODE.format(seconds=_LIVES_S)
            targets.append(subprocess.Popen([str(folder / "soak-target"), "-c", code]))
        if now >= due:
            due += every
            for name, pid in _processes(folder, service.pid).items():
                sample = sampled(pid)
                if sample is not None:
                    found.setdefault(name, []).append((now, sample))
                    _line(now, name, sample)
            service.send_signal(signal.SIGHUP)
        time.sleep(1)
    for target in targets:
        target.kill()
        target.wait()
    return found


def _processes(folder: Path, supervisor: int) -> dict[str, int]:
    """The processes of the service by their names; that of the metrics is told by nobody else."""
    command = [sys.executable, "-m", "pydamon", "service", "status", "--json"]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder / "run")}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    found = {each["name"]: each["pid"] for each in json.loads(done.stdout)["monitors"] if each["pid"] is not None}
    children = map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split())
    others = [pid for pid in children if pid not in found.values()]
    return {"supervisor": supervisor, **found, **({"metrics": others[0]} if others else {})}


def sampled(pid: int) -> Sample | None:
    """How large a process is; None if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        memory = sum(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))
        files = len(os.listdir(f"/proc/{pid}/fd"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return None
    return Sample(memory, files, threads)


def _line(now: float, name: str, sample: Sample) -> None:
    text = f"{now:7.0f}s  {name:<12} {sample.memory_kb:>6,} kB {sample.files:>6} {sample.threads:>8}"
    print(text, flush=True)


def _print(samples: dict[str, list[tuple[float, Sample]]], warm_s: float) -> None:
    print(f"\nafter {warm_s:.0f} s until the end:")
    for name, found in samples.items():
        print(f"  {name:<12} {grown([sample for at, sample in found if at >= warm_s])}")


def grown(samples: list[Sample]) -> str:
    """What has grown from the first few of these to the last few."""
    if not samples:
        return "ended before"
    begin, end = _median(samples[:_ENDS]), _median(samples[-_ENDS:])
    share = end.memory_kb / begin.memory_kb - 1
    return (
        f"memory {begin.memory_kb:,} -> {end.memory_kb:,} kB ({share:+.1%}), "
        f"files {begin.files} -> {end.files}, threads {begin.threads} -> {end.threads}"
    )


def _median(samples: list[Sample]) -> Sample:
    columns = zip(*map(msgspec.structs.astuple, samples), strict=True)
    return Sample(*(int(statistics.median(column)) for column in columns))
