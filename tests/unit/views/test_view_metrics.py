"""Metrics of views: what Prometheus' own parsers and linter make of them; hostile names; bounded numbers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.samples import Sample
from tests.unit.views.test_store import MIB, ORIGIN, SECOND, filled, found, latest, look

from pydamon.linux.containers import Container, parse
from pydamon.run.found import Found
from pydamon.views.fields import fields_of
from pydamon.views.live import WINDOWS_S, Live, live
from pydamon.views.metrics import ROWS, families, safe
from pydamon.views.store import Store

HOSTILE = 'a"b\\c\n# HELP x\x1b[31m}\u202e\udcff{' + "z" * 300
POD = "1f4bfa85-0a0b-4c0d-8e0f-000000000001"


class Told:
    """What encoders ask for."""

    def __init__(self, *views: tuple[str, Live], **options: Any) -> None:
        self.found = families(views, **options)

    def collect(self) -> list[Any]:
        return self.found


def text(*views: tuple[str, Live], accept: str = "", **options: Any) -> str:
    return choose_encoder(accept)[0](Told(*views, **options)).decode()


def samples(told: str) -> dict[str, list[Sample]]:
    named: dict[str, list[Sample]] = {}
    for family in parse_plain(told):
        for sample in family.samples:
            named.setdefault(sample.name, []).append(sample)
    return named


def with_everything() -> Live:
    """Two processes of one container and one of none, a scheme, cost; names that others chose."""
    store = Store()
    store.begin(
        msgspec.structs.replace(ORIGIN, targets=[{"target": n, "pid": 10 + n, "command": "c"} for n in (0, 1, 2)])
    )
    place = parse(f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{'ab' * 32}.scope")
    place = msgspec.structs.replace(place, namespace="shop", pod="web-0", container="nginx")
    scheme = {
        "scheme": 0, "name": HOSTILE, "action": "pageout", "active": True, "nr_tried": 7, "sz_tried": 8192,
        "nr_applied": 1, "sz_applied": 4096, "qt_exceeds": 0, "effective_bytes": 1 << 20,
    }  # fmt: skip
    cost = {
        "cpu_ns": 1_500_000_000, "checks": 9, "check_ns": 2_000_000, "clears": 3, "clear_ns": 10, "disturb_ns": 20,
        "samples": 5, "asked_ns": 10**9, "sampled_ns": 2 * 10**9,
    }  # fmt: skip
    for second in range(1, 21):
        rows = [look(one, second * SECOND, used=256, older=768, unseen_s=second - 1) for one in (0, 1, 2)]
        one = found(second * SECOND, 0, 1, 2, panel=rows, schemes=[scheme], cost=[cost])
        if second == 1:
            footprint = {"target": 0, "virtual_bytes": 1, "resident_bytes": 60 * MIB, "swap_bytes": 4096}
            row = {"target": 2, "pid": 12, "command": HOSTILE}
            tables = dict(one.tables) | {"footprint": [footprint], "targets": [row]}
            places = {0: place, 1: place, 2: Container(cgroup=HOSTILE)}
            one = Found(one.time_ns, one.snapshots, one.mapped, tables, True, places)
        store.note(one)
    return live(latest(store))


@pytest.fixture(name="view", scope="module")
def view_fixture() -> Live:
    return with_everything()


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_their_own_parsers_take_both_formats_and_find_all_of_it(view: Live, accept: str) -> None:
    told = text((HOSTILE, view), accept=accept)
    parsed = list((parse_open if accept else parse_plain)(told))
    assert sum(len(family.samples) for family in parsed) == sum(
        len(family.samples) for family in families([("x", view)])
    )
    assert {family.type for family in parsed} >= {"gauge", "counter"}
    names = {sample.name for family in parsed for sample in family.samples}
    assert names == {row.metric for row in ROWS} - _not_told()
    if accept:
        assert told.endswith("# EOF\n")
        assert "# TYPE pydamon_idle_memory_seconds gaugehistogram\n" in told
        assert "# UNIT pydamon_resident_bytes bytes\n" in told


def _not_told() -> set[str]:
    """Statistics that the scheme does not have here."""
    kept = ("nr_tried", "sz_tried_bytes", "nr_applied", "sz_applied_bytes", "qt_exceeds")
    return {row.metric for row in ROWS if ".stats." in row.path and row.path.rpartition(".")[2] not in kept}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.usefixtures("processes")
def test_their_linter_has_nothing_to_say(view: Live) -> None:
    told = text(("web", view), ("other", view))
    done = subprocess.run(["promtool", "check", "metrics"], input=told, text=True, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_values_are_in_base_units_with_labels_of_where_the_target_runs(view: Live) -> None:
    named = samples(text(("web", view)))
    by_target = {sample.labels["target"]: sample for sample in named["pydamon_resident_bytes"]}
    place = {"namespace": "shop", "pod": "web-0", "container": "nginx"}
    assert by_target["0"].labels == {"kdamond": "web", "target": "0", **place}
    assert by_target["0"].value == 50 * MIB
    (cpu,) = named["pydamon_cpu_seconds_total"]
    assert (cpu.value, cpu.labels) == (1.5, {"kdamond": "web"})
    assert named["pydamon_rss_bytes"][0].value == 60 * MIB
    (last,) = named["pydamon_last_snapshot_timestamp_seconds"]
    assert last.value == 25  # 20 s, and the clock's offset of 5 s
    (applied,) = named["pydamon_scheme_sz_applied_bytes_total"]
    assert applied.value == 4096
    (info,) = (one for one in named["pydamon_target_info"] if one.labels["target"] == "0")
    assert (info.labels["pid"], info.labels["container_id"]) == ("10", "ab" * 32)
    (total,) = named["pydamon_total_resident_bytes"]
    assert total.value == 150 * MIB


def test_idle_memory_is_buckets_as_far_as_they_are_known(view: Live) -> None:
    named = samples(text(("web", view)))
    buckets = {
        s.labels["le"]: s.value for s in named["pydamon_idle_memory_seconds_bucket"] if s.labels["target"] == "0"
    }
    assert list(buckets) == ["1.0", "2.0", "5.0", "10.0", "+Inf"]  # watched for 19 s
    assert buckets["+Inf"] == 50 * MIB
    assert list(buckets.values()) == sorted(buckets.values())
    window = {s.labels["window"]: s.value for s in named["pydamon_working_set_bytes"] if s.labels["target"] == "0"}
    assert window == {"10s": buckets["10.0"]}
    low, high = (named[f"pydamon_working_set_{side}_bytes"][0].value for side in ("low", "high"))
    assert low < window["10s"] < high


def test_a_container_is_what_an_autoscaler_sizes(view: Live) -> None:
    named = samples(text(("web", view)))
    (needed,) = named["pydamon_container_needed_bytes"]
    assert {key: needed.labels[key] for key in ("namespace", "pod", "container")} == {
        "namespace": "shop", "pod": "web-0", "container": "nginx",
    }  # fmt: skip
    # Of two processes 15 MiB anonymous each; 35 MiB of a file idle for 100 s, which is less than 10 min.
    assert needed.value == 100 * MIB
    assert named["pydamon_container_resident_bytes"][0].value == 100 * MIB
    assert {s.labels["window"] for s in named["pydamon_container_working_set_bytes"]} == {"10s"}


def test_names_that_others_chose_are_harmless_and_cut(view: Live) -> None:
    named = samples(text(("web", view)))
    (info,) = (one for one in named["pydamon_target_info"] if one.labels["target"] == "2")
    for value in (info.labels["command"], info.labels["cgroup"], named["pydamon_scheme_active"][0].labels["scheme"]):
        assert value.startswith('a"b\\c\\n# HELP x\\x1b[31m}\\u202e\\xff{zzz')
        assert len(value) == 128
    assert safe(None) == ""


def test_what_is_not_among_the_largest_is_one_sum() -> None:
    view = live(latest(filled(12, *range(30))))
    view.targets[17].resident_bytes = 80 * MIB
    named = samples(text(("web", view), most=4))
    resident = {sample.labels["target"]: sample.value / MIB for sample in named["pydamon_resident_bytes"]}
    assert resident == {"17": 80, "0": 50, "1": 50, "2": 50, "other": 26 * 50}
    for name in ("pydamon_idle_memory_seconds_bucket", "pydamon_memory_bytes", "pydamon_working_set_bytes"):
        assert {sample.labels["target"] for sample in named[name]} == {"17", "0", "1", "2", "other"}
    assert len(named["pydamon_regions"]) == 4
    (buckets,) = ([s.value for s in named["pydamon_idle_memory_seconds_bucket"] if s.labels["target"] == "other"],)
    assert buckets[-1] == 26 * 50 * MIB


def test_containers_are_bounded_as_well(view: Live) -> None:
    (one,) = view.containers
    many = msgspec.structs.replace(view, containers=[msgspec.structs.replace(one, pod=f"p{n}") for n in range(9)])
    named = samples(text(("web", many), most=3))
    assert [s.labels.get("pod") for s in named["pydamon_container_needed_bytes"]] == ["p0", "p1", "p2", None]
    assert named["pydamon_container_needed_bytes"][-1].value == 6 * one.needed_bytes


@pytest.mark.parametrize(
    ("place", "labels"),
    [
        (Container(id="c" * 64, pod_uid=POD), {"pod": POD, "container": "c" * 12}),
        (Container(id="c" * 64, container="redis"), {"container": "redis"}),
        (Container(cgroup="/system.slice/x.service"), {"cgroup": "/system.slice/x.service"}),
    ],
)
def test_ids_serve_where_names_are_not_known(place: Container, labels: dict[str, str]) -> None:
    store = filled(1, 0)
    latest(store).targets[0].place = place
    (sample,) = samples(text(("web", live(latest(store)))))["pydamon_resident_bytes"]
    assert sample.labels == {"kdamond": "web", "target": "0", **labels}


def test_every_metric_has_a_field_a_unit_and_a_help() -> None:
    assert len({row.metric for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert row.words[0].isupper()
        assert row.metric.startswith("pydamon_")
        assert row.kind or row.field.kind in ("counter", "gauge")
        if row.field.unit == "bytes" and not row.kind:
            assert row.family.endswith("_bytes")
    assert generate_latest(Told()) == b""
    assert len(WINDOWS_S) == 17


def metrics_table() -> str:
    """As docs/metrics.md has it."""
    lines = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for row in ROWS:
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.metric}` | {row.kind or row.field.kind} | {labels} | {row.words} |")
    return "\n".join(lines)


def fields_table() -> str:
    """The numbers of the view, as docs/metrics.md has them."""
    fields = [field for field in fields_of(Live).values() if field.kind != "fact"]
    return "\n".join(f"| `{field.path}` | {field.kind} | {field.help} |" for field in fields)


def test_the_document_has_all_metrics_and_fields() -> None:
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    assert metrics_table() in text
    assert fields_table() in text
