"""Metrics over HTTP and in a file: who asks, what for, and what goes wrong."""

from __future__ import annotations

import gzip
import http.client
import os
import socket
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from tests.helpers.waiting import GENEROUS_S, wait_until
from tests.unit.views.test_store import filled, latest

from pydamon.errors import MachineError, RequestError
from pydamon.service import metrics
from pydamon.service.metrics import parse, publish, reach
from pydamon.views.live import Live, live
from pydamon.views.metrics import families

VIEW = live(latest(filled(12, 0)))


def look() -> list[tuple[str, Live]]:
    return [("web", VIEW)]


@pytest.mark.parametrize(
    ("text", "host", "port", "words"),
    [
        ("9750", "127.0.0.1", 9750, "127.0.0.1:9750"),
        (":9750", "127.0.0.1", 9750, "127.0.0.1:9750"),
        ("localhost:1", "127.0.0.1", 1, "127.0.0.1:1"),
        ("[::1]:9750", "::1", 9750, "[::1]:9750"),
        ("0.0.0.0:0", "0.0.0.0", 0, "0.0.0.0:0"),
    ],
)
def test_an_address_is_loopback_unless_another_one_is_said(text: str, host: str, port: int, words: str) -> None:
    found = parse(text)
    assert tuple(found) == (host, port)
    assert str(found) == words
    assert bool(reach(text)) == (host == "0.0.0.0")
    assert parse("a/b.prom") == "a/b.prom"
    assert reach("a/b.prom") == ""


@pytest.mark.parametrize(
    "text", ["", "x", "1.2.3.4", "host.example:80", "127.0.0.1:99999", "127.0.0.1:٣", "1:-1", "f.txt"]
)
def test_anything_else_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(text)
    assert str(refused.value).startswith("metrics: ")
    assert "\n" not in str(refused.value)
    assert ".prom" in str(refused.value)


@pytest.fixture(name="port")
def port_fixture() -> Iterator[int]:
    with publish("0", look) as where:
        yield port_of(where)


def port_of(where: str) -> int:
    return int(where.removesuffix("/metrics").rpartition(":")[2])


def ask(port: int, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GENEROUS_S)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def test_who_asks_gets_the_format_and_encoding_that_he_takes(port: int) -> None:
    status, headers, plain = ask(port)
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/plain")
    assert b'pydamon_resident_bytes{kdamond="web",target="0"}' in plain
    _, headers, opened = ask(port, Accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert opened.endswith(b"# EOF\n")
    _, headers, packed = ask(port, Accept_Encoding="gzip")
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == plain
    status, headers, nothing = ask(port, method="HEAD")
    assert (status, nothing, int(headers["content-length"])) == (200, b"", len(plain))


def test_there_is_nothing_else_to_ask_for(port: int) -> None:
    assert ask(port, "/etc/passwd")[0] == 404
    assert ask(port, "/metrics/../x")[0] == 404
    assert ask(port, method="POST")[0] == 405
    assert ask(port, "/metrics?name[]=x")[0] == 200


def test_it_is_worked_out_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(views: Sequence[tuple[str, Live]]) -> list[Metric]:
        made.append(1)
        return families(views)

    monkeypatch.setattr(metrics, "families", counted)
    views = [("web", VIEW)]
    with publish("0", lambda: views) as where:
        port = port_of(where)
        threads = [threading.Thread(target=ask, args=(port,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GENEROUS_S)
        assert len(made) == 1
        views[:] = [("web", live(latest(filled(3, 0, 1))))]
        assert b'target="1"' in ask(port)[2]
        assert len(made) == 2


def test_slow_clients_and_garbage_hold_nobody_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics._Handler, "timeout", 1.0)
    with ExitStack() as stack:
        for _ in range(40):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            slow.sendall(b"GET /met")
        many = b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 500
        for garbage in (b"\0\xff" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"G" * 100_000, many):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            with suppress(OSError):
                client.sendall(garbage)
        wait_until(lambda: _answers(port))


def test_a_client_that_drips_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_MOST_S", 0.3)
    with publish("0", look) as where:
        port = port_of(where)
        with socket.create_connection(("127.0.0.1", port), 30) as slow:

            def dripped() -> bool:
                try:
                    slow.sendall(b"G")
                except OSError:
                    return True
                return False

            wait_until(dripped)
        wait_until(lambda: _answers(port))  # who asks has no longer than that, either


def _answers(port: int) -> bool:
    try:
        return ask(port)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_port_that_is_taken_is_said(port: int) -> None:
    with pytest.raises(MachineError, match=rf"metrics: cannot listen on 127.0.0.1:{port}: Address already in use"):
        publish(f"127.0.0.1:{port}", look).__enter__()


def test_a_file_is_renewed_as_a_whole_and_removed_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pydamon.prom"
    views = look()
    with publish(str(path), lambda: views, every_s=0.05) as where:
        assert where == str(path)
        assert path.read_text().startswith("# HELP pydamon_resident_bytes ")
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        views[:] = [("web", live(latest(filled(3, 0, 1))))]
        wait_until(lambda: 'target="1"' in path.read_text())
        wait_until(lambda: os.listdir(tmp_path) == ["pydamon.prom"])  # the next one is made beside it
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "x.prom", tmp_path):
        name = str(path if path.name.endswith(".prom") else path / "d.prom")
        if path == tmp_path:
            os.mkfifo(name)
        with pytest.raises(RequestError) as refused:
            publish(name, look).__enter__()
        assert str(refused.value).startswith("metrics: cannot write ")


def test_a_disk_that_is_full_is_said_once_and_outlived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pydamon.prom"
    writes = []
    real = os.write

    def full(fd: int, data: bytes) -> int:
        writes.append(1)
        if 1 < len(writes) < 5:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr("pydamon.service.metrics.os.write", full)
    with publish(str(path), look, every_s=0.02):
        wait_until(lambda: len(writes) > 6)
        assert path.read_text().startswith("# HELP")
    assert capsys.readouterr().err.count("No space left") == 1
