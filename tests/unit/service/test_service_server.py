"""The control socket against clients of all kinds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.waiting import GENEROUS_S, wait_until

from pydamon.errors import RequestError
from pydamon.service import protocol
from pydamon.service.server import MAX_PEERS, ControlServer


class Served:
    """A server whose status is ``answer``; other requests do what their names say."""

    def __init__(self, path: Path, timeout_s: float = 3600) -> None:
        self.path = str(path)
        self.answer: dict[str, Any] = {"regions": 3}
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(MAX_PEERS + 4)
        self.stops = threading.Event()
        self.server = ControlServer(listener, self._handle, timeout_s=timeout_s)
        self.server.start()

    def _handle(self, request: protocol.AnyRequest) -> dict[str, Any] | None:
        if isinstance(request, protocol.Status):
            return self.answer
        if isinstance(request, protocol.Tune):
            raise RequestError("is wrong", where="nr_regions.max")
        if isinstance(request, protocol.SetGoal):
            raise ZeroDivisionError("a bug")
        self.stops.set()
        return None

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(GENEROUS_S)
        connection.connect(self.path)
        return connection

    def ask(self, text: bytes) -> bytes:
        """All that is answered to ``text`` and the end of it."""
        with self.connect() as connection:
            connection.sendall(text)
            connection.shutdown(socket.SHUT_WR)
            return rest(connection)


def rest(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(1 << 16):
        received += data
    return received


@pytest.fixture
def served() -> Iterator[Served]:
    with tempfile.TemporaryDirectory() as directory:  # tmp_path may be too long for a socket
        one = Served(Path(directory) / "s")
        yield one
        one.server.finish({})


class Later:
    """The time of servers: the machine's, and so much later."""

    by_s = 0.0
    sleep = staticmethod(time.sleep)

    def monotonic(self) -> float:
        return time.monotonic() + self.by_s


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """An hour, which is what these clients have, goes by when a test says so, and never on a machine that is slow."""
    clock = Later()
    monkeypatch.setattr("pydamon.service.server.time", clock)
    return clock


STATUS = b'{"do": "status"}\n'


def test_nothing_ends_the_control_thread(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.answer = {"record": "n\udcff.damon"}
    assert served.ask(STATUS) == b'{"result":{"record":"n\\\\xff.damon"}}\n'
    served.answer = {"what": object()}  # no JSON at all
    assert b"internal error" in served.ask(STATUS)
    for method in ("_serve", "_accept"):
        whole = getattr(ControlServer, method)
        fails = iter([True])

        def once(self: ControlServer, *arguments: Any, whole: Any = whole, fails: Any = fails) -> Any:
            if next(fails, False):
                raise ZeroDivisionError("a bug")
            return whole(self, *arguments)

        monkeypatch.setattr(ControlServer, method, once)
        served.answer = {"regions": 4}
        try:
            served.ask(STATUS)  # the one that meets it
        except OSError:
            pass
        assert served.ask(STATUS) == b'{"result":{"regions":4}}\n'


def test_a_sign_of_life_is_left_without_requests(tmp_path_factory: pytest.TempPathFactory) -> None:
    with tempfile.TemporaryDirectory() as directory:
        beats: list[float] = []
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{directory}/s")
        listener.listen()
        server = ControlServer(listener, lambda request: {}, beat=lambda: beats.append(time.monotonic()))
        server.start()
        wait_until(lambda: len(beats) > 1)
        server.finish({})


def test_a_request_is_answered(served: Served) -> None:
    assert json.loads(served.ask(STATUS)) == {"result": {"regions": 3}}


def test_several_requests_on_one_connection_are_answered_in_order(served: Served) -> None:
    lines = served.ask(STATUS + b'{"do": "tune"}\n' + STATUS).splitlines()
    assert [next(iter(json.loads(line))) for line in lines] == ["result", "error", "result"]


def test_an_error_names_its_field_and_its_exit_status(served: Served) -> None:
    error = json.loads(served.ask(b'{"do": "tune", "max_regions": 1}\n'))["error"]
    assert error == {"message": "is wrong", "where": "nr_regions.max", "exit_status": 2}


def test_a_bug_is_told_and_the_next_request_is_answered(served: Served) -> None:
    first, second = served.ask(b'{"do": "set_goal", "name": "x", "value": 1}\n' + STATUS).splitlines()
    assert "ZeroDivisionError" in json.loads(first)["error"]["message"]
    assert json.loads(second) == {"result": {"regions": 3}}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b"\xff\xfe\x00",
        b"[]",
        b'{"do": "destroy"}',
        b'{"do": "status", "extra": 1}',
        b'{"do": "tune", "sample_us": "5ms"}',
        b'{"do": "tune", "sample_us": 1e999}',
        b'{"do": "tune", "goal_values": {"a": []}}',
        b'{"do": "tune", "schemes": ' + b"[" * 100_000,
        b'{"do": "tune", "schemes": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)
def test_garbage_is_refused_and_the_next_request_is_answered(served: Served, line: bytes) -> None:
    first, second = served.ask(line + b"\n" + STATUS).splitlines()
    assert "error" in json.loads(first)
    assert json.loads(second) == {"result": {"regions": 3}}


def test_an_endless_line_is_cut_off(served: Served) -> None:
    with served.connect() as connection:
        received = b""
        try:
            for _ in range(64):
                connection.sendall(b"x" * (protocol.MAX_REQUEST // 16))
        except OSError:
            pass
        try:
            received = rest(connection)
        except ConnectionResetError:
            pass
    assert b"longer than" in received or not received
    assert json.loads(served.ask(STATUS)) == {"result": {"regions": 3}}


def test_a_client_that_says_nothing_or_drips_is_dropped_while_others_are_served(served: Served, later: Later) -> None:
    with served.connect() as silent, served.connect() as dripping:
        assert json.loads(served.ask(STATUS)) == {"result": {"regions": 3}}  # so it has heard of both
        later.by_s = 7200

        def dropped() -> bool:
            assert json.loads(served.ask(STATUS)) == {"result": {"regions": 3}}
            try:
                dripping.send(b" ")
            except BrokenPipeError:
                return True
            return False

        wait_until(dropped, every_s=0.05)
        assert silent.recv(1) == b""


def test_a_client_that_does_not_read_does_not_hinder_others(served: Served) -> None:
    served.answer = {"text": "x" * 4_000_000}  # beyond what a socket buffers
    with served.connect() as lazy:
        lazy.sendall(STATUS * 100)
        served.answer = {"regions": 3}
        assert json.loads(served.ask(STATUS)) == {"result": {"regions": 3}}


def test_more_clients_than_there_is_room_for_are_turned_away(served: Served) -> None:
    connections = [served.connect() for _ in range(MAX_PEERS)]
    try:
        with served.connect() as one_more:
            assert one_more.recv(1) == b""
    finally:
        for connection in connections:
            connection.close()

    def room() -> bool:
        try:
            return bool(json.loads(served.ask(STATUS)) == {"result": {"regions": 3}})
        except (OSError, ValueError):
            return False

    wait_until(room)  # as soon as it has seen that they left


def test_who_waits_for_the_end_gets_the_last_report_however_long_it_takes(served: Served, later: Later) -> None:
    with served.connect() as one, served.connect() as other:
        one.sendall(b'{"do": "stop"}\n' + b"more" * 1000)
        other.sendall(b'{"do": "stop", "undo": true}\n')
        other.shutdown(socket.SHUT_WR)
        assert served.stops.wait(GENEROUS_S)
        assert json.loads(served.ask(STATUS)) == {"result": {"regions": 3}}
        later.by_s = 7200  # longer than others have
        assert json.loads(served.ask(STATUS)) == {"result": {"regions": 3}}
        served.server.finish({"snapshots": 7})
        for connection in (one, other):
            assert json.loads(connection.recv(1 << 16)) == {"result": {"snapshots": 7}}
    with pytest.raises(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as late:
        late.connect(served.path)


def test_a_client_that_went_away_while_it_waited_is_no_harm(served: Served) -> None:
    with served.connect() as gone:
        gone.sendall(b'{"do": "stop"}\n')
        assert served.stops.wait(GENEROUS_S)
    served.server.finish({"snapshots": 7})
    assert not served.server._thread.is_alive()


def test_a_server_that_never_began_is_finished_at_once() -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"{directory}/s")
        ControlServer(listener, lambda request: {}).finish({})
        assert listener.fileno() < 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.usefixtures("processes")
def test_another_user_is_not_listened_to_even_where_the_socket_lets_him_in() -> None:
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        'try:\n    s.sendall(b\'{"do": "status"}\\n\'); print(len(s.recv(100)))\n'
        "except OSError: print(0)"
    )
    with tempfile.TemporaryDirectory() as directory:
        one = Served(Path(directory) / "s")
        os.chmod(directory, 0o755)
        os.chmod(one.path, 0o666)
        done = subprocess.run([sys.executable, "-c", script, one.path], capture_output=True, text=True, check=True)
        one.server.finish({})
    assert done.stdout == "0\n"
