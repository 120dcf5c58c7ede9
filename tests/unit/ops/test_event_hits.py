"""Probes of perf events: which regions an event was sampled in, by target, once, while targets come and go."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pytest
from tests.unit.linux.test_perf_event import lost, sample

from pydamon.errors import MachineError, RequestError
from pydamon.linux.perf_event import Event, Samples, parse
from pydamon.ops.event_hits import EventHits
from pydamon.ops.heard import Heard, in_regions
from pydamon.spec.probes import Probe, parse_probe

START = np.array([0x1000, 0x8000], np.uint64)
END = np.array([0x3000, 0x9000], np.uint64)
FAULTS, ANON = parse_probe("perf_event=page-faults"), parse_probe("anon")
PIDS = {0: 70, 1: 71}


class Fake:
    """An event whose rings hold what is put into ``ring``."""

    opened: list[Fake] = []  # noqa: RUF012
    refuse = False

    def __init__(self, event: Event, pids: Sequence[int]) -> None:
        if self.refuse:
            raise MachineError("not today", where="perf_event_open")
        self.event, self.pids, self.ring, self.closed = event, list(pids), b"", False
        self.full = os.eventfd(0)
        Fake.opened.append(self)

    def fileno(self) -> int:
        return self.full

    def wake(self) -> None:
        """Nothing: the descriptor is never readable."""

    def add(self, pid: int) -> None:
        if self.refuse:
            raise MachineError("no room", where="perf_event_open")
        self.pids.append(pid)

    def read(self) -> Samples:
        data, self.ring = self.ring, b""
        return parse(data)

    def close(self) -> None:
        self.closed = True
        os.close(self.full)


@pytest.fixture(name="events")
def events_fixture(monkeypatch: pytest.MonkeyPatch) -> EventHits:
    monkeypatch.setattr(Fake, "opened", [])
    return EventHits(lambda: PIDS, open_sampling=Fake)  # type: ignore[arg-type]


def hits(events: EventHits, target: int, probes: Sequence[Probe]) -> list[list[bool]]:
    found = np.zeros((len(probes), 2), np.bool_)
    events.put(found, target, START, END, probes)
    result: list[list[bool]] = found.tolist()
    return result


def test_each_target_is_told_what_was_sampled_in_its_regions_and_once(events: EventHits) -> None:
    probes = [ANON, FAULTS]
    events.follow(probes)
    (fake,) = Fake.opened
    assert fake.event.name == "page-faults"
    fake.ring = (
        sample(1, 0x2FFF, pid=70)
        + sample(2, 0x1000, pid=70)
        + sample(3, 0x3000, pid=70)  # in no region
        + sample(4, 0x8FFF, pid=71)
        + sample(5, 0x1000, pid=99)  # nobody's
        + sample(6, 0xFFFF_8000_0000_1000, pid=71)  # the kernel's
        + lost(3)
    )
    assert hits(events, 0, probes) == [[False, False], [True, False]]
    assert hits(events, 1, probes) == [[False, False], [False, True]]
    assert hits(events, 0, probes) == hits(events, 1, probes) == [[False, False], [False, False]]
    assert events.lost == 3
    assert events.remarks() == ["3 samples of probes' events were lost"]


def test_what_was_read_in_the_middle_of_an_interval_counts_at_its_end(events: EventHits) -> None:
    events.follow([FAULTS])
    (fake,) = Fake.opened
    fake.ring = sample(1, 0x1000, pid=71)
    events.wake()
    assert fake.ring == b""
    assert hits(events, 0, [FAULTS]) == [[False, False]]
    assert hits(events, 1, [FAULTS]) == [[True, False]]


def test_probes_change_and_one_event_serves_two_of_them(events: EventHits) -> None:
    first, other = [FAULTS, ANON, FAULTS], [ANON]
    events.follow(first)
    (fake,) = Fake.opened
    fake.ring = sample(1, 0x8000, pid=70)
    assert hits(events, 0, first) == [[False, True], [False, False], [False, True]]
    events.follow(other)
    assert fake.closed
    assert hits(events, 0, other) == [[False, False]]
    events.follow([FAULTS])
    assert [each.closed for each in Fake.opened] == [True, False]
    events.close()
    assert Fake.opened[1].closed
    assert events.fileno() == -1


def test_targets_come_and_go(events: EventHits) -> None:
    events.follow([FAULTS])
    (fake,) = Fake.opened
    events.join(2, 72)
    assert fake.pids == [70, 71, 72]
    fake.ring = sample(1, 0x1000, pid=72) + sample(1, 0x1000, pid=71)
    events.collect()
    events.forget(1)
    assert hits(events, 1, [FAULTS]) == [[False, False]]
    assert hits(events, 2, [FAULTS]) == [[True, False]]


def test_refusals_are_said_before_it_begins_and_do_not_end_it_later(
    events: EventHits, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.follow([FAULTS])
    events.check([FAULTS])
    monkeypatch.setattr(Fake, "refuse", True)
    events.check([ANON, FAULTS])  # it is counted already
    other = parse_probe("perf_event=nothing/config=1/")
    with pytest.raises(MachineError, match=r"^\[1\].filters\[0\].perf_event"):
        events.check([ANON, other])
    with pytest.raises(RequestError, match="'bla' is none; it is page-faults"):
        events.check([parse_probe("perf_event=bla")])
    events.follow([other])
    events.join(3, 73)
    assert hits(events, 0, [other]) == [[False, False]]
    assert events.remarks() == [
        "probes' events could not be counted: nothing: there is no nothing on this machine",
    ]


def test_pages_are_all_that_is_kept_of_very_many_reports() -> None:
    """By the second, literal way: a set of pages."""
    rng = np.random.default_rng(3)
    heard, pages, count = Heard(most=100), set(), 0
    for _ in range(30):
        addresses = rng.integers(0, 64 * 4096, 50).astype(np.uint64)
        heard.add(7, addresses)
        pages |= {int(address) >> 12 for address in addresses}
        count += 50
    found, reports = heard.take(7)
    assert len(found) <= 2 * 64 + 50  # twice the pages, and what came last
    assert ({int(address) >> 12 for address in found}, reports) == (pages, count)
    assert heard.take(7)[1] == 0


def test_addresses_are_placed_as_a_look_at_each_region_would() -> None:
    addresses = np.arange(0, 0xA000, 0x800, dtype=np.uint64)
    place, inside = in_regions(addresses, START, END)
    literal = [(n, int(a)) for a in addresses for n in range(2) if int(START[n]) <= int(a) < int(END[n])]
    assert list(zip(place.tolist(), inside.tolist(), strict=True)) == literal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("perf_event", "'perf_event' is not perf_event=EVENT"),
        ("!perf_event=page-faults", "is not perf_event=EVENT"),
        ("perf_event=", "is not perf_event=EVENT"),
    ],
)
def test_a_text_that_is_no_probe_of_an_event(text: str, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        parse_probe(text)
