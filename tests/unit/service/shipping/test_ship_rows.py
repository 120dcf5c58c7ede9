"""Rows of the data set from what monitors tell: who counts for what, and what has grown since the minute before."""

import mmap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.unit.service.shipping.ship_views import container, scheme, seen, target, used, view

from pydamon.dataset import files
from pydamon.service.shipping.cgroups import Cgroups, Facts
from pydamon.service.shipping.groups import REST, shares
from pydamon.service.shipping.labels import label
from pydamon.service.shipping.rows import Rows, Seen


def told(rows: Rows, now_s: float, *monitors: Seen, **more: Any) -> dict[str, dict[str, Any]]:
    """The rows of a minute, by cgroup; nulls left out. All can be true."""
    columns = rows.columns(monitors, now_s, **more)
    assert columns is not None
    count = len(columns["cgroup"])
    assert files.validate(pa.table({"host": ["h"] * count, "minute": [0] * count, **columns})).left_out == {}
    each = [{name: values[at] for name, values in columns.items()} for at in range(count)]
    return {row["cgroup"]: {name: value for name, value in row.items() if value is not None} for row in each}


def no_facts(path: str) -> Facts:
    return Facts()


@pytest.fixture
def rows() -> Rows:
    return Rows(facts_of=no_facts)


def test_cold_is_what_was_not_used_and_falls_with_the_time(rows: Rows) -> None:
    sizes = [10, 20, 30, 40, 50, 60, 70, 80, 80]  # of 1, 2, 5, 10, 20, 30, 60, 120, 300 s
    row = told(rows, 0, seen("m", view(300, target(1, resident=100, used=used(*sizes)))))["program"]
    cold = {name: value for name, value in row.items() if name.startswith("cold")}
    assert cold == {"cold_10s": 60, "cold_30s": 40, "cold_60s": 30, "cold_120s": 20, "cold_300s": 20}
    assert [row[f"used_60s{bound}"] for bound in ("_low", "", "_high")] == [68, 70, 72]
    assert (row["resident"], row["seconds"]) == (100, 60)
    assert "used_600s" not in row


def test_processes_of_a_cgroup_are_added_up_with_their_errors(rows: Rows) -> None:
    """Two errors of 3 and 4 are one of 5; of the process that is younger than a minute all counts as used."""
    sizes = [1, 2, 5, 10, 20, 30, 60]
    row = told(rows, 0, seen("m", view(
        60,
        target(1, cgroup="/x", resident=100, used=used(*sizes, error=3)),
        target(2, cgroup="/x", resident=100, used=used(*sizes, error=4)),
        target(3, cgroup="/x", resident=7, used=used(*sizes[:4], error=0)),
    )))["/x"]  # fmt: skip
    assert row["resident"] == 207
    assert [row[f"used_60s{bound}"] for bound in ("_low", "", "_high")] == [122, 127, 132]
    assert row["cold_60s"] == 80
    assert row["cold_10s"] == 207 - 30


def test_what_a_container_shares_counts_once(rows: Rows) -> None:
    inside: dict[str, Any] = {
        "cgroup": "/pod/c",
        "container_id": "c" * 64,
        "namespace": "ns",
        "pod": "p",
        "container": "app",
    }
    row = told(rows, 0, seen("m", view(
        60,
        target(1, resident=100, **inside), target(2, resident=100, **inside),
        containers=[container([1, 2], resident_bytes=120, used=used(*[50] * 7))],
    )))["/pod/c"]  # fmt: skip
    assert (row["resident"], row["cold_60s"], row["pod"], row["service"]) == (120, 70, "ns/p", "app")


def test_a_process_that_two_monitors_watch_counts_once_by_the_one_with_a_panel(rows: Rows) -> None:
    one = seen("a", view(60, target(1, pid=7, cgroup="/x", resident=100, by="regions", used=used(5, error=None))))
    other = seen("b", view(60, target(4, pid=7, cgroup="/x", resident=90)), pid=2)
    assert told(rows, 0, one, other)["/x"]["resident"] == 90


def test_names_are_the_cgroup_the_command_or_the_monitor(rows: Rows) -> None:
    unit = target(1, cgroup="/system.slice/web.service")
    found = told(rows, 0, seen("m", view(60, unit, target(2))), seen("sim", view(60, target(1, pid=0)), pid=2))
    assert set(found) == {"/system.slice/web.service", "program"}
    assert found["/system.slice/web.service"]["service"] == "web"
    nobody = seen("physical", view(120, target(1, command=None)), pid=3)
    nobody.view.targets[0].pid = None
    assert list(told(rows, 60, nobody)) == ["physical"]


def test_hostile_names_are_harmless_and_stay_different(rows: Rows) -> None:
    names = ["/a\x1b[2J", "/a\u202eb", "/" + "x" * 5000 + "1", "/" + "x" * 5000 + "2", "/bytes\udcff", "/\n"]
    found = told(rows, 0, seen("m", view(60, *(target(at, cgroup=name) for at, name in enumerate(names)))))
    assert len(found) == len(names)
    assert all(name.isprintable() and len(name) <= 1024 for name in found)


def test_of_very_many_cgroups_the_largest_are_told_and_the_rest_is_one_row() -> None:
    rows = Rows(most=100, facts_of=no_facts)
    many = [target(at, cgroup=f"/{at}", resident=at + 1, used=used(1)) for at in range(20_000)]
    found = told(rows, 0, seen("m", view(60, *many)))
    assert len(found) == 100
    assert rows.put_together == 19_901
    assert found["/19999"]["resident"] == 20_000
    assert sum(row["resident"] for row in found.values()) == 20_000 * 20_001 // 2
    assert found[REST]["resident"] == 19_901 * 19_902 // 2


# -- what has grown ---------------------------------------------------------------------------------------------------


def test_what_schemes_did_and_monitoring_cost_is_shared_out_and_adds_up(rows: Rows) -> None:
    def monitor(time_s: float, scale: int) -> Seen:
        schemes = [scheme("pageout", 7 * scale), scheme("migrate_hot", 5 * scale, 1), scheme("stat", 9 * scale, 2)]
        targets = target(1, cgroup="/a", resident=200), target(2, cgroup="/b", resident=100)
        return seen("m", view(time_s, *targets, schemes=schemes, cpu_ns=scale * 1_000_001_000), own_bytes=1000)

    first = told(rows, 0, monitor(60, 1))
    assert "reclaimed" not in first["/a"]
    found = told(rows, 60, monitor(120, 2))
    assert (found["/a"]["reclaimed"], found["/b"]["reclaimed"]) == (4, 3)
    assert (found["/a"]["promoted"], found["/b"]["promoted"]) == (3, 2)
    assert found["/a"]["monitor_cpu_us"] + found["/b"]["monitor_cpu_us"] == 1_000_001
    assert found["/a"]["monitor_bytes"] + found["/b"]["monitor_bytes"] == 1000
    assert "demoted" not in found["/a"]
    shared = told(rows, 120, monitor(180, 3), own_cpu_us=9, own_bytes=30)
    assert sum(row["monitor_cpu_us"] for row in shared.values()) == 1_000_010
    assert sum(row["monitor_bytes"] for row in shared.values()) == 1030


def test_a_dry_run_has_reclaimed_nothing(rows: Rows) -> None:
    for at in (1, 2):
        one = seen("m", view(60 * at, target(1), schemes=[scheme("pageout", 7 * at)]), dry_run=True)
        found = told(rows, 60 * at, one)
    assert "reclaimed" not in found["program"]


def test_a_counter_that_began_anew_counts_from_there(rows: Rows) -> None:
    told(rows, 0, seen("m", view(60, target(1), schemes=[scheme("pageout", 100)])))
    found = told(rows, 60, seen("m", view(120, target(1), schemes=[scheme("pageout", 30)])))
    assert found["program"]["reclaimed"] == 30


@pytest.mark.parametrize(("pid", "gap_s"), [(2, 60), (1, 91)])
def test_nothing_is_told_of_growth_over_a_new_process_or_a_long_gap(rows: Rows, pid: int, gap_s: int) -> None:
    told(rows, 0, seen("m", view(60, target(1), schemes=[scheme("pageout", 1)])))
    found = told(rows, gap_s, seen("m", view(500, target(1), schemes=[scheme("pageout", 9)]), pid=pid))
    assert "reclaimed" not in found["program"]
    assert "monitor_cpu_us" not in found["program"]


def test_what_came_back_is_of_this_minute_and_of_a_new_target_all(rows: Rows) -> None:
    def returned(*values: int) -> list[int]:  # by the windows of views: 10 s is the 4th
        return [*[values[0]] * 4, *[0] * 13]

    told(rows, 0, seen("m", view(60, target(1, cgroup="/x", returned_bytes=returned(100)))))
    both = target(1, cgroup="/x", returned_bytes=returned(130)), target(2, cgroup="/x", returned_bytes=returned(5))
    row = told(rows, 60, seen("m", view(120, *both)))["/x"]
    assert (row["returned_10s"], row["returned_30s"]) == (35, 0)


def test_a_monitor_of_long_aggregations_is_told_and_one_that_stands_still_not_for_ever(rows: Rows) -> None:
    for minute in range(16):
        found = told(rows, 60 * minute, seen("m", view(60, target(1), schemes=[scheme("pageout", 5)])))
    assert found["program"]["reclaimed"] == 0
    assert rows.columns([seen("m", view(60, target(1)))], 60 * 16) is None
    assert told(rows, 60 * 17, seen("m", view(120, target(1))))
    assert rows.columns([], 60 * 18) is None


def test_seconds_are_those_that_were_watched(rows: Rows) -> None:
    assert told(rows, 0, seen("m", view(12.4, target(1))))["program"]["seconds"] == 12
    assert told(rows, 20, seen("m", view(32.4, target(1))))["program"]["seconds"] == 20
    assert told(rows, 500, seen("m", view(532.4, target(1))))["program"]["seconds"] == 60


def test_facts_of_a_cgroup_are_told_by_how_much_they_have_grown() -> None:
    known = [Facts(10, 5, 100, 50, 4096), Facts(10, 5, 160, 50, 4095)]
    rows = Rows(facts_of=lambda path: known[0])
    first = told(rows, 0, seen("m", view(60, target(1, cgroup="/x"))))["/x"]
    assert (first["limit_bytes"], first["request_bytes"], "psi_some_us" in first) == (10, 5, False)
    known.pop(0)
    row = told(rows, 60, seen("m", view(120, target(1, cgroup="/x"))))["/x"]
    assert (row["psi_some_us"], row["psi_full_us"], row["refaulted"]) == (60, 0, 0)


# -- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [[1], [1, 1, 1], [5, 0, 7], [0, 0], [1 << 50, 1]])
def test_shares_add_up_and_are_in_proportion(weights: list[int]) -> None:
    for amount in (0, 1, 100, 12_345_678_901):
        found = shares(amount, weights)
        assert sum(found) == amount
        if sum(weights):
            exact = [amount * weight / sum(weights) for weight in weights]
            assert all(abs(share - want) < 1 + want * 1e-12 for share, want in zip(found, exact, strict=True))
    assert shares(5, []) == []


def test_labels_that_were_cut_tell_what_they_were_cut_from() -> None:
    assert label("a" * 10, 10) == "a" * 10
    assert label("a" * 11, 10) == "a~" + label("a" * 11, 10)[2:]
    assert len(label("a" * 11, 10)) == 10
    assert label("a" * 11, 10) != label("a" * 12, 10)


def test_files_of_a_cgroup_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name, text in {
        "memory.max": "1048576\n",
        "memory.low": "4096\n",
        "memory.min": "8192\n",
        "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 total=5\n",
        "memory.stat": "anon 5\nworkingset_refault_anon 2\nworkingset_refault_file 3\nworkingset_nodes 9\n",
    }.items():
        (tmp_path / "x" / name).write_text(text)
    found = Cgroups([tmp_path / "none", tmp_path])
    assert found.facts("/x") == Facts(1048576, 8192, 12, 5, 5 * mmap.PAGESIZE)
    (tmp_path / "x" / "memory.max").write_text("max\n")
    (tmp_path / "x" / "memory.stat").unlink()
    assert found.facts("/x") == Facts(None, 8192, 12, 5, None)
    assert found.facts("/../../etc") == Facts()
    assert found.facts("/gone\0") == Facts()
