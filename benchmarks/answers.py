"""How right the answer is that somebody gets who asks how much memory a program uses, and how much could be taken.

Programs of which it is known, and servers as they are installed. Beside it stands the kernel's account over windows of
the same length, before and after the recording.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import answers_programs as programs
from benchmarks.answers_asked import Recorded, Span, Used, record, referenced, resident, used
from benchmarks.answers_programs import MIB, Missing, Running

WINDOWS_S = (1, 10)
SETTLE_S = 2  # until what a program does at its start is over
ABOUT = """\
answers: MiB that pydamon says were used within a window (95 % interval); what the kernel says (clear_refs, Referenced),
without and with mapped files, which others use as well; what the program knows; whether the intervals of pydamon and
the kernel meet; half of pydamon's as a share of what is resident; MiB that were idle, by pydamon and by the kernel;
share of a CPU of the whole recording, its start included
"""
HEADING = (
    f"{'':27} {'resident':>8} {'window':>6} {'used':>25} {'kernel':>16} {'known':>6} {'holds':>5} {'±':>6} "
    f"{'idle':>6} {'kernel':>6} {'CPU':>6}"
)
# The intervals that fit, said explicitly: what is compared must not depend on a default.
FIT = ("--intervals", "auto")


@dataclass(frozen=True)
class Row:
    """One program, and what is asked about it."""

    name: str
    start: Callable[[], AbstractContextManager[Running]]
    ask: Callable[[str, Running, str, float], None]


def compare(title: str, running: Running, path: str, seconds: float, options: tuple[str, ...] = ()) -> None:
    """Print for each window what pydamon says, what the kernel says, and what the program knows."""
    pids = family(running.pids) if "--include-children" in options else running.pids
    truth = {window_s: [account(pids, window_s)] for window_s in WINDOWS_S}
    recorded = record(running.pids, path, seconds, *FIT, *options)
    there = resident(pids)
    answer = used(recorded)
    for window_s, spans in truth.items():
        spans.append(account(pids, window_s))
        truth_span = Span(min(span.low for span in spans), max(span.high for span in spans))
        print(line(title, window_s, there, answer, truth_span, running.known.get(window_s), recorded), flush=True)
        title = ""


def account(pids: list[int], window_s: int) -> Span:
    """The kernel's account over ten seconds in windows of that length: twice the longest period of the programs."""
    return referenced(pids, window_s, 10 // window_s)


def line(title: str, window_s: int, there: int, answer: Used, truth: Span, known: int | None, cost: Recorded) -> str:
    """One row of the table."""
    told = answer.windows[window_s]
    own = "" if known is None else mib(known)
    head = f"{title:27} {mib(there) if title else '':>8} {window_s:4} s"
    between = f"{mib(truth.low)} to {mib(truth.high)}"
    if told is None:
        return f"{head} {'not known':>24} {between:>16} {own:>6}"
    estimate, low, high = told
    half = (high - low) / 2 / answer.resident
    holds = "yes" if low <= truth.high and truth.low <= high else "no"
    above = " (more than is resident)" if estimate > there * 1.01 else ""
    idle, idle_truth = answer.resident - estimate, there - (truth.low + truth.high) // 2
    cpu = f"{cost.cpu_share:6.1%}" if title else ""
    return (
        f"{head} {mib(estimate):>6} ({mib(low):>6} to {mib(high):>6}) {between:>16} {own:>6} {holds:>5} {half:6.1%}"
        f" {mib(idle):>6} {mib(idle_truth):>6} {cpu}{above}"
    ).rstrip()


def mib(size: float) -> str:
    """In MiB, with one decimal."""
    return f"{size / MIB:.1f}"


def family(pids: list[int]) -> list[int]:
    """Those processes and all that they have started."""
    found = list(pids)
    for pid in found:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def late(title: str, running: Running, path: str, seconds: float) -> None:
    """Whether a recording whose samples come late says so."""
    recorded = record(running.pids, path, seconds, "--sample", "5ms", "--aggr", "100ms")
    rows = [row for row in recorded.said.splitlines() if "late" in row or "every" in row]
    found = "; ".join(row.removeprefix("pydamon: ") for row in rows)
    print(f"{title}: {recorded.cpu_share:.1%} of a CPU; said: {found}", flush=True)


def unknown(title: str, running: Running, path: str, seconds: float) -> None:
    """Whether what cannot be watched is unknown, and that is said."""
    recorded = record(running.pids, path, seconds)
    told = recorded.answer("wss")["targets"][0]
    said = [row for row in recorded.said.splitlines() if "cannot be watched" in row]
    print(
        f"{title}: working set {mib(told['percentiles']['50'])} MiB, {mib(told['unknown_bytes'])} MiB unknown of "
        f"{mib(resident(running.pids))}; said: {'; '.join(said) or 'nothing'}",
        flush=True,
    )


def dry_run(title: str, running: Running, path: str, seconds: float) -> None:
    """Whether what a dry run would have done is not more than there is."""
    before = resident(running.pids)
    recorded = record(running.pids, path, min(seconds, 12), "--dry-run", "--scheme", "pageout rate=0% age>=2s")
    said = re.findall(r"would .*", recorded.said)
    print(f"{title}: resident {mib(before)} MiB; {'; '.join(said)}; left {mib(resident(running.pids))}", flush=True)


def quota(title: str, running: Running, path: str, seconds: float) -> None:
    """Whether a quota of 16 MiB a second is spent on memory: how much of 40 MiB of an idle file has gone."""
    before = resident(running.pids)
    recorded = record(
        running.pids, path, min(seconds, 10), "--scheme", "pageout rate=0% age>=1s quota=16M/1s filter=anon"
    )
    gone = before - resident(running.pids)
    said = re.findall(r"was applied.*", recorded.said)
    print(f"{title}: {mib(gone)} of 40 MiB gone; {'; '.join(said)}", flush=True)


@contextmanager
def far_apart() -> Iterator[Running]:
    """With a file that was just written, so that it is in memory."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(40 * MIB))
        file.flush()
        os.fsync(file.fileno())
        with programs.python(programs.FAR_APART, file.name) as running:
            yield running


SERVICE = partial(programs.python, programs.SERVICE, known={10: 76 * MIB})
EIGHTH = partial(programs.python, programs.EIGHTH, known={1: 64 * MIB, 10: 64 * MIB})
ROWS = {
    "threads": Row("200 threads", partial(programs.python, programs.THREADS), compare),
    "node": Row("Node.js, 10 MiB hot", programs.node, compare),
    "eighth": Row("one page in 8 of 512 MiB", EIGHTH, compare),
    "service": Row("service of 16/60/300 MiB", SERVICE, compare),
    "redis": Row("redis, 40 MB hot", programs.redis, compare),
    "postgres": Row("PostgreSQL, one session", programs.postgres, compare),
    "java": Row("JVM, 20 of 200 MiB hot", programs.java, compare),
    "workers": Row("4 workers and their parent", programs.workers, partial(compare, options=("--include-children",))),
    "ten": Row("ten processes", partial(programs.several, 10), compare),
    "late": Row("ten processes every 5 ms", partial(programs.several, 10), late),
    "hugetlb": Row("hot hugetlb memory", programs.hugetlb, unknown),
    "dry-run": Row("dry run of that service", SERVICE, dry_run),
    "quota": Row("quota of 16 MiB a second", far_apart, quota),
}


def main() -> None:
    """Print the table, and one line for each row that asks something else."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks answers", description=__doc__)
    parser.add_argument("--row", action="append", choices=ROWS, help="only this one; repeatable")
    parser.add_argument("--seconds", type=float, default=30, help="how long to record (default 30)")
    options = parser.parse_args()
    print(f"{ABOUT}\n{HEADING}")
    for name in options.row or ROWS:
        row = ROWS[name]
        try:
            with tempfile.TemporaryDirectory() as folder, row.start() as running:
                time.sleep(SETTLE_S)
                row.ask(row.name, running, f"{folder}/r", options.seconds)
        except Missing as reason:
            print(f"{row.name}: skipped, {reason}", flush=True)
