"""Processes as they might be seen: made by hand, always the same."""

from __future__ import annotations

from pydamon.top.past import Past
from pydamon.views.processes import Process, Processes, Use

SECOND = 1_000_000_000
BEGAN = 1_790_000_000 * SECOND  # 2026-09-21 14:13:20 UTC
MIB = 1 << 20
HOSTILE = "[red]evil[/red] \x1b]0;owned\x07 \x1b[2J \x9b31m \u202etxt.exe\nnext"


def use(size: int, error: int, *, at_least: bool = False) -> Use:
    return Use(bytes=size, low_bytes=max(size - error, 0), high_bytes=size + error, at_least=at_least)


def process(pid: int, name: str, resident: int, used: int | None, cgroup: str = "/", uid: int = 4242_0) -> Process:
    return Process(
        pid=pid,
        start_ticks=7 * pid,
        name=name,
        uid=uid,
        cgroup=cgroup,
        resident_bytes=resident,
        used=None if used is None else use(used, used // 10),
        idle=None if used is None else use(resident - 2 * used, used // 10),
        pages=0 if used is None else 64,
        through="" if used is None else "bpf",
        cost_bp=pid % 100,
        trend=() if used is None else tuple(used * (1 + (pid + step) % 5) // 5 for step in range(8)),
    )


def processes(second: int = 0, more: int = 0) -> Processes:
    """What is seen after so many seconds; ``more`` processes beside the usual ones."""
    rows = [
        process(101, "postgres: writer", 512 * MIB, (40 + 5 * second) * MIB, "/system.slice/postgresql.service"),
        process(102, "postgres: checkpointer", 300 * MIB, 2 * MIB, "/system.slice/postgresql.service"),
        process(2001, "/usr/bin/redis-server *:6379", 1536 * MIB, 96 * MIB, "/system.slice/redis.service"),
        process(30, HOSTILE, 8 * MIB, MIB, "/user.slice/[bold]\x1b[5m"),
        process(31, "日本語のプログラム --with wide characters", 16 * MIB, 3 * MIB, "/user.slice"),
        process(1, "/sbin/init", 12 * MIB, None, "/init.scope", uid=0),
    ]
    rows += [process(5000 + n, f"sleeper {n}", 3 * MIB + n * 4096, n * 4096, "/user.slice") for n in range(more)]
    return Processes(
        time_unix_ns=BEGAN + second * SECOND,
        window_s=10,
        idle_s=60,
        processes=rows,
        total_bytes=8192 * MIB,
        available_bytes=2048 * MIB,
        pages=384,
        every_ns=SECOND,
        cpu_ns=12_345_678,
        cpu_bp=210,
        notices=[],
    )


def past(seconds: int = 3, more: int = 0) -> Past:
    """Some seconds of it."""
    kept = Past()
    for second in range(seconds):
        kept.add(processes(second, more))
    return kept
