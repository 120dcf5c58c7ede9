"""The server of the page with clients that are slow, vanish, are too many, or talk nonsense; and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.command import only_line, pydamon
from tests.unit.cli.rich_record import rich

pytest.importorskip("uvicorn", reason="needs uvicorn")

from pydamon.web import guard as guards
from pydamon.web import server as servers
from pydamon.web.recording import Recording

TOKEN = "0123456789abcdef-token"
ASK = f"GET /api/recordings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
Client = Callable[[int], Awaitable[None]]


def served(tmp_path: Path, client: Client) -> None:
    """Run ``client(port)`` beside a server of a recording, in one event loop."""
    with Recording(str(rich(tmp_path / "r", seconds=3)), follow=False) as recording:
        recording.read_now()

        async def both() -> None:
            listening = servers.listener("127.0.0.1", 0)
            port = listening.getsockname()[1]
            app: Any = servers.guarded([recording], TOKEN, (), port)
            server = servers.made(app)
            running = asyncio.create_task(server.serve(sockets=[listening]))
            try:
                async with asyncio.timeout(120):
                    await client(port)
            finally:
                server.should_exit = True
                await running

        asyncio.run(both())


async def answer(port: int, request: bytes = ASK) -> bytes:
    """The first line of the answer; empty if the connection was closed without one."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        line = await reader.readline()
        writer.close()
    except ConnectionError:
        return b""
    return line


async def until_served(port: int) -> None:
    """Until somebody who asks is answered: on a busy machine who asks may be late, too."""
    while not (await answer(port)).startswith(b"HTTP/1.1 200"):
        await asyncio.sleep(0.01)


def test_who_asks_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_ASKING_S", 0.2)

    async def client(port: int) -> None:
        for begun in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            assert await reader.read() == b""  # the end
            writer.close()
        await until_served(port)

    served(tmp_path, client)


def test_more_clients_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "MOST_CONNECTIONS", 20)
    monkeypatch.setattr(servers, "_ASKING_S", 1000)  # those who hold the places ask nothing

    async def client(port: int) -> None:
        open_before = len(os.listdir("/proc/self/fd"))
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _ in range(200):
            assert not (await answer(port)).startswith(b"HTTP/1.1 200")
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        await until_served(port)
        held.clear()
        while len(os.listdir("/proc/self/fd")) > open_before + 3:
            await asyncio.sleep(0.01)

    served(tmp_path, client)


def test_who_takes_nothing_or_vanishes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ask for more than the buffers of the connection hold, and read none of it."""
    monkeypatch.setattr(guards, "_SEND_S", 0.3)

    async def client(port: int) -> None:
        tile = ASK.replace(b"recordings", b"0/0/tile/0/0/0/0")
        held = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
            for _ in range(200):
                writer.write(tile)
            held.append((reader, writer))
        gone = await asyncio.open_connection("127.0.0.1", port)
        gone[1].write(tile * 50)
        gone[1].transport.abort()
        await until_served(port)
        for _, writer in held:
            writer.transport.abort()

    served(tmp_path, client)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x01\x02\xff" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n", b"A" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /?token=" + b"9" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ],
)  # fmt: skip
def test_nonsense_is_refused_and_others_are_served(tmp_path: Path, nonsense: bytes) -> None:
    async def client(port: int) -> None:
        first = await answer(port, nonsense)
        assert not first or first.split()[1] in (b"400", b"401", b"405", b"414", b"421", b"431")
        assert (await answer(port)).startswith(b"HTTP/1.1 200")

    served(tmp_path, client)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_although_somebody_is_connected(tmp_path: Path, number: int) -> None:
    record = rich(tmp_path / "r", seconds=3)
    command = [sys.executable, "-m", "pydamon", "serve", str(record)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    address = child.stdout.readline()

    async def hold() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", int(address.split(":")[2].partition("/")[0]))
        child.send_signal(number)
        await asyncio.to_thread(child.wait, 120)
        writer.close()

    asyncio.run(hold())
    _, err = child.communicate()
    assert (child.returncode, err.count("\n")) == (0, 1), err


def test_without_the_packages_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "starlette.py").write_text("raise ModuleNotFoundError('none', name='starlette')\n")
    rich(tmp_path / "r", seconds=1)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = pydamon("serve", str(tmp_path / "r"), env=os.environ | {"PYTHONPATH": path})
    assert (done.returncode, done.stdout) == (3, "")
    assert only_line(done) == "pydamon: serve: needs starlette and uvicorn: pip install 'pydamon[serve]'"
    # The page as one file needs neither.
    made = str(tmp_path / "x.html")
    done = pydamon("export", str(tmp_path / "r"), "--format", "html", "-o", made, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
