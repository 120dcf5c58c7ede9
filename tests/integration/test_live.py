"""What is known of memory, asked for over the control socket of a kdamond in the background."""

from __future__ import annotations

import signal
import subprocess
import urllib.request

import pytest
from tests.helpers.command import PYDAMON, only_line, pydamon
from tests.helpers.waiting import GENEROUS_S, wait_until
from tests.integration.service_helpers import (  # noqa: F401 - fixtures
    AN_HOUR,
    SIM,
    SMAPS,
    runtime_fixture,
    sleeper_fixture,
    start,
)

from pydamon.errors import RequestError
from pydamon.service.client import Client, running
from pydamon.service.metrics import OfKdamonds


def test_the_memory_of_a_process_by_the_socket(sleeper: int) -> None:
    start(*SMAPS, str(sleeper))
    client = Client()
    wait_until(lambda: client.live()[0] is not None and client.live()[0].cost is not None)  # type: ignore[union-attr]
    view, span = client.live()
    assert view is not None
    assert span is not None
    assert (view.engine, view.ops, view.primitive) == ("user", "vaddr", "smaps")
    (target,) = view.targets
    assert (target.target, target.pid) == (0, sleeper)
    assert "time.sleep(600)" in str(target.command)
    assert target.cgroup is not None
    assert target.rss_bytes is not None
    assert 0 < target.resident_bytes <= 2 * target.rss_bytes
    assert "[heap]" in [mapping.name for mapping in target.mappings]
    assert sum(mapping.bytes for mapping in target.mappings) == pytest.approx(target.resident_bytes, rel=0.2)
    bare, _ = client.live(mappings=[])
    assert bare is not None
    assert bare.targets[0].mappings == []


def test_one_goes_back_in_time(sleeper: int) -> None:
    start(*SIM, "--seed", "3")
    client = Client()

    def lasted() -> bool:
        _, span = client.live()
        return span is not None and span[1] - span[0] >= 2 * 10**9

    wait_until(lasted)
    _, span = client.live()
    assert span is not None
    first, _ = client.live(span[0])
    later, _ = client.live(span[0], step=1)
    assert first is not None
    assert later is not None
    assert first.time_ns == span[0] < later.time_ns
    assert first.time_unix_ns is None  # a simulation's time
    assert first.targets[0].command == f"workload {AN_HOUR}"
    with pytest.raises(RequestError, match="request"):
        client.live(step=10**9)


def test_metrics_of_all_that_runs_in_one_place(sleeper: int) -> None:
    start(*SMAPS, "--name", "web", str(sleeper))
    start(*SIM, "--name", "sim", "--seed", "3")
    look = OfKdamonds(running)
    wait_until(lambda: [name for name, _ in look()] == ["sim", "web"])
    process = subprocess.Popen(
        [*PYDAMON, "metrics", "serve", "127.0.0.1:0"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        where = process.stderr.readline().partition("metrics: ")[2].strip()
        wanted = [
            f'pydamon_kdamond_info{{engine="{kind}",kdamond="{name}"'
            for kind, name in (("user", "web"), ("sim", "sim"))
        ]
        wait_until(lambda: all(each in read(where) for each in wanted))  # who is slow to answer is left out
        Client("sim").stop()
        assert 'kdamond="sim"' not in read(where)
        process.send_signal(signal.SIGTERM)
        assert process.wait(GENEROUS_S) == 0
    finally:
        process.kill()
        process.communicate()
    refused = pydamon("metrics", "serve", "127.0.0.1:0", "nobody")
    assert refused.returncode == 2
    assert "there is no kdamond of that name" in only_line(refused)


def read(where: str) -> str:
    with urllib.request.urlopen(where, timeout=GENEROUS_S) as answer:
        return str(answer.read().decode())
