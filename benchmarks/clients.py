"""A hundred clients of ``pydamon serve`` for some minutes: does its memory grow, or the number of its files?

``python -m benchmarks clients --minutes 10``. Each does what the page does: asks for it, its first picture, tables and
tiles, then every two seconds whether there is something new; after a while it leaves, every third without a word, and
comes back. What is shown: a record that is complete, and a kdamond in the background that writes none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.reports import make_record
from benchmarks.soak import Sample, grown, sampled

_SAMPLES = 20
_LOOK_S = 2.0
_TIMEOUT_S = 60.0
_LOOKS = 10  # then it leaves
_TOKEN = "0123456789abcdef-token"


class Client:
    """One that comes and goes; ``answers`` counts what it got, ``wrong`` what was no good answer."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._dice = random.Random(seed)
        self.answers = 0
        self.wrong: list[str] = []
        self.slowest_s = 0.0

    async def run(self, until_s: float) -> None:
        """Come, look, and leave, until then."""
        await asyncio.sleep(self._dice.uniform(0, 20))
        while time.monotonic() < until_s:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                async with asyncio.timeout(_TIMEOUT_S + _LOOKS * _LOOK_S):
                    await self._visit(reader, writer)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
            if self._dice.random() < 1 / 3:
                writer.transport.abort()
            else:
                writer.close()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def get(path: str) -> bytes:
            began = time.monotonic()
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {_TOKEN}\r\n\r\n"
            writer.write(head.encode())
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length"))
            body = await reader.readexactly(length)
            self.answers += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if lines[0].split()[1] != "200":
                self.wrong.append(f"{path}: {lines[0]}")
            return body

        await get("/")
        listed = json.loads(await get("/api/recordings"))["recordings"]
        at = self._dice.randrange(len(listed))
        if not listed[at]["targets"]:
            return  # nothing of it was read yet
        of = f"/api/{at}/{listed[at]['targets'][0]['target']}"
        told = json.loads(await get(of))
        await get(f"{of}/plane/{told['levels'] - 1}")
        await get(f"/api/{at}/status")
        await get(f"/api/{at}/schemes")
        for _ in range(_LOOKS):
            end_ns = told["end_ns"]
            when = self._dice.randrange(max(end_ns, 1))
            await get(f"{of}/at?ns={when}")
            await get(f"{of}/window?from=0&to={max(end_ns, 1)}")
            await get(f"{of}/tile/{self._dice.randrange(told['levels'])}/0/0/0")
            await get("/api/recordings")
            await asyncio.sleep(_LOOK_S)
        await get("/metrics")


@contextmanager
def serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server of a record and a kdamond."""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder / "run")}
    (folder / "run").mkdir(mode=0o700)
    (folder / "token").write_text(_TOKEN)
    make_record(folder / "made.damon", 500)
    pydamon = [sys.executable, "-m", "pydamon"]
    monitors = ["start", "--name", "mute", "--sample", "50ms", "--aggr", "1s", str(os.getpid())]
    subprocess.run([*pydamon, *monitors], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        command = [*pydamon, "serve", str(folder / "made.damon"), "mute", "--token-file", str(folder / "token")]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
            try:
                yield server
            finally:
                server.terminate()
    finally:
        subprocess.run([*pydamon, "stop", "mute"], env=environment, check=True, stdout=subprocess.DEVNULL)


async def measure(port: int, pid: int, clients: int, seconds: float) -> list[Sample]:
    """Samples of the server while it is asked."""
    began = time.monotonic()
    visitors = [Client(port, seed) for seed in range(clients)]
    running = [asyncio.create_task(one.run(began + seconds)) for one in visitors]
    samples: list[Sample] = []
    for number in range(_SAMPLES):
        await asyncio.sleep(max(began + seconds * (number + 1) / _SAMPLES - time.monotonic(), 0))
        if (sample := sampled(pid)) is not None:
            samples.append(sample)
            told = f"{sample.memory_kb:>8,} kB {sample.files:>5} files {sample.threads:>3} threads"
            print(f"{time.monotonic() - began:6.0f}s {told}", flush=True)
    for task in running:
        task.cancel()
    for task in running:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    answers, wrong = sum(one.answers for one in visitors), [line for one in visitors for line in one.wrong]
    slowest = max(one.slowest_s for one in visitors)
    print(f"{answers:,} answers, the slowest after {slowest:.1f} s; {len(wrong)} were none: {wrong[:3]}")
    return samples


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(prog="benchmarks clients")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pydamon-clients-") as folder, serving(Path(folder)) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline().split(":")[2].partition("/")[0])
        samples = asyncio.run(measure(port, server.pid, options.clients, options.minutes * 60))
        time.sleep(12)  # connections that were left end
        rest = sampled(server.pid)
    warm = len(samples) // 3
    print(f"\n{options.clients} clients, from a third of the time to its end:")
    print(f"  {'server':<12} {grown(samples[warm:])}")
    if rest is not None:
        print(f"  when they have gone: {rest.files} files")
