"""Moments on their way to another process: as they were, and nothing that cannot be is believed."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.unit.views.test_packed_history import ORIGIN, busy, plain, random_moment

from pydamon.errors import PydamonError
from pydamon.plain import json_bytes
from pydamon.views.moments import Moment
from pydamon.views.passing import passed, received
from pydamon.views.store import Store


def over_the_wire(moment: Moment) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(json_bytes([msgspec.to_builtins(passed(moment))]))
    return told


@pytest.mark.parametrize("seed", range(5))
def test_what_arrives_is_what_was_sent(seed: int) -> None:
    moment = random_moment(seed)
    (again,) = received(over_the_wire(moment), ORIGIN)
    assert (again.time_ns, again.schemes, again.cost, again.began_ns) == (seed, moment.schemes, moment.cost, 4)
    for number, before in moment.targets.items():
        after = again.targets[number]
        columns = {name: plain(array) for name, array in before.snapshot.columns.items() if "probe" not in name}
        assert {name: plain(array) for name, array in after.snapshot.columns.items()} == columns
        assert after.snapshot.head == before.snapshot.head
        assert list(map(plain, after.looks)) == list(map(plain, before.looks))
        assert (after.pid, after.footprint) == (before.pid, before.footprint)


def test_mappings_go_along() -> None:
    store = Store()
    store.begin(ORIGIN)
    store.note(busy(5))
    latest = store.latest()
    assert latest is not None
    (again,) = received(over_the_wire(latest), ORIGIN)
    assert list(again.targets[3].mapped.mappings) == list(latest.targets[3].mapped.mappings)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("head",), {}), (("head", "target"), -1), (("head", "x"), 1), (("columns", "start"), [1]),
        (("columns", "start"), [2**64, 1, 2]), (("columns", "end"), [0, 0, 0]), (("columns",), {}),
        (("columns", "age"), [-1, 0, 0]), (("columns", "age"), "abc"), (("columns", "age"), [1.5, 0, 0]),
        (("mappings",), [[1, 2]]), (("looks",), [{"idle": 5}]), (("looks",), 5), (("pid",), "x"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(place: tuple[str, ...], value: Any) -> None:
    told = over_the_wire(random_moment(1))
    at: Any = next(one for one in told[0]["targets"] if one["head"]["target"] == 2)
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    with pytest.raises(PydamonError, match="another version"):
        received(told, ORIGIN)


def test_regions_in_no_order_are_refused() -> None:
    told = over_the_wire(random_moment(1))
    columns = told[0]["targets"][0]["columns"]
    for name in columns:
        columns[name].reverse()
    with pytest.raises(PydamonError, match="no order"):
        received(told, ORIGIN)
