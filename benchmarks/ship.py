"""What shipping takes of a host: CPU time and bytes a minute; with ``--kills`` whether anything is lost or doubled.

A host of 50 cgroups whose pages come and go as a panel of 64 pages each sees them. What the process that ships does is
done as it does it, but for the sockets: it reads the answer of a monitor from its JSON, the files of each cgroup, and
writes journals and files of the data set with all their fsync. CPU time is of the whole process, over hours that pass
at once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import ship_kills
from pydamon.dataset.stores import Directory, open_store
from pydamon.service import protocol
from pydamon.service.shipping.cgroups import Cgroups
from pydamon.service.shipping.rows import Rows, Seen
from pydamon.service.shipping.sender import Sender
from pydamon.service.shipping.settings import Shipping
from pydamon.service.shipping.shipper import Shipper
from pydamon.service.shipping.spool import Spool
from pydamon.views.live import WINDOWS_S, Cost, Live, Scheme, Sum, Target, Used, read

FIRST = 1_795_737_600
PAGES = 64
PAGE = 4096
MOST_SHARE = 0.001  # of a CPU
MOST_BYTES = 7000  # a minute
_Z = 1.96
_BOUNDS = np.array(WINDOWS_S, np.float64)


class Host:
    """Cgroups of which each has hot pages and others that come back after a time of its own."""

    def __init__(self, count: int, below: Path) -> None:
        self._draw = np.random.default_rng(20261127)
        self._resident = self._draw.integers(1 << 12, 1 << 20, count) * PAGE
        self._period_s = self._draw.choice([20.0, 300.0, 3000.0, 50_000.0], (count, PAGES), p=[0.3, 0.2, 0.2, 0.3])
        self._idle_s = self._draw.exponential(self._period_s)
        self._returned = np.zeros((count, len(WINDOWS_S)), np.int64)
        self._minutes = 0
        self._names = [
            "/kubepods.slice/kubepods-burstable.slice/"
            f"kubepods-burstable-pod{n:08x}_0000_4000_8000_{n * 7919:012x}.slice/"
            f"cri-containerd-{n * 104_729:064x}.scope"
            for n in range(count)
        ]
        self._below = below
        for name in self._names:
            (below / name[1:]).mkdir(parents=True)
            (below / name[1:] / "memory.max").write_text(f"{8 << 30}\n")
            (below / name[1:] / "memory.low").write_text(f"{1 << 28}\n")
            (below / name[1:] / "memory.min").write_text("0\n")

    def minute(self) -> bytes:
        """Let one pass; what a monitor would answer then."""
        self._minutes += 1
        draw, count = self._draw, len(self._names)
        self._resident += draw.integers(-500, 501, count) * PAGE
        self._resident = np.maximum(self._resident, 1 << 24)
        each = self._resident / PAGES
        self._idle_s += 60
        back = draw.random((count, PAGES)) < 1 - np.exp(-60 / self._period_s)
        slept = np.where(back, self._idle_s, -1)
        self._returned += np.rint((slept[:, :, None] >= _BOUNDS).sum(1) * each[:, None]).astype(np.int64)
        self._idle_s[back] = draw.exponential(np.minimum(self._period_s[back], 60.0))
        for number, name in enumerate(self._names):
            self._files(self._below / name[1:], number)
        return protocol.encode_line({"result": {"live": msgspec.to_builtins(self._view())}})

    def _files(self, folder: Path, number: int) -> None:
        waited = self._minutes * 100 * (number % 3)
        line = f"avg10=0.00 avg60=0.00 avg300=0.00 total={waited}\n"
        (folder / "memory.pressure").write_text(f"some {line}full {line}")
        filler = "".join(f"counter_{at} {at * 12345}\n" for at in range(60))
        refaults = self._minutes * (number % 5)
        (folder / "memory.stat").write_text(f"{filler}workingset_refault_anon {refaults}\nworkingset_refault_file 7\n")

    def _view(self) -> Live:
        now_ns = (self._minutes + 10_000) * 60 * 10**9
        targets = [self._target(number) for number in range(len(self._names))]
        total = Sum(
            resident_bytes=0, needed_bytes=0, working_set_bytes=0, by="panel", used=[], kinds=[], once=False
        )  # fmt: skip
        done = {"sz_applied_bytes": self._minutes * (3 << 20)}
        scheme = Scheme(number=0, name="reclaim", action="pageout", active=True, stats=done, effective_bytes=None)
        cpu_ns = self._minutes * 700_000_000
        return Live(
            time_ns=now_ns, time_unix_ns=now_ns, elapsed_ns=now_ns, engine="user", engine_reason=None, ops="vaddr",
            primitive="bpf", primitive_reason=None, targets=targets, total=total, containers=[], schemes=[scheme],
            cost=Cost(cpu_ns=cpu_ns, checks=1, check_ns=1, clears=1, clear_ns=1, disturb_ns=1),
        )  # fmt: skip

    def _target(self, number: int) -> Target:
        resident = int(self._resident[number])
        shares = (self._idle_s[number][:, None] < _BOUNDS).mean(0)
        error = _Z * np.sqrt(shares * (1 - shares) / PAGES)
        used = [
            Used(
                window_s=window_s,
                bytes=round(share * resident),
                low_bytes=round(max(share - wide, 0) * resident),
                high_bytes=round(min(share + wide, 1) * resident),
            )
            for window_s, share, wide in zip(WINDOWS_S, shares.tolist(), error.tolist(), strict=True)
        ]
        sizes = dict.fromkeys(
            ("resident_bytes", "needed_bytes", "working_set_bytes", "rss_bytes", "swap_bytes"), resident
        )  # fmt: skip
        return Target(
            target=number, pid=1000 + number, command="worker", cgroup=self._names[number],
            container_id=f"{number * 104_729:064x}", pod_uid=None, namespace="shop",
            pod=f"worker-{number % 20}-{number:05x}", container=f"worker{number % 20}", by="panel", used=used, kinds=[],
            regions=100, aggr_us=100_000, mappings=[], returned_bytes=self._returned[number].tolist(), **sizes,
        )  # fmt: skip


def measure(folder: Path, count: int, minutes: int) -> dict[str, float]:
    """CPU seconds and bytes a minute of a host with so many cgroups; the first batch is not counted."""
    below = folder / "cgroup"
    host = Host(count, below)
    settings = Shipping(to=str(folder / "fleet"), spool=str(folder / "spool"), host="host-00042.example.net")
    answers: list[bytes] = []
    wall_s = float(FIRST)
    spool = Spool(settings.spool, settings.most_bytes)
    sender = Sender(spool, lambda: open_store(settings.to, make=True), wall_s=lambda: wall_s)

    def look() -> list[Seen]:
        told: Any = msgspec.json.decode(answers.pop())
        return [Seen("web", 1, read(told["result"]["live"]), 50 << 20)]

    shipper = Shipper(
        settings, spool, sender, look, wall_s=lambda: wall_s, steady_s=lambda: wall_s, say=print
    )  # fmt: skip
    shipper._rows = Rows(facts_of=Cgroups([below]).facts)
    spent_ns = counted = answered = 0
    for number in range(minutes + 15):
        answers.append(host.minute())
        answered = len(answers[0])
        wall_s += 60
        began_ns = time.process_time_ns()
        shipper.minute()
        while sender.step() is not None:
            pass
        if number >= 15:
            spent_ns += time.process_time_ns() - began_ns
            counted += 1
    shipped = list(Directory(settings.to).list())
    told = sum(each.bytes for each in shipped)
    told_rows = sender.sent.rows
    spool.close()
    return {
        "cpu_ms": spent_ns / counted / 1e6,
        "share": spent_ns / counted / 60e9,
        "bytes": told / (told_rows / count),
        "answer_bytes": answered,
    }


def main() -> None:
    """Print what it takes; with ``--kills N`` kill a shipper so many times first."""
    parser = argparse.ArgumentParser(prog="benchmarks ship", description=__doc__)
    parser.add_argument("--cgroups", type=int, default=50)
    parser.add_argument("--minutes", type=int, default=240)
    parser.add_argument(
        "--kills", type=int, default=0, metavar="N", help="kill it so many times (200 in docs/fleet.md)"
    )
    arguments = parser.parse_args()
    print(f"ship: a host of {arguments.cgroups} cgroups, {arguments.minutes} minutes, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.cgroups, arguments.minutes)
    print(f"  CPU time {found['cpu_ms']:.1f} ms a minute: {found['share']:.3%} of a CPU (at most {MOST_SHARE:.1%})")
    print(f"  shipped {found['bytes']:.0f} bytes a minute (at most {MOST_BYTES}), of {found['answer_bytes']} of JSON")
    if arguments.kills:
        with tempfile.TemporaryDirectory() as folder:
            print(f"  {ship_kills.words(ship_kills.run_apart(Path(folder), arguments.kills))}")


if __name__ == "__main__":
    main()
