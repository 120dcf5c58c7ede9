"""Each question on a small fleet: the answer is the known truth, within what its noise allows."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pytest
from tests.unit.fleet import fleet_helpers as helpers

from pydamon.dataset.schema import AGES_S
from pydamon.errors import PydamonError, RequestError
from pydamon.fleet.asking import Data
from pydamon.fleet.questions import choices, differences, memory
from pydamon.fleet.simulated import mixes
from pydamon.fleet.where import Where

_HOSTS, _MINUTES = 24, 120
# Of a mean of all rows of a service: 1 % and 2 % of noise in each (hosts.py), five standard errors.
_ERROR = 5 * math.hypot(0.01, 0.02) / math.sqrt(_HOSTS * _MINUTES)


@pytest.fixture(name="root", scope="module")
def root_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fleet") / "f"
    helpers.fleet_at(root, hosts=_HOSTS, cgroups=5, minutes=_MINUTES, pieces=1, seed=4)
    return root


def test_cold_memory_is_the_truth(root: Path) -> None:
    rows, found = memory.cold(Data(str(root)))
    truth = helpers.truth(root)["services"]
    assert {row.name for row in rows} == {one.name for one in mixes.SERVICES[:5]}
    for row in rows:
        told = truth[row.name]
        assert row.resident == pytest.approx(told["resident_bytes"], rel=_ERROR)
        for age in AGES_S:
            assert row.cold[age] == pytest.approx(told["cold_bytes"][str(age)], rel=_ERROR)
            assert row.known[age] == 1
    assert found.left_out.lines() == []
    assert [row.resident for row in rows] == sorted((row.resident for row in rows), reverse=True)


def test_savings_are_at_the_least_age_that_keeps_the_goal(root: Path) -> None:
    """Worked again from the truth's numbers alone."""
    goal = 0.004
    rows, _ = memory.savings(Data(str(root)), goal=goal)
    for row in rows:
        told = helpers.truth(root)["services"][row.name]
        working = told["resident_bytes"] - told["cold_bytes"]["120"]
        fits = [age for age in AGES_S if told["returned_bytes_per_minute"][str(age)] <= goal * working]
        assert row.age_s == fits[0]
        assert row.saved == pytest.approx(told["cold_bytes"][str(fits[0])], rel=_ERROR)
        assert row.working_set == pytest.approx(working, rel=_ERROR)


def test_no_age_keeps_a_goal_of_next_to_nothing(root: Path) -> None:
    rows, _ = memory.savings(Data(str(root)), Where(service="database"), goal=1e-9)
    assert [(row.age_s, row.saved) for row in rows] == [(None, 0.0)]


def test_working_sets_of_classes(root: Path) -> None:
    rows, _ = memory.working_sets(Data(str(root)), window_s=600)
    read = helpers.reread(root)
    for row in rows:
        mine = read["host_class"] == row.name
        hosts = sorted(set(read["host"][mine]))
        used = [read["used_600s"][read["host"] == host].sum() / _MINUTES for host in hosts]
        assert row.hosts == len(hosts)
        assert min(used) <= row.used[0] <= row.used[2] <= row.used[4] <= max(used)
        assert row.used[2] == pytest.approx(sorted(used)[len(used) // 2], rel=0.2)


def test_candidates_split_what_is_idle_between_reclaim_and_a_tier(root: Path) -> None:
    rows, _ = choices.candidates(Data(str(root)))
    by = {(row.kind, row.name): row.size for row in rows}
    for name, told in helpers.truth(root)["services"].items():
        if told["resident_bytes"]:
            both = by.get(("reclaim", name), 0.0) + by.get(("tier", name), 0.0)
            assert both == pytest.approx(told["cold_bytes"]["120"], rel=_ERROR)
            hot = told["resident_bytes"] - told["cold_bytes"]["60"]
            assert by["thp", name] == pytest.approx(hot, rel=_ERROR)


def test_right_sizes_are_of_what_is_used_within_an_hour(root: Path) -> None:
    rows, _ = choices.right_sizes(Data(str(root)))
    read = helpers.reread(root)
    for row in rows:
        mine = read["service"] == row.name
        assert row.instances == _HOSTS
        assert row.hour_most == read["used_3600s_high"][mine].max()
        assert row.request == read["request_bytes"][mine].max()
        assert row.suggested == pytest.approx(1.1 * row.hour_p95)
        assert row.hour_p95 <= row.hour_most


def test_what_right_sizes_free_is_of_what_each_instance_asks_for(tmp_path: Path) -> None:
    """One asks for 10 GiB, one for 2, one for nothing; all use 1 GiB: 12 GiB less twice 1.1 GiB."""
    for host, asked in (("host-a", 10 << 30), ("host-b", 2 << 30), ("host-c", None)):
        helpers.ship(tmp_path, helpers.rows(host, request_bytes=asked, used_3600s=1 << 30, resident=1 << 30))
    (row,), _ = choices.right_sizes(Data(str(tmp_path)))
    assert (row.instances, row.request) == (3, 10 << 30)
    assert row.freed == pytest.approx((12 - 2 * 1.1) * (1 << 30))


def test_without_requests_nothing_is_freed(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows(used_3600s=1 << 30))
    (row,), _ = choices.right_sizes(Data(str(tmp_path)))
    assert (row.request, row.freed) == (None, None)


def test_monitoring_costs_what_rows_say(root: Path) -> None:
    rows, _ = choices.cost(Data(str(root)))
    read = helpers.reread(root)
    whole = rows[-1]
    assert (whole.name, whole.hosts) == ("all", _HOSTS)
    assert whole.cpus == pytest.approx(read["monitor_cpu_us"].sum() / 1e6 / (_MINUTES * 60))
    assert whole.memory == pytest.approx(read["monitor_bytes"].sum() / _MINUTES)


def test_a_host_that_hoards_is_found(tmp_path: Path) -> None:
    helpers.fleet_at(tmp_path / "f", hosts=24, cgroups=2, minutes=10, seed=4, pieces=1)
    told = helpers.truth(tmp_path / "f")["outliers"]
    rows, _ = differences.outliers(Data(str(tmp_path / "f")))
    assert told["hosts"]
    assert {(row.host, row.service) for row in rows} == {(host, told["service"]) for host in told["hosts"]}
    assert all(row.z > 5 for row in rows)


def test_the_rollout_changed_what_it_changed_and_nothing_else(root: Path) -> None:
    told = helpers.truth(root)["rollout"]
    rows, rollout, _ = differences.compare(Data(str(root)), told["label"], told["value"])
    assert (rollout.at, rollout.hosts, rollout.control) == (told["at"], 12, 12)
    by = {(row.service, row.outcome): row for row in rows}
    mine = by[told["service"], "resident"]
    assert mine.effect.low < told["bytes_per_host"] < mine.effect.high
    # Noise of 1 % in each of 60 minutes before and after, on 12 hosts and on 12: five standard errors.
    error = 5 * 0.01 * math.sqrt(4 / (60 * 12))
    assert mine.relative.value == pytest.approx(told["share_of_size"], abs=error)
    for (service, outcome), row in by.items():
        if service != told["service"] and outcome == "resident":
            assert abs(row.relative.value) < error


def test_a_rollout_to_all_hosts_is_compared_in_pairs(tmp_path: Path) -> None:
    for host in ("host-a", "host-b", "host-c"):
        kernels = ["1"] * 5 + ["2"] * 5
        sizes = [1 << 30] * 5 + [3 << 30] * 5
        helpers.ship(tmp_path, helpers.rows(host, kernel=kernels, resident=sizes))
    helpers.ship(tmp_path, helpers.rows("host-new", kernel="2"))
    rows, rollout, _ = differences.compare(Data(str(tmp_path)), "kernel", "2", outcomes=("resident",))
    assert (rollout.hosts, rollout.control, rollout.one_sided) == (3, 0, 1)
    assert rows[0].effect == (2 << 30, 2 << 30, 2 << 30)
    assert rows[0].relative.value == pytest.approx(2)


def test_what_is_not_known_after_a_new_start_is_no_effect_of_a_rollout(tmp_path: Path) -> None:
    """A new kernel: for five of the ten minutes with it nobody knows what has been idle for ten."""
    for host in ("host-a", "host-b", "host-c"):
        known = [1 << 28] * 5 + [None] * 5 + [1 << 28] * 5
        helpers.ship(tmp_path, helpers.rows(host, minutes=15, kernel=["1"] * 5 + ["2"] * 10, cold_600s=known))
    rows, rollout, _ = differences.compare(Data(str(tmp_path)), "kernel", "2", outcomes=("cold_600s", "resident"))
    assert (rollout.hosts, rollout.one_sided) == (3, 0)
    assert [(row.outcome, row.before, row.effect.value) for row in rows] == [
        ("cold_600s", 1 << 28, 0),
        ("resident", 1 << 30, 0),
    ]


def test_what_came_behind_a_rollout_is_not_before_it(tmp_path: Path) -> None:
    """From 1 GiB to 2 with the value, and to 8 with the next one."""
    for host in ("host-a", "host-b"):
        sizes = [1 << 30] * 5 + [2 << 30] * 5 + [8 << 30] * 5
        kernels = ["1"] * 5 + ["2"] * 5 + ["3"] * 5
        helpers.ship(tmp_path, helpers.rows(host, minutes=15, kernel=kernels, resident=sizes))
    (row,), _, _ = differences.compare(Data(str(tmp_path)), "kernel", "2", outcomes=("resident",))
    assert (row.before, row.after, row.effect.value) == (1 << 30, 2 << 30, 1 << 30)


def test_an_outcome_that_is_never_known_on_one_side_is_left_out_alone(tmp_path: Path) -> None:
    for host in ("host-a", "host-b"):
        known = [1 << 28] * 5 + [None] * 5
        helpers.ship(tmp_path, helpers.rows(host, kernel=["1"] * 5 + ["2"] * 5, cold_600s=known))
    rows, rollout, _ = differences.compare(Data(str(tmp_path)), "kernel", "2", outcomes=("cold_600s", "resident"))
    assert ([row.outcome for row in rows], rollout.hosts, rollout.one_sided) == (["resident"], 2, 0)
    with pytest.raises(PydamonError, match="outcome: cold_600s: not known before and after"):
        differences.compare(Data(str(tmp_path)), "kernel", "2", outcomes=("cold_600s",))


def test_a_host_that_has_just_begun_is_no_outlier(tmp_path: Path) -> None:
    """It knows what is idle for ten minutes in one of its ten; the others, all alike, always."""
    for at in range(9):
        helpers.ship(tmp_path, helpers.rows(f"host-{at}", cold_600s=(1 << 28) + at))
    helpers.ship(tmp_path, helpers.rows("host-new", cold_600s=[None] * 9 + [1 << 28]))
    assert differences.outliers(Data(str(tmp_path)), outcomes=("cold_600s",))[0] == []


@pytest.mark.parametrize(
    ("label", "value", "words"),
    [
        ("colour", "red", "is no label"),
        ("kernel", "7.0", "no host has kernel 7.0"),
        ("version", None, "no host had another"),
    ],
)
def test_rollouts_that_are_none(root: Path, label: str, value: str | None, words: str) -> None:
    from pydamon import __version__

    with pytest.raises(PydamonError, match=words):
        differences.compare(Data(str(root)), label, value or __version__)


def test_what_is_not_known_yet_is_not_taken_for_nothing(tmp_path: Path) -> None:
    """Known of one of two cgroups alike: both have it."""
    table = helpers.rows(cgroups=2, cold_600s=[1 << 28] * 10 + [None] * 10)
    helpers.ship(tmp_path, table)
    (row,) = memory.cold(Data(str(tmp_path)))[0]
    assert (row.cold[600], row.known[600]) == (2 << 28, 0.5)
    assert (row.cold[86400], row.known[86400]) == (None, 0)


def test_a_host_that_is_there_for_half_of_the_time_counts_half(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows("host-a", minutes=10))
    helpers.ship(tmp_path, helpers.rows("host-a-renamed", minutes=5))
    (row,) = memory.cold(Data(str(tmp_path)))[0]
    assert row.resident == 1.5 * (1 << 30)


def test_parts_of_the_fleet_and_of_the_time(root: Path) -> None:
    read = helpers.reread(root)
    where = Where(service="search", host_class="small", start=helpers.FIRST + 600, end=helpers.FIRST + 1200)
    mine = (read["service"] == "search") & (read["host_class"] == "small")
    mine &= (read["minute"] >= helpers.FIRST + 600) & (read["minute"] < helpers.FIRST + 1200)
    assert helpers.sums(root, "rows", where) == int(mine.sum())
    assert helpers.sums(root, "resident_bs", where) == int(read["resident"][mine].sum()) * 60
    with pytest.raises(RequestError, match="has no rows of that time"):
        helpers.sums(root, "rows", Where(end=helpers.FIRST - 86400 * 2))


def test_sums_beyond_64_bits_are_exact(tmp_path: Path) -> None:
    helpers.ship(tmp_path, helpers.rows(minutes=1000, resident=1 << 50, first=helpers.FIRST - 10 * 3600))
    assert helpers.sums(tmp_path, "resident_bs") == (1 << 50) * 60 * 1000 > 1 << 65
    assert isinstance(helpers.asked(tmp_path).table, pa.Table)
