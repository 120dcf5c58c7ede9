"""The dashboard and the rules: as Grafana and Prometheus take them, and of metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pydamon.cli import main
from pydamon.views import board as made
from pydamon.views.metrics import ROWS

RULES = Path(made.__file__).with_name("rules.yaml")
NAMES = {row.metric for row in ROWS}
OTHERS = {"pydamon_vpa_memory_bytes", "pydamon_idle_1h_bytes"}  # that the rules record
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)

# What was scraped, and what the rules make of it.
CASES = """
rule_files: [RULES]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'pydamon_container_needed_bytes{namespace="shop", pod="web-0", container="nginx", kdamond="a"}'
        values: '100+100x59 0x20'
      - series: 'pydamon_container_needed_bytes{container="redis", kdamond="a"}'
        values: '5x80'
      - series: 'pydamon_resident_bytes{kdamond="a", target="0", cgroup="/x"}'
        values: '4294967296x200'
      - series: 'pydamon_idle_memory_seconds_bucket{kdamond="a", target="0", cgroup="/x", le="3600.0"}'
        values: '_x59 1073741824x141'
      - series: 'pydamon_scheme_nr_tried_total{kdamond="a", scheme="0", action="pageout"}'
        values: '0+10x200'
      - series: 'pydamon_scheme_nr_applied_total{kdamond="a", scheme="0", action="pageout"}'
        values: '0x200'
      - series: 'pydamon_last_snapshot_timestamp_seconds{kdamond="a", instance="host:9750"}'
        values: '0+60x59 3540x140'
    promql_expr_test:
      - expr: pydamon_vpa_memory_bytes
        eval_time: 70m
        exp_samples:
          - labels: >-
              pydamon_vpa_memory_bytes{job="kubernetes-cadvisor", namespace="shop", pod="web-0", container="nginx"}
            value: 6000
      - expr: pydamon_idle_1h_bytes
        eval_time: 50m
        exp_samples: []
      - expr: pydamon_idle_1h_bytes
        eval_time: 61m
        exp_samples:
          - labels: pydamon_idle_1h_bytes{kdamond="a", target="0", cgroup="/x"}
            value: 3221225472
    alert_rule_test:
      - {eval_time: 61m, alertname: PydamonHasStopped, exp_alerts: []}
      - eval_time: 65m
        alertname: PydamonHasStopped
        exp_alerts:
          - exp_labels: {severity: warning, kdamond: a, instance: 'host:9750'}
            exp_annotations:
              summary: 'kdamond a on host:9750 has found nothing for a minute: it hangs, or watermarks let it rest'
      - {eval_time: 110m, alertname: MemoryIsIdle, exp_alerts: []}
      - eval_time: 130m
        alertname: MemoryIsIdle
        exp_alerts:
          - exp_labels: {severity: info, kdamond: a, target: '0', cgroup: /x}
            exp_annotations: {summary: 3GiB of target 0 have been idle for an hour}
      - eval_time: 60m
        alertname: SchemeDoesNothing
        exp_alerts:
          - exp_labels: {severity: warning, kdamond: a, scheme: '0', action: pageout}
            exp_annotations: {summary: 'pageout of kdamond a is tried, and applied to nothing'}
"""


def expressions(value: Any) -> Iterator[str]:
    """All queries in it."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key in ("expr", "query") and isinstance(each, str):
                yield each
            yield from expressions(each)
    elif isinstance(value, list):
        for each in value:
            yield from expressions(each)


def metrics_in(text: str) -> set[str]:
    return set(re.findall(r"\bpydamon_\w+", text))


def test_queries_are_of_metrics_that_there_are() -> None:
    asked = list(expressions(made.board()))
    assert len(asked) > 12
    assert set().union(*map(metrics_in, asked)) <= NAMES
    ruled = set().union(*map(metrics_in, expressions(yaml.safe_load(RULES.read_text()))))
    assert ruled <= NAMES | OTHERS
    assert len(ruled) > 8


def test_panels_lie_beside_each_other_without_gaps() -> None:
    panels = made.board()["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    covered: dict[tuple[int, int], int] = {}
    for panel in panels:
        place = panel["gridPos"]
        for y in range(place["y"], place["y"] + place["h"]):
            for x in range(place["x"], place["x"] + place["w"]):
                assert covered.setdefault((x, y), panel["id"]) == panel["id"]
    assert {x for x, _ in covered} == set(range(24))
    assert len(covered) == 24 * (1 + max(y for _, y in covered))
    assert all(panel["description"].endswith(".") for panel in panels)


def test_its_model_is_grafanas() -> None:
    """Whatever the SDK's types do not know would be lost on the way through them."""
    dashboard = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="no grafana-foundation-sdk")
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    plugins.register_default_plugins()
    mine = made.board()
    typed = dashboard.Dashboard.from_json(json.loads(json.dumps(mine)))
    again = json.loads(encoder.JSONEncoder(sort_keys=True).encode(typed))
    lost = list(missing(mine, again, "board"))
    assert lost == []


def missing(mine: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(mine, dict):
        for key, value in mine.items():
            if not isinstance(theirs, dict) or key not in theirs:
                yield f"{path}.{key}"
            else:
                yield from missing(value, theirs[key], f"{path}.{key}")
    elif isinstance(mine, list):
        if not isinstance(theirs, list) or len(mine) != len(theirs):
            yield path
        else:
            for at, (one, other) in enumerate(zip(mine, theirs, strict=True)):
                yield from missing(one, other, f"{path}[{at}]")
    elif mine != theirs:
        yield f"{path}: {mine!r} is {theirs!r}"


@needs_promtool
@pytest.mark.usefixtures("processes")
def test_rules_say_what_they_are_to_say(tmp_path: Path) -> None:
    checked = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stderr
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASES.replace("RULES", str(RULES)))
    done = subprocess.run(["promtool", "test", "rules", str(cases)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "board"]) == 0
    assert json.loads(capsys.readouterr().out) == made.board()
    assert main(["metrics", "rules"]) == 0
    assert capsys.readouterr().out == RULES.read_text()
    assert main(["metrics"]) == 0
    assert metrics_in(capsys.readouterr().out) >= NAMES
    assert main(["metrics", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["metrics"]
    assert {one["name"] for one in told} == NAMES
    assert all(one["labels"][0] == "kdamond" for one in told)
