"""``pydamon service FILE`` as a user meets it: processes come and go, die, are changed by a new file, and end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.helpers.command import PYDAMON, only_line, pydamon
from tests.helpers.waiting import GENEROUS_S, wait_until
from tests.integration.service_helpers import (  # noqa: F401 - fixtures
    AN_HOUR,
    SLEEPER,
    lives,
    runtime_fixture,
    sleeper_fixture,
    wait_for_end,
)

from pydamon.dataset.stores import Directory
from pydamon.errors import PydamonError
from pydamon.records.joined import open_record
from pydamon.service.client import Client, ServiceClient, running

SIM = {"ops": "sim", "workload": AN_HOUR}


class Services:
    """Services of files in a folder of the test's; what still runs in the end is ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []

    def write(self, *monitors: dict[str, Any], name: str = "web", **fields: Any) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({"monitors": list(monitors), **fields}))
        return path

    def start(self, *monitors: dict[str, Any], ready: bool = True, **fields: Any) -> subprocess.Popen[str]:
        path = self.write(*monitors, **fields)
        service = subprocess.Popen([*PYDAMON, "service", str(path)], stderr=subprocess.PIPE, text=True, cwd="/")
        self.running.append(service)
        if ready:
            wait_until(lambda: states() is not None and "starting" not in states().values(), every_s=0.05)
        return service

    def end(self, service: subprocess.Popen[str]) -> str:
        """What it said; it has ended in good order, and nothing runs any more."""
        pids = [monitor["pid"] for monitor in ServiceClient().status()["monitors"] if monitor["pid"]]
        service.send_signal(signal.SIGTERM)
        _, said = service.communicate(timeout=GENEROUS_S)
        assert service.returncode == 0, said
        assert not any(map(lives, pids))
        assert running() == []
        assert "Traceback" not in said
        return said


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    one = Services(tmp_path)
    yield one
    for service in one.running:
        service.terminate()
        service.communicate(timeout=GENEROUS_S)


def told() -> dict[str, dict[str, Any]]:
    return {monitor["name"]: monitor for monitor in ServiceClient().status()["monitors"]}


def states() -> dict[str, str]:
    with contextlib.suppress(PydamonError):
        return {name: monitor["state"] for name, monitor in told().items()}
    return {"": "starting"}


def sim(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, **SIM, **fields}


def test_it_runs_each_monitor_in_a_process_of_its_own_and_ends_them_all(services: Services, tmp_path: Path) -> None:
    stairs = sim("a", workload="stairs")
    service = services.start(stairs, sim("b"), record={"directory": "records", "rotate": "1s", "keep": {"files": 3}})
    assert states() == {"a": "running", "b": "running"}
    assert running() == ["a", "b"]
    assert len({service.pid, *(monitor["pid"] for monitor in told().values())}) == 3
    shown = pydamon("service", "status").stdout.splitlines()
    assert shown[0] == f"service web (pid {service.pid}): running, {tmp_path}/web.yaml"
    assert [line.split()[:2] for line in shown[2:]] == [["a", "running"], ["b", "running"]]
    wait_until(lambda: len(list((tmp_path / "records/a").glob("*.damon"))) > 1)
    said = services.end(service)
    assert "a: simulating the workload stairs in real time" in said.splitlines()
    with open_record(str(tmp_path / "records/a/*.damon")) as reader:
        assert sum(1 for _ in reader.snapshots()) > 5


def test_processes_that_match_are_taken_up_as_they_come(services: Services, tmp_path: Path) -> None:
    service = services.start({"name": "named", "match": {"name": "pd-svc*"}, "primitive": "smaps", "update": "100ms"})
    assert states() == {"named": "running"}  # though nothing matches yet
    (tmp_path / "pd-svc-1").symlink_to(sys.executable)
    with subprocess.Popen([str(tmp_path / "pd-svc-1"), *SLEEPER[1:]], stdout=-1) as child:
        wait_until(lambda: [row["pid"] for row in Client("named").status()["targets"]] == [child.pid], every_s=0.1)
        child.kill()
        child.wait()
        wait_until(lambda: Client("named").status()["targets"] == [], every_s=0.1)
    assert states() == {"named": "running"}
    services.end(service)


def test_what_dies_is_started_anew_and_what_ends_with_its_target_is_not(services: Services) -> None:
    with subprocess.Popen(SLEEPER, stdout=-1) as child:
        one = {"name": "one", "match": {"pid": child.pid}, "primitive": "smaps"}
        service = services.start(sim("a"), one)
        before = told()["a"]["pid"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: told()["a"]["pid"] not in (None, before) and states()["a"] == "running", every_s=0.1)
        assert told()["a"]["restarts"] == 1
        child.kill()
    wait_until(lambda: states()["one"] == "ended", every_s=0.1)
    assert told()["one"]["why"] == "its targets have ended, or it was stopped"
    said = services.end(service)
    assert "pydamon: a: its process was ended by SIGKILL; it is started anew in 1 s" in said.splitlines()


def test_a_process_that_is_not_there_is_said_and_the_others_run(services: Services) -> None:
    service = services.start(sim("a"), {"name": "none", "match": {"pid": 2**22 - 1}})
    wait_until(lambda: states() == {"a": "running", "none": "ended"}, every_s=0.1)
    assert "no process has the id 4194303" in told()["none"]["why"]
    services.end(service)


class TestReload:
    def test_what_has_not_changed_goes_on_what_can_be_tuned_is_the_rest_begins_anew(self, services: Services) -> None:
        service = services.start(sim("same"), sim("tuned"), sim("other"), sim("gone"))
        before = {name: monitor["pid"] for name, monitor in told().items()}
        services.write(sim("same"), sim("tuned", max_regions=77), sim("other", workload="hotspots"), sim("new"))
        done = pydamon("service", "reload", "web", "--json")
        assert json.loads(done.stdout) == {
            "started": ["new"], "stopped": ["gone"], "restarted": ["other"], "tuned": ["tuned"], "problems": [],
        }  # fmt: skip
        wait_until(lambda: states() == dict.fromkeys(("same", "tuned", "other", "new"), "running"), every_s=0.1)
        after = {name: monitor["pid"] for name, monitor in told().items()}
        assert (after["same"], after["tuned"]) == (before["same"], before["tuned"])
        assert after["other"] != before["other"]
        assert Client("tuned").status()["nr_regions"]["max"] == 77
        assert not lives(before["gone"])
        assert pydamon("service", "reload").stdout == "nothing has changed\n"
        services.end(service)

    def test_a_wrong_file_leaves_all_as_it_is_and_says_why(self, services: Services) -> None:
        service = services.start(sim("a"))
        before = told()
        services.write(sim("a", max_regions="many"))
        done = pydamon("service", "reload")
        assert done.returncode == 2
        assert only_line(done) == "pydamon: web.yaml: monitors[0].max_regions: Expected `int`, got `str`"
        service.send_signal(signal.SIGHUP)
        assert service.stderr is not None
        # It has read the file before there is another one.
        refused = next(line for line in iter(service.stderr.readline, "") if "the file is not taken" in line)
        services.write(sim("a"), group="users")
        assert "group: cannot be changed while it runs" in only_line(pydamon("service", "reload"))
        assert told() == before
        services.end(service)
        assert "pydamon: the file is not taken, all goes on as before: web.yaml: monitors[0].max_regions:" in refused

    def test_sighup_does_it_too(self, services: Services) -> None:
        service = services.start(sim("a"))
        services.write(sim("a", max_regions=55))
        service.send_signal(signal.SIGHUP)
        wait_until(lambda: Client("a").status()["nr_regions"]["max"] == 55, every_s=0.1)
        services.end(service)


def test_two_services_on_one_file_are_refused(services: Services, tmp_path: Path) -> None:
    service = services.start(sim("a"))
    second = pydamon("service", str(tmp_path / "web.yaml"))
    assert second.returncode == 2
    assert only_line(second) == (
        "pydamon: name: the service web runs already; pydamon service reload web has it read its file anew"
    )
    services.end(service)


def test_after_kill_9_nothing_is_left_and_the_next_one_runs(services: Services) -> None:
    service = services.start(sim("a"))
    pid = told()["a"]["pid"]
    service.kill()
    service.wait()
    wait_for_end(pid)
    services.end(services.start(sim("a")))


def test_stop_ends_it_and_a_kdamond_that_was_stopped_stays_so(services: Services) -> None:
    service = services.start(sim("a"), sim("b"))
    assert pydamon("stop", "a").returncode == 0
    wait_until(lambda: states() == {"a": "ended", "b": "running"}, every_s=0.1)
    done = pydamon("service", "stop")
    assert (done.returncode, done.stdout) == (0, "service web: ended\n")
    assert service.wait(GENEROUS_S) == 0


def test_garbage_and_crowds_at_its_socket_do_not_disturb_it(services: Services, runtime: Path) -> None:
    service = services.start(sim("a"))
    path = str(runtime / "web.service.sock")
    for garbage in (b"\xff\x00" * 100, b"[" * 100_000 + b"\n", b'{"do": "tune"}\n', b"\n" * 1000):
        with socket.socket(socket.AF_UNIX) as one, contextlib.suppress(OSError):
            one.connect(path)
            one.sendall(garbage)
            one.recv(100)
    for _ in range(500):
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
    wait_until(lambda: states() == {"a": "running"}, every_s=0.1)
    services.end(service)


def test_the_service_manager_hears_how_it_is(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"@pydamon-service-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:])
        manager.settimeout(GENEROUS_S)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        service = services.start(sim("a"))
        monkeypatch.delenv("NOTIFY_SOCKET")
        heard: list[bytes] = []

        def until(wanted: bytes) -> None:
            while not any(one.startswith(wanted) for one in heard):
                heard.append(manager.recv(200))

        for wanted in (b"READY=1", b"STATUS=1 monitors: 1 running", b"WATCHDOG=1"):
            until(wanted)
        heard.clear()
        service.send_signal(signal.SIGHUP)
        until(b"RELOADING=1\nMONOTONIC_USEC=")
        until(b"READY=1")
        service.terminate()
        until(b"STOPPING=1")
        assert service.wait(GENEROUS_S) == 0


def test_its_metrics_are_those_of_its_monitors_that_run(services: Services, tmp_path: Path) -> None:
    service = services.start(sim("a"), sim("b"), metrics="service.prom")
    path = tmp_path / "service.prom"
    wait_until(lambda: path.exists() and all(f'"{name}"' in path.read_text() for name in "ab"), every_s=0.2)
    said = services.end(service)
    assert f"metrics: {path}" in said.splitlines()
    assert not path.exists()


@pytest.mark.slow
def test_what_its_monitors_tell_is_shipped(services: Services, tmp_path: Path) -> None:
    """A minute ends within a minute; what it told is sent when the service ends."""
    ship = {"to": str(tmp_path / "fleet"), "spool": str(tmp_path / "spool"), "host": "h", "class": "small"}
    service = services.start(sim("a"), sim("b"), ship=ship, metrics="service.prom")

    def shipping() -> dict[str, Any]:
        with contextlib.suppress(PydamonError):
            found: dict[str, Any] = ServiceClient().status()["shipping"]
            return found
        return {}

    wait_until(lambda: shipping().get("rows", 0) >= 2, every_s=0.5)
    before = shipping()["pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: shipping().get("pid", before) != before, every_s=0.5)
    path = tmp_path / "service.prom"
    wait_until(lambda: "pydamon_ship_minutes_total" in path.read_text(), every_s=0.2)
    said = services.end(service)
    assert "ship: its process was ended by SIGKILL; it is started anew in" in said
    names = [each.name for each in Directory(ship["to"]).list("minutes")]
    rows = [row for name in names for row in pq.read_table(tmp_path / "fleet" / name).to_pylist()]
    assert {row["cgroup"] for row in rows} == {"a", "b"}
    assert len({(row["minute"], row["cgroup"]) for row in rows}) == len(rows) >= 2
    assert all(row["host_class"] == "small" and row["resident"] > 0 for row in rows)


def test_metrics_that_cannot_be_told_do_not_stop_the_service(services: Services) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        service = services.start(sim("a"), metrics=f"127.0.0.1:{taken.getsockname()[1]}")
        wait_until(lambda: states() == {"a": "running"}, every_s=0.1)
        assert service.stderr is not None
        lines = iter(service.stderr.readline, "")
        assert any(line.startswith("metrics: metrics: cannot listen on 127.0.0.1:") for line in lines)
        assert any("metrics: its process exited with status 1; it is started anew in 1 s" in line for line in lines)
        services.end(service)


def test_a_wrong_file_is_refused_before_anything_runs(services: Services) -> None:
    path = services.write(sim("a", workload=3))
    for words in (["service", str(path)], ["service", "run", str(path)], ["service", "check", str(path)]):
        done = pydamon(*words)
        assert done.returncode == 2
        assert only_line(done) == "pydamon: web.yaml: monitors[0].workload: Expected `str | null`, got `int`"
    assert running() == []


def test_a_disk_that_has_no_room_pauses_the_recording_only(services: Services, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not os.path.exists("/bin/mount"):
        pytest.skip("needs root, to mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        service = services.start(sim("a", sample="1ms", aggr="5ms"), record={"directory": "small", "rotate": "1h"})
        wait_until(lambda: any("recording pauses" in line for line in Client("a").status()["notices"]), every_s=0.1)
        count = Client("a").status()["snapshots"]
        wait_until(lambda: Client("a").status()["snapshots"] > count, every_s=0.1)
        said = services.end(service)
        assert "cannot write to the record: the disk is full" in said
    finally:
        subprocess.run(["umount", str(small)], check=True)
