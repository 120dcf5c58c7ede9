"""Servers of other people's under a load that is known, which tell how much they answer per second of CPU time.

redis and memcached with a client that asks by a zipf law (`benchmarks.evaluation.zipf`), PostgreSQL with pgbench
(read-only), mariadb with sysbench (`oltp_read_only`, pareto). Each is Debian's; one that is not installed is `Missing`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.answers_programs import NOBODY, Missing, postgres_server, program, started, until
from benchmarks.spinner import Counted

VALUE = 1000
CLIENT_CPU = 0


class Served:
    """A server: ``pid`` is what is monitored, ``answered()`` what was answered so far."""

    def __init__(self, pid: int, answered: Callable[[], float]) -> None:
        self.pid, self._answered = pid, answered

    def rate(self, work: Callable[[], object], seconds: float) -> float:
        """Answers per second of the server's CPU time while ``work`` is done again and again for that long."""
        before, cpu = self._answered(), cpu_ns(self.pid)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            work()
        cpu = cpu_ns(self.pid) - cpu
        return (self._answered() - before) / max(cpu, 1) * 1e9


def cpu_ns(pid: int) -> int:
    """Time that the threads of a process have run, by /proc/PID/task/TID/schedstat."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())


class Progress:
    """What a client says in lines that come at a steady pace: the answers so far, in between by interpolation."""

    def __init__(self, stream: IO[bytes], pattern: str) -> None:
        self._times, self._totals = [time.monotonic()], [0.0]
        self._pattern = re.compile(pattern)
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            found = self._pattern.search(line.decode(errors="replace"))
            if found:
                now = time.monotonic()
                self._totals.append(self._totals[-1] + float(found[1]) * (now - self._times[-1]))
                self._times.append(now)

    def __call__(self) -> float:
        """Answers until now, as soon as the line that counts them has come."""
        now = time.monotonic()
        until(lambda: self._times[-1] >= now, "the client says nothing any more")
        at = bisect_left(self._times, now)
        share = (now - self._times[at - 1]) / (self._times[at] - self._times[at - 1])
        return self._totals[at - 1] + share * (self._totals[at] - self._totals[at - 1])


@contextmanager
def _asked_by_zipf(kind: str, command: Callable[[str], list[str]], mib: int) -> Iterator[Served]:
    with tempfile.TemporaryDirectory() as folder:
        where = f"{folder}/socket"
        os.chmod(folder, 0o777)  # memcached becomes user nobody before it makes its socket
        with started(command(where), 0) as process:
            until(lambda: os.path.exists(where), f"{kind} makes no socket")
            words = [kind, where, str((mib << 20) // VALUE), str(VALUE)]
            with Counted("benchmarks.evaluation.zipf", *words, cpu=CLIENT_CPU) as client:
                if client.said != "ready\n":
                    raise Missing(f"the client of {kind} ended")
                yield Served(process.pid, lambda: client.done)


def redis(mib: int = 200) -> AbstractContextManager[Served]:
    """redis-server with so many MiB in values of 1,000 bytes."""
    server = program("redis-server")
    return _asked_by_zipf("redis", lambda where: [server, "--port", "0", "--unixsocket", where, "--save", ""], mib)


def memcached(mib: int = 200) -> AbstractContextManager[Served]:
    """memcached with so many MiB in values of 1,000 bytes, and room for all."""
    server = program("memcached")
    who = ["-u", "nobody"] if os.geteuid() == 0 else []
    return _asked_by_zipf("memcached", lambda where: [server, "-s", where, "-a", "777", "-m", str(4 * mib), *who], mib)


@contextmanager
def pgbench() -> Iterator[Served]:
    """The session of PostgreSQL that pgbench asks, read-only; its one client."""
    with postgres_server() as server:
        words = [*server.there, "-n", "-S", "-c", "1", "-T", "100000", "-P", "1", "postgres"]
        command = [str(server.programs / "pgbench"), *words]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **server.how) as client:
            try:
                assert client.stderr is not None
                answered = Progress(client.stderr, r"([\d.]+) tps")
                answered()
                question = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pgbench'"
                ask = [str(server.programs / "psql"), *server.there, "-qAt", "-c", question, "postgres"]
                pid = int(subprocess.run(ask, check=True, capture_output=True, text=True, **server.how).stdout)
                yield Served(pid, answered)
            finally:
                client.kill()


@contextmanager
def sysbench() -> Iterator[Served]:
    """mariadb with a table of 400,000 rows, which one thread of sysbench reads by a power law."""
    install, bench = program("mariadb-install-db"), program("sysbench")
    server = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None:
        raise Missing("mariadbd is not installed")
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"cwd": folder}
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            how |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        data, where = f"--datadir={folder}/data", f"{folder}/socket"
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(
            [install, "--no-defaults", data, "--auth-root-authentication-method=normal"], check=True, **quiet, **how
        )
        settings = ["--innodb-buffer-pool-size=512M", "--skip-networking", "--skip-grant-tables"]
        command = [server, "--no-defaults", data, f"--socket={where}", f"--pid-file={folder}/pid", *settings]
        with started(command, 0, stderr=subprocess.DEVNULL, **how) as process:
            until(lambda: os.path.exists(where), "mariadb does not come up")
            there = [f"--mysql-socket={where}", "--mysql-db=test", "--table-size=400000", "--rand-type=pareto"]
            call = [bench, "oltp_read_only", *there, "--time=0", "--report-interval=1", "--percentile=0"]
            subprocess.run([*call, "prepare"], check=True, **quiet, **how)
            with subprocess.Popen([*call, "run"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **how) as client:
                try:
                    assert client.stdout is not None
                    yield Served(process.pid, Progress(client.stdout, r"tps: ([\d.]+)"))
                finally:
                    client.kill()


SERVERS: dict[str, Callable[[], AbstractContextManager[Served]]] = {
    "redis": redis,
    "memcached": memcached,
    "pgbench": pgbench,
    "sysbench": sysbench,
}
