"""The history of a store is packed into one block: what comes out is what went in, and memory stays as it is."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.helpers.memory import resident_bytes

from pydamon.core.panel import BOUNDS_S, Look, Once
from pydamon.core.snapshot import Snapshot
from pydamon.linux.containers import Container
from pydamon.linux.process import Mapping
from pydamon.run.found import Found, Origin
from pydamon.views.block import Block
from pydamon.views.moments import Known, Mapped, Moment
from pydamon.views.packing import packed, unpacked
from pydamon.views.store import Store

SECOND = 10**9
ORIGIN = Origin("user", None, "vaddr", "bpf", None, [], 0)
PAGE = np.uint64(4096)
SHORT = 100


def random_snapshot(rng: np.random.Generator, target: int, regions: int, **more: Any) -> Snapshot:
    """Regions with and without gaps, all over the address space."""
    bounds = np.sort(rng.choice(1 << 40, 2 * regions, replace=False)).astype(np.uint64) * PAGE
    start, end = bounds[::2].copy(), bounds[1::2].copy()
    touching = rng.random(max(regions - 1, 0)) < 0.8
    end[:-1][touching] = start[1:][touching]
    counts = rng.integers(0, 1 << 32, (2, regions), dtype=np.uint32)
    return Snapshot(target, 5, 2**62, 5_000, 100_000, start, end, counts[0], counts[1], **more)


def random_look(rng: np.random.Generator, target: int, at_ns: int) -> Look:
    idle, unseen, ended = rng.integers(0, 2**40, (3, len(BOUNDS_S)))
    once = Once(7, 3.5, 2.25, rng.random(len(BOUNDS_S)), rng.random(len(BOUNDS_S)), 0.1) if target % 2 else None
    return Look(at_ns, target, 2**45, idle, unseen, ended, 3, once)


def random_moment(seed: int) -> Moment:
    """Targets of different columns, one without looks and one without regions."""
    rng = np.random.default_rng(seed)
    largest = np.iinfo(np.uint64).max
    optional: dict[int, dict[str, Any]] = {
        1: {"resident": rng.integers(0, 2**50, 40).astype(np.uint64), "unknown": np.zeros(40, np.uint32)},
        2: {"age_ms": np.array([largest, 0, 1], np.uint64)},
        3: {"probe_hits": rng.integers(0, 9, (2, 5)).astype(np.uint32), "probe_samples": np.full(5, 9, np.uint32)},
        6: {"age_ms": np.array([7, largest, 1], np.uint64)},
    }
    sizes = {0: 300, 1: 40, 2: 3, 3: 5, 4: 1, 5: 0, 6: 3}
    targets = {
        number: Known(
            number,
            random_snapshot(rng, number, regions, **optional.get(number, {})),
            Mapped([]),
            pid=number or None,
            command="\udcff\x1b" * number,
            place=Container("/a", "b" * 64) if number else None,
            looks=tuple(random_look(rng, number, at * 10 * SECOND) for at in range(number)),
            first_look_ns=number or None,
            footprint={"resident_bytes": 2**60, "swap_bytes": None} if number else None,
        )
        for number, regions in sizes.items()
    }
    return Moment(seed, ORIGIN, targets, [{"scheme": 0, "name": "x"}], {"cpu_ns": 1}, 4)


def plain(what: Any) -> Any:
    """Values that can be compared."""
    if isinstance(what, np.ndarray):
        return str(what.dtype), what.tolist()
    if isinstance(what, Snapshot):
        return what.head, {name: plain(what.columns[name]) for name in sorted(what.columns)}
    if isinstance(what, msgspec.Struct):
        return {name: plain(getattr(what, name)) for name in what.__struct_fields__}
    return what


@pytest.mark.parametrize("seed", range(10))
def test_what_is_unpacked_is_what_was_packed(seed: int) -> None:
    moment = random_moment(seed)
    by_number = {number: known.mapped for number, known in moment.targets.items()}
    again = unpacked(packed(moment, lambda known: known.target), ORIGIN, by_number.__getitem__)
    assert (again.time_ns, again.schemes, again.cost, again.began_ns) == (seed, moment.schemes, moment.cost, 4)
    assert list(again.targets) == list(moment.targets)
    for number, before in moment.targets.items():
        after = again.targets[number]
        assert after.mapped is before.mapped
        assert plain(after.snapshot) == plain(before.snapshot)
        assert list(map(plain, after.looks)) == list(map(plain, before.looks[-1:]))
        rest = ("target", "pid", "command", "place", "first_look_ns", "footprint")
        assert [getattr(after, name) for name in rest] == [getattr(before, name) for name in rest]


def test_regions_take_a_third_of_what_they_take_as_arrays() -> None:
    """A thousand, side by side in three places: sizes of some pages, few accesses, ages of hours."""
    rng = np.random.default_rng(1)
    steps = rng.integers(1, 200, 1000).astype(np.uint64) * PAGE
    steps[[0, 400, 800]] += np.uint64(1 << 44)
    end = np.cumsum(steps)
    start = np.concatenate([end[:1] - PAGE, end[:-1]])
    start[[400, 800]] = end[[400, 800]] - PAGE
    columns = (start, end, rng.integers(0, 21, 1000).astype(np.uint32), rng.integers(0, 60_000, 1000).astype(np.uint32))
    resident = rng.integers(0, 200, 1000).astype(np.uint64) * PAGE
    snapshot = Snapshot(0, 0, SECOND, 5_000, 100_000, *columns, resident=resident)
    moment = Moment(SECOND, ORIGIN, {0: Known(0, snapshot, Mapped([]))})
    data = packed(moment, lambda known: 0)
    assert plain(unpacked(data, ORIGIN, lambda _: Mapped([])).targets[0].snapshot) == plain(snapshot)
    assert len(data) < sum(array.nbytes for array in snapshot.columns.values()) / 3


def test_a_block_has_the_last_pieces_that_there_is_room_for() -> None:
    """Beside a list that is cut to what fits: with pieces of all sizes, in any order."""
    dice = random.Random(4)
    block, told = Block(50_000), list[tuple[int, bytes]]()
    for time_ns in range(3000):
        piece = dice.randbytes(dice.choice([1, 600, 5_000, dice.randrange(1, 60_000)]))
        block.add(time_ns, piece)
        told.append((time_ns, piece))
        kept = [(block.time_ns(at), block.piece(at)) for at in range(len(block))]
        assert kept == told[len(told) - len(kept) :]
        assert bool(kept) == (len(piece) <= 50_000)
        for at in (-1, len(block)):
            with pytest.raises(IndexError):
                block.piece(at)
    for time_ns in range(30):
        block.add(time_ns, b"x" * 4_900)
    assert len(block) == 10
    block.add(1, b"x" * 50_000)
    assert len(block) == 1
    block.drop()
    assert len(block) == 0


def busy(second: int) -> Found:
    """Sixteen targets, of which one has other mappings every second, and another is gone after ten."""
    rng = np.random.default_rng(second)
    snapshots = [
        random_snapshot(rng, target, 50).replace(end_ns=second * SECOND)
        for target in (*range(15), SHORT + second // 10)
    ]
    moving = [Mapping(page << 20, (page << 20) + 4096 * second, "rw-p", 0, second, f"/x/{page}") for page in range(200)]
    numbers = [one.target for one in snapshots]
    many = [Mapping(page << 20, (page << 20) + 4096, "rw-p", 0, numbers[-1], f"/y/{page}") for page in range(400)]
    mapped = {target: [Mapping(0, 4096, "r--p", 0, 1, "/lib/x")] for target in numbers} | {3: moving, numbers[-1]: many}
    rows = [{"target": target, "resident_bytes": second, "swap_bytes": 0} for target in numbers]
    return Found(second * SECOND, snapshots, mapped, {"footprint": rows}, True)


def test_a_store_is_as_large_when_it_is_full_as_in_the_beginning() -> None:
    store = Store(most_bytes=4 << 20)
    store.begin(ORIGIN)
    for second in range(1, 60):
        store.note(busy(second))
    early = resident_bytes()
    for second in range(60, 1500):
        store.note(busy(second))
    assert resident_bytes() - early < 2 << 20  # what was mapped may take a quarter of the block
    span = store.span()
    assert span is not None
    assert 1400 * SECOND > span[0] > 100 * SECOND  # the first are gone
    oldest = store.at(span[0])
    assert oldest is not None
    number = oldest.time_ns // SECOND
    assert list(oldest.targets[3].mapped.mappings) == busy(number).mapped[3]
    assert plain(oldest.targets[7].snapshot) == plain(busy(number).snapshots[7])


def test_mappings_that_are_read_anew_and_are_the_same_are_kept_once() -> None:
    store = Store()
    store.begin(ORIGIN)
    for second in range(1, 9):
        snapshots = [random_snapshot(np.random.default_rng(1), 0, 3).replace(end_ns=second * SECOND)]
        store.note(Found(second * SECOND, snapshots, {0: [Mapping(0, 4096, "r--p", 0, 1, "/x")]}, {}, True))
    first, latest = store.at(0), store.latest()
    assert first is not None
    assert latest is not None
    assert first.time_ns == SECOND
    assert first.targets[0].mapped is latest.targets[0].mapped


def test_names_of_mappings_may_be_any_bytes() -> None:
    store, named = Store(), [Mapping(0, 4096, "r--p", 0, 1, "/x/\udcff\n")]
    store.begin(ORIGIN)
    for second, mapped in ((1, named), (2, [])):
        snapshots = [random_snapshot(np.random.default_rng(1), 0, 3).replace(end_ns=second * SECOND)]
        store.note(Found(second * SECOND, snapshots, {0: mapped}, {}, True))
    first = store.at(0)
    assert first is not None
    assert list(first.targets[0].mapped.mappings) == named


def test_what_targets_had_mapped_is_there_as_long_as_a_moment_tells_of_them() -> None:
    """Each moment a target comes and another goes; the mappings of one that goes take more room than its moments."""
    store = Store(most_bytes=40_000)
    store.begin(ORIGIN)
    rng = np.random.default_rng(2)
    for number in range(400):
        living = [random_snapshot(rng, target, 2).replace(end_ns=number * SECOND) for target in (number, number + 1)]
        mapped = {
            one.target: [
                Mapping(at << 12, (at + 1) << 12, "rw-p", 0, 0, f"{one.target} {rng.integers(1 << 60)}")
                for at in range(20)
            ]
            for one in living
        }
        store.note(Found(number * SECOND, living, mapped, {}, True))
    span = store.span()
    assert span is not None
    first, last = span
    assert last == 399 * SECOND
    assert 3 * SECOND < last - first < 300 * SECOND
    for number in range(first // SECOND, 400):
        moment = store.at(number * SECOND)
        assert moment is not None
        assert list(moment.targets) == [number, number + 1]
        for target, known in moment.targets.items():
            assert {one.name.split()[0] for one in known.mapped.mappings} == {str(target)}
