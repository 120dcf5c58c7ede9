"""Programs whose use of memory is known, and servers of other people's: what `answers` asks about.

Each program prints ``ready`` and then goes on with the same pattern until it is ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
NOBODY = 65534

THREADS = """
import threading, time
def deep(k): return deep(k - 1) if k else 0
def work():
    while True:
        deep(20)
        time.sleep(0.05)
threading.stack_size(8 << 20)
for _ in range(200): threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
time.sleep(3600)
"""

# One page in eight of 512 MiB is there, and all of that is used.
EIGHTH = """
import mmap, time
area = mmap.mmap(-1, 512 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
view = memoryview(area)
view[:: 8 * 4096] = bytes(len(view) // 32768)
print("ready", flush=True)
while True:
    bytes(view[:: 8 * 4096])
    time.sleep(0.05)
"""

# 16 MiB always, 60 MiB every 5 s, 300 MiB never.
SERVICE = """
import mmap, time
def area(mib):
    found = mmap.mmap(-1, mib << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found.madvise(mmap.MADV_NOHUGEPAGE)
    view = memoryview(found)[::4096]
    view[:] = b"x" * len(view)
    return view
always, sometimes, never = area(16), area(60), area(300)
print("ready", flush=True)
due = time.monotonic()
while True:
    bytes(always)
    if time.monotonic() >= due:
        bytes(sometimes)
        due += 5
    time.sleep(0.05)
"""

# A parent and four workers: 32 of 96 shared MiB are used by all workers, and 8 of 24 by each.
WORKERS = """
import mmap, os, time
def area(mib, flags):
    found = mmap.mmap(-1, mib << 20, flags | mmap.MAP_ANONYMOUS)
    found.madvise(mmap.MADV_NOHUGEPAGE)
    view = memoryview(found)[::4096]
    view[:] = b"x" * len(view)
    return view
shared = area(96, mmap.MAP_SHARED)
for _ in range(4):
    if os.fork() == 0:
        own = area(24, mmap.MAP_PRIVATE)
        os.write(1, b"child\\n")
        while os.getppid() > 1:
            bytes(shared[: len(shared) // 3]), bytes(own[: len(own) // 3])
            time.sleep(0.05)
        os._exit(0)
for _ in range(4): os.wait()
"""

# One of several: 8 MiB that are always used, and 8 that never are.
ONE_OF_MANY = """
import mmap, time
area = mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
view = memoryview(area)[::4096]
view[:] = b"x" * len(view)
print("ready", flush=True)
while True:
    bytes(view[: len(view) // 2])
    time.sleep(0.05)
"""

# 32 MiB of hugetlb memory that is read all the time.
HUGETLB = """
import mmap, time
area = mmap.mmap(-1, 32 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
view = memoryview(area)[::4096]
view[:] = b"x" * len(view)
print("ready", flush=True)
while True:
    bytes(view)
    time.sleep(0.01)
"""

# Small mappings 100 GiB apart that are used, and a file (the argument) that was read once.
FAR_APART = """
import ctypes, mmap, sys, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
far = [libc.mmap((16 << 40) + at * (100 << 30), 1 << 20, 3, 0x22 | 0x100000, -1, 0) for at in range(6)]
with open(sys.argv[1], "rb") as file: idle = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
bytes(memoryview(idle)[::4096])
print("ready", flush=True)
while True:
    for at in far: ctypes.memset(at, 1, 1 << 20)
    time.sleep(0.01)
"""

NODE = """
const hot = Buffer.alloc(10 << 20, 1);
const cold = Buffer.alloc(20 << 20, 1);
let sum = 0;
setInterval(() => { for (let at = 0; at < hot.length; at += 4096) sum += hot[at]; }, 5);
console.log("ready", cold.length);
"""

JAVA = """
public class Hot {
    public static void main(String[] arguments) throws InterruptedException {
        byte[][] blocks = new byte[200][];
        for (int i = 0; i < blocks.length; i++) {
            blocks[i] = new byte[1 << 20];
            for (int at = 0; at < blocks[i].length; at += 4096) blocks[i][at] = 1;
        }
        System.out.println("ready");
        long sum = 0;
        while (sum >= 0) {
            for (int i = 0; i < 20; i++) for (int at = 0; at < blocks[i].length; at += 4096) sum += blocks[i][at];
            Thread.sleep(50);
        }
    }
}
"""

# The client of redis (its socket is the argument): sets 44,000 keys of 16 kB, then gets the first 2,500 over and over.
REDIS_CLIENT = """
import socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
answers = server.makefile("rb")
def command(*words):
    return b"*%d\\r\\n" % len(words) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(word), word) for word in words)
for first in range(0, 44000, 100):
    server.sendall(b"".join(command(b"SET", b"%d" % key, b"x" * 16000) for key in range(first, first + 100)))
    for _ in range(100): answers.readline()
print("ready", flush=True)
while True:
    for first in range(0, 2500, 50):
        server.sendall(b"".join(command(b"GET", b"%d" % key) for key in range(first, first + 50)))
        answers.read(50 * len(b"$16000\\r\\n" + b"x" * 16000 + b"\\r\\n"))
    time.sleep(0.2)
"""


class Missing(Exception):
    """A program that is not there, or cannot be run here: the reason."""


@dataclass(frozen=True)
class Running:
    """Processes that are to be asked about; ``known``: bytes that they surely use within so many seconds."""

    pids: list[int]
    known: dict[int, int]


def _known(always_mib: float) -> dict[int, int]:
    return {1: round(always_mib * MIB), 10: round(always_mib * MIB)}


@contextmanager
def started(command: list[str], ready: int = 1, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has written ``ready`` lines; it is ended at the end, with what it has started."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, **options) as process:
        assert process.stdout is not None
        try:
            for _ in range(ready):
                if not process.stdout.readline():
                    raise Missing(f"{command[0]} ended at once")
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def python(text: str, *arguments: str, known: dict[int, int] | None = None, ready: int = 1) -> Iterator[Running]:
    """One of the programs above that are Python."""
    with started([sys.executable, "-c", text, *arguments], ready) as process:
        yield Running([process.pid], known or {})


@contextmanager
def workers() -> Iterator[Running]:
    """The parent; its children come with it."""
    with python(WORKERS, known=_known(32 + 4 * 8), ready=4) as running:
        yield running


@contextmanager
def several(number: int) -> Iterator[Running]:
    """That many processes that have nothing in common."""
    with ExitStack() as stack:
        pids = [stack.enter_context(python(ONE_OF_MANY)).pids[0] for _ in range(number)]
        yield Running(pids, _known(8 * number))


def hugetlb() -> AbstractContextManager[Running]:
    """Where huge pages were reserved already: how many there are is not changed."""
    found = re.search(r"HugePages_Free: +(\d+)", Path("/proc/meminfo").read_text())
    if found is None or int(found[1]) < 16:
        raise Missing("no 16 huge pages of 2 MiB are free (/proc/sys/vm/nr_hugepages)")
    return python(HUGETLB)


@contextmanager
def node() -> Iterator[Running]:
    """Node.js that does nothing but read a buffer."""
    with started([program("node"), "-e", NODE]) as process:
        yield Running([process.pid], _known(10))


@contextmanager
def java() -> Iterator[Running]:
    """A JVM with 200 MiB on its heap, of which 20 are read."""
    compiler, machine = program("javac"), program("java")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Hot.java").write_text(JAVA)
        subprocess.run([compiler, "Hot.java"], cwd=folder, check=True)
        with started([machine, "-Xmx400m", "-XX:+UseSerialGC", "-cp", folder, "Hot"]) as process:
            yield Running([process.pid], _known(20))


@contextmanager
def redis() -> Iterator[Running]:
    """redis-server with 700 MiB, 40 MB of which a client reads over and over."""
    server = program("redis-server")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        command = [server, "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        with started(command) as process:
            until(lambda: os.path.exists(path), "redis-server makes no socket")
            with python(REDIS_CLIENT, path):
                yield Running([process.pid], _known(2500 * 16000 / MIB))


@dataclass(frozen=True)
class Postgres:
    """A server of PostgreSQL: the folder of its programs, the words that say where it is, and how to run them."""

    programs: Path
    there: list[str]
    how: dict[str, Any]


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A server that runs as user nobody, with the tables of ``pgbench`` (256 MB)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise Missing("PostgreSQL is not installed")
    programs = found[-1].parent
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"cwd": folder, "env": {"LC_ALL": "C", "PATH": os.environ["PATH"]}}
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
            how |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True, **how}
        subprocess.run([programs / "initdb", "-D", f"{folder}/data", "-U", "asker", "-A", "trust"], **quiet)
        settings = {
            "listen_addresses": "", "unix_socket_directories": folder, "shared_buffers": "1280MB", "fsync": "off",
            "max_parallel_workers_per_gather": "0", "autovacuum": "off",
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        server = [str(programs / "postgres"), "-D", f"{folder}/data", *words]
        with started(server, 0, stderr=subprocess.DEVNULL, **how):
            until(lambda: os.path.exists(f"{folder}/.s.PGSQL.5432"), "PostgreSQL does not come up")
            there = ["-h", folder, "-U", "asker"]
            asked = [str(programs / "pg_isready"), *there]
            until(
                lambda: subprocess.run(asked, **quiet | {"check": False}).returncode == 0,
                "PostgreSQL takes no connection",
            )
            subprocess.run([programs / "pgbench", *there, "-i", "-q", "-s", "20", "postgres"], **quiet)
            yield Postgres(programs, there, how)


@contextmanager
def postgres() -> Iterator[Running]:
    """A session of PostgreSQL that has read a table of 256 MB and then asks for a twentieth of it."""
    with postgres_server() as server, _session(server.programs, server.there, server.how) as pid:
        yield Running([pid], {})


@contextmanager
def _session(programs: Path, there: list[str], how: dict[str, Any]) -> Iterator[int]:
    """The process of a session that asks for the same rows five times a second."""
    command = [str(programs / "psql"), *there, "-qAt", "postgres"]
    with started(command, 0, stdin=subprocess.PIPE, **how) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"SELECT sum(length(filler)) FROM pgbench_accounts; SELECT pg_backend_pid();\n")
        client.stdin.flush()
        client.stdout.readline()
        pid = int(client.stdout.readline())
        client.stdin.write(b"\\o /dev/null\nSELECT sum(abalance) FROM pgbench_accounts WHERE aid <= 100000\n")
        client.stdin.write(b"\\watch 0.2\n")
        client.stdin.flush()
        yield pid


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def until(condition: Callable[[], bool], complaint: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise Missing(complaint)
        time.sleep(0.05)
