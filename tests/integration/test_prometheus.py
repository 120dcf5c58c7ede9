"""A kdamond's metrics as Debian's Prometheus scrapes them, and as node_exporter's collector finds them in a file."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.helpers.command import only_line, pydamon
from tests.helpers.waiting import GENEROUS_S, wait_until
from tests.integration.service_helpers import (  # noqa: F401 - fixtures
    SIM,
    SMAPS,
    runtime_fixture,
    sleeper_fixture,
)
from tests.unit.views.test_store import filled

from pydamon.linux.containers import Container
from pydamon.service.client import Client, running
from pydamon.service.metrics import publish
from pydamon.views import metrics
from pydamon.views.live import live

RULES = Path(metrics.__file__).with_name("rules.yaml")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"
)


def start(*args: str) -> str:
    """Where a kdamond that was started says its metrics are."""
    done = pydamon("start", *args)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kdamond ")
    return only_line(done).removeprefix("pydamon: metrics: ")


def address(where: str) -> str:
    return where.removeprefix("http://").removesuffix("/metrics")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(name="prometheus")
def prometheus_fixture(tmp_path: Path, sleeper: int) -> Iterator[str]:
    """Prometheus, which scrapes two kdamonds each second; yields its address."""
    web = start(*SMAPS, "--name", "web", "--metrics", "127.0.0.1:0", str(sleeper))
    sim = start(*SIM, "--name", "sim", "--metrics", "0", "--seed", "3")
    with scraping(tmp_path, address(web), address(sim)) as at:
        yield at


@contextmanager
def scraping(tmp_path: Path, *targets: str) -> Iterator[str]:
    """Prometheus, which scrapes these each second, with our rules; its address."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "pydamon", "honor_labels": True, "static_configs": [{"targets": list(targets)}]}
        ],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))
    at = f"127.0.0.1:{free_port()}"
    options = ["--config.file=prometheus.yml", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={at}"]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(["prometheus", *options], cwd=tmp_path, stdout=log, stderr=log)
    try:
        wait_until(lambda: answers(at))
        yield at
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(GENEROUS_S)


def answers(at: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://{at}/-/ready", timeout=10) as answer:
        return bool(answer.status == 200)
    return False


def ask(at: str, query: str, **between: int) -> list[dict[str, Any]]:
    """What a query gives: now, or in steps ``between`` two times."""
    words = urllib.parse.urlencode({"query": query, **between})
    how = "query_range" if between else "query"
    with urllib.request.urlopen(f"http://{at}/api/v1/{how}?{words}", timeout=GENEROUS_S) as answer:
        told = json.load(answer)
    assert told["status"] == "success"
    return list(told["data"]["result"])


@needs_prometheus
def test_it_is_scraped_asked_and_judged_by_rules(prometheus: str, sleeper: int) -> None:
    # Each is waited for: of a second in which a kdamond was too slow to answer there is nothing.
    of_both = {"web", "sim"}
    wait_until(lambda: {one["metric"]["kdamond"] for one in ask(prometheus, "pydamon_resident_bytes")} == of_both)
    wait_until(lambda: [one["value"][1] for one in ask(prometheus, 'up{job="pydamon"}')] == ["1", "1"])
    of_sleeper = f'pydamon_target_info{{pid="{sleeper}"}}'
    wait_until(lambda: ["time.sleep(600)" in one["metric"]["command"] for one in ask(prometheus, of_sleeper)] == [True])
    join = "pydamon_resident_bytes * on (kdamond, target) group_left (command) pydamon_target_info"
    wait_until(lambda: len(ask(prometheus, join)) == 2)
    # As a histogram: half of the simulated memory has been idle for less than that.
    wait_until(lambda: len(ask(prometheus, 'pydamon_idle_memory_seconds_bucket{kdamond="sim"}')) > 2)
    median = "histogram_quantile(0.5, sum by (le) (pydamon_idle_memory_seconds_bucket{kdamond='sim'}))"
    wait_until(lambda: [float(half["value"][1]) >= 0 for half in ask(prometheus, median)] == [True])
    (metadata,) = _metadata(prometheus, "pydamon_idle_memory_seconds")
    assert metadata["type"] == "gaugehistogram"
    with urllib.request.urlopen(f"http://{prometheus}/api/v1/rules", timeout=GENEROUS_S) as answer:
        rules = json.load(answer)["data"]["groups"][0]["rules"]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    wait_until(lambda: {one["lastError"] for one in _targets(prometheus)} == {""})


@needs_prometheus
def test_the_queries_of_the_vertical_pod_autoscaler(tmp_path: Path) -> None:
    """Of its recommender's history, with the options that docs/metrics.md names, and of an external metric.

    ``vertical-pod-autoscaler/pkg/recommender/input/history/history_provider.go``: it wants the three labels of every
    series that it gets, bytes, and asks for 8 days, or in steps of an hour.
    """
    store = filled(12, 0, 1, 2)
    moment = store.latest()
    assert moment is not None
    shop = {"namespace": "shop", "pod": "web-0", "container": "nginx"}
    moment.targets[0].place = moment.targets[1].place = Container(id="ab" * 32, pod_uid="u" * 36, **shop)
    moment.targets[2].place = Container(id="cd" * 32, container="redis")  # docker's: in no pod
    view = live(moment)
    needed = next(one.needed_bytes for one in view.containers if one.pod == "web-0")
    with publish("127.0.0.1:0", lambda: [("node", view)]) as where, scraping(tmp_path, address(where)) as at:
        picked = 'job="kubernetes-cadvisor", pod=~".+", container!="POD", container!="", namespace="shop"'
        history = f"pydamon_vpa_memory_bytes{{{picked}}}"
        wait_until(lambda: len(ask(at, history)) == 1)
        (series,) = ask(at, f"{history}[8d]")
        assert {key: series["metric"][key] for key in shop} == shop
        assert {float(value) for _, value in series["values"]} == {float(needed)}
        now = int(time.time()) + 1  # in whole seconds: not before the first sample
        (series,) = ask(at, history, start=now - 3600 * 3, end=now, step=3600)
        assert {key: series["metric"][key] for key in shop} == shop
        assert float(series["values"][-1][1]) == needed
        # As an external metric: the adapter asks for a series by the labels of the pod, in its namespace.
        external = 'sum(pydamon_container_needed_bytes{namespace="shop", pod="web-0"}) by (container)'
        (value,) = ask(at, external)
        assert (value["metric"], float(value["value"][1])) == ({"container": "nginx"}, float(needed))


def _metadata(at: str, metric: str) -> list[dict[str, str]]:
    with urllib.request.urlopen(f"http://{at}/api/v1/metadata?metric={metric}", timeout=GENEROUS_S) as answer:
        return list(json.load(answer)["data"][metric])


def _targets(at: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://{at}/api/v1/targets", timeout=GENEROUS_S) as answer:
        return list(json.load(answer)["data"]["activeTargets"])


def test_a_file_for_node_exporter(tmp_path: Path, sleeper: int) -> None:
    path = tmp_path / "pydamon.prom"
    assert start(*SMAPS, "--metrics", str(path), str(sleeper)) == str(path)
    assert path.exists()
    wait_until(lambda: "pydamon_resident_bytes" in path.read_text())
    families = {family.name for family in text_string_to_metric_families(path.read_text())}
    assert {"pydamon_resident_bytes", "pydamon_kdamond_info"} <= families
    if shutil.which("promtool") is not None:
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=path.read_bytes(), capture_output=True, timeout=GENEROUS_S
        )
        assert (done.returncode, done.stdout) == (0, b"")
    Client().stop()
    assert not path.exists()


def test_wrong_places_are_refused_before_anything_runs(tmp_path: Path, sleeper: int) -> None:
    refused = pydamon("start", *SMAPS, "--metrics", "everywhere", str(sleeper))
    assert refused.returncode == 2
    assert "neither ADDR:PORT" in only_line(refused)
    nowhere = pydamon("start", *SMAPS, "--metrics", str(tmp_path / "none" / "x.prom"), str(sleeper))
    assert nowhere.returncode == 2
    assert "there is no directory" in only_line(nowhere)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = pydamon("start", *SMAPS, "--metrics", str(port), str(sleeper))
    assert busy.returncode == 3
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in only_line(busy)
    assert running() == []
