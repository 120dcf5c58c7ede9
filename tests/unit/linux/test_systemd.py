"""What the service manager hears."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydamon.linux.systemd import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The end that listens."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = str(Path(folder) / "notify") if request.param == "path" else f"@pydamon-test-{os.getpid()}"
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def test_it_hears_what_happens(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    told = Manager()
    told.ready()
    told.status("2 monitors")
    told.status("2 monitors")  # said once
    told.alive()
    told.alive()  # a quarter of the time has not passed
    told.reloading()
    told.stopping()
    assert [manager.recv(100) for _ in range(3)] == [b"READY=1", b"STATUS=2 monitors", b"WATCHDOG=1"]
    assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize(("usec", "pid", "seconds"), [
    ("2000000", None, 2.0), ("2000000", "own", 2.0), ("2000000", "1", None), ("", None, None), ("x", None, None),
    ("0", None, None),
])  # fmt: skip
def test_how_often_it_wants_to_hear_of_this_process(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert Manager().watchdog_s == seconds


@pytest.mark.parametrize("address", ["", "nonsense", "/nonexistent/notify"])
def test_without_one_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    Manager().ready()
