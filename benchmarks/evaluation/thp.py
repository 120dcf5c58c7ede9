"""`thp` beside advice to use huge pages for all memory: how much of the gain, at how much of the memory that adds.

Three programs (`thp_patterns.c`): a stencil over two dense grids, random access to an area of 768 MiB, and random
access to the first eighth of each block of 2 MiB. Each has 256 MiB beside it, of which a page in 16 was written once.
*small*: small pages; *advised*: MADV_HUGEPAGE for all of it before it is used; *pydamon*: as small, with `pydamon
record --module thp` beside it, measured once nothing more is made huge. Then all three take turns (the others are
stopped), so that what else uses the machine is the same for them. Speed is by the CPU time of a round, the median;
memory is Rss. No setting of the machine is changed.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import msgspec

from benchmarks.evaluation.recording import recording
from benchmarks.evaluation.report import machine, spread, verdict
from pydamon.linux import thp
from pydamon.linux.footprint import read_footprint

MIB = 1 << 20
SOURCE = Path(__file__).with_name("thp_patterns.c")
PATTERNS = {"stencil": 256, "random": 768, "eighth": 512}  # MiB
SPARSE_MIB = 256
AIMED_AT = ("stencil", "random")
TURNS, TURN_S, PATIENCE_S = 6, 3.0, 60.0
QUIET_S = 30  # nothing more is made huge, when nothing was for so long


class Outcome(msgspec.Struct, frozen=True):
    """Of one run: seconds of CPU time of a round, MiB that are resident, and of these in huge pages; of pydamon how
    long it took until that was so, and its share of a CPU."""

    round_s: float
    resident: float
    huge: float
    settled_s: float = 0.0
    cpu: float = 0.0


class Program:
    """A pattern that runs; rounds are heard as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("ready"):
            raise SystemExit("evaluation: the program ended before it had its memory")
        self.pid = process.pid
        self._lines = process.stdout
        self._rounds: list[float] = []
        self.rounds: list[float] = []
        Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        for line in self._lines:
            self._rounds.append(int(line) / 1e9)

    def turn(self, seconds: float) -> None:
        """Let it run for so long, and until a whole round has ended; `rounds` has more then."""
        before = len(self._rounds) + 1  # the one that was stopped in the middle is left out
        os.kill(self.pid, signal.SIGCONT)
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s or len(self._rounds) <= before:
            if time.monotonic() > until_s + PATIENCE_S:
                raise SystemExit(f"evaluation: no round has ended within {seconds + PATIENCE_S:g} s")
            time.sleep(0.1)
        os.kill(self.pid, signal.SIGSTOP)
        self.rounds += self._rounds[before:]

    def stop(self) -> None:
        """Until its next turn."""
        os.kill(self.pid, signal.SIGSTOP)

    def outcome(self) -> Outcome:
        """What its rounds took, and its memory."""
        resident = (read_footprint(self.pid) or {}).get("resident_bytes", 0)
        return Outcome(statistics.median(self.rounds), resident / MIB, self.huge())

    def huge(self) -> float:
        """MiB in huge pages."""
        return (thp.of_process(self.pid) or 0) / MIB


@contextmanager
def running(program: Path, pattern: str, *, advised: bool) -> Iterator[Program]:
    """The pattern, when it has its memory."""
    command = [program, pattern, PATTERNS[pattern], SPARSE_MIB, int(advised)]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Program(process)
        finally:
            process.kill()


def settle(target: Program, spent_s: Callable[[], float], options: argparse.Namespace) -> float:
    """Wait until nothing more is made huge; the seconds that took."""
    began_s = settled_s = time.monotonic()
    huge = 0.0
    while (now_s := time.monotonic()) - began_s < options.most and not (huge and now_s - settled_s > QUIET_S):
        time.sleep(1)
        spent_s()
        if target.huge() > huge:
            huge, settled_s = target.huge(), time.monotonic()
    return settled_s - began_s


def measure(program: Path, pattern: str, options: argparse.Namespace) -> tuple[Outcome, Outcome, Outcome]:
    """One run: small, advised, pydamon."""
    with (
        running(program, pattern, advised=False) as small,
        running(program, pattern, advised=True) as advised,
        running(program, pattern, advised=False) as mine,
        tempfile.TemporaryDirectory() as folder,
    ):
        small.stop()
        advised.stop()
        with recording(mine.pid, options.module, Path(folder)) as spent_s:
            began_s = time.monotonic()
            settled_s = settle(mine, spent_s, options)
            cpu = spent_s() / (time.monotonic() - began_s)
            mine.stop()
            for _ in range(TURNS):
                for one in (small, advised, mine):
                    one.turn(TURN_S)
            found = msgspec.structs.replace(mine.outcome(), settled_s=settled_s, cpu=cpu)
        return small.outcome(), advised.outcome(), found


def evaluate(program: Path, pattern: str, options: argparse.Namespace) -> None:
    """Print a line for each way, and what of the gain and of the memory ours has."""
    gains, bloats, found = [], [], {"small": [], "advised": [], "pydamon": []}  # type: ignore[var-annotated]
    for _ in range(options.runs):
        small, advised, mine = measure(program, pattern, options)
        for name, outcome in (("small", small), ("advised", advised), ("pydamon", mine)):
            found[name].append(outcome)
        gains.append(100 * (small.round_s - mine.round_s) / (small.round_s - advised.round_s))
        bloats.append(100 * (mine.resident - small.resident) / (advised.resident - small.resident))
    for name, outcomes in found.items():
        rounds = spread([1000 * one.round_s for one in outcomes], " ms", 0)
        memory = spread([one.resident for one in outcomes], " MiB", 0)
        print(f"{pattern:8} {name:8} a round {rounds:>22}  resident {memory:>24}", end="")
        print(f"  huge {spread([one.huge for one in outcomes], ' MiB', 0)}")
    mine_all = found["pydamon"]
    reached = statistics.median(gains) >= 80 and statistics.median(bloats) <= 5
    aim = f": {verdict(reached)} (80%, 5%)" if pattern in AIMED_AT else ""
    print(f"{pattern:8} of the gain {spread(gains, '%', 0)}, of the added memory {spread(bloats, '%')}{aim};", end=" ")
    print(f"settled after {spread([one.settled_s for one in mine_all], ' s', 0)},", end=" ")
    print(f"pydamon {spread([100 * one.cpu for one in mine_all], '% of a CPU')}, its start included;", end=" ")
    print(f"load {os.getloadavg()[2]:.1f} (15 minutes)", flush=True)


def main() -> None:
    """Compile the programs, and print what becomes of each."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("patterns", nargs="*", choices=[*PATTERNS, []], metavar="PATTERN", help=", ".join(PATTERNS))
    parser.add_argument("--runs", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--most", type=float, default=240, help="seconds until pydamon is to be done (default: 240)")
    parser.add_argument("--module", default="thp cold_min_age=off quota=200ms/1s", help="(default: %(default)s)")
    options = parser.parse_args()
    print(f"thp: {options.module}; {options.runs} runs; huge pages by the kernel itself: {thp.mode()}\n{machine()}")
    print("the seeds' ethp: 51% and 45% of the gain, the latter at 0.6% of the added memory", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "patterns"
        try:
            subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True)
        except FileNotFoundError:
            raise SystemExit("evaluation: cc is not here; install a C compiler (gcc)") from None
        for pattern in options.patterns or PATTERNS:
            evaluate(program, pattern, options)


if __name__ == "__main__":
    main()
