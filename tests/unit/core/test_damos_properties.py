"""Schemes over random regions: against a literal model, region by region, and what must hold whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.fake_acting import BASE, PAGE, Bench, FakeActing, make_regions, spans_of
from tests.unit.core.test_scores import literal as literal_score

from pydamon.spec import Scheme
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import (
    AccessPattern,
    AddressRange,
    AgeRange,
    Filter,
    Goal,
    Quotas,
    RateRange,
    SizeRange,
    Weights,
)

COLD = ("pageout", "cold", "migrate_cold")
HOT = ("lru_prio", "willneed")


@dataclass
class ModelRegion:
    start: int
    end: int
    nr: int
    age: int


@dataclass
class Model:
    """One scheme, one region at a time, from the description of the algorithms (2.6, 2.10-2.12, 2.14)."""

    scheme: Scheme
    targets: list[list[ModelRegion]]
    fails: Any
    unit: int = PAGE
    there: Any = None  # whether the page at an address is in memory; None: the kernel's way, all of a region counts
    charged: int = 0
    refused: list[list[int]] = field(default_factory=list)  # target, start, end, passes to wait, until when
    nr_passes: int = 0
    window_ns: int | None = None
    esz: int | None = None
    esz_bp: int = 0
    exceeds: int = 0
    resume: tuple[int, int] | None = None
    tried: list[tuple[int, int, int]] = field(default_factory=list)
    sums: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def weigh(self, start: int, end: int) -> int:
        """What counts of these addresses."""
        if self.there is None or self.scheme.action == "willneed":
            return end - start
        return sum(PAGE for page in range(start, end, PAGE) if self.there(page))

    def left_alone(self, target: int, region: ModelRegion) -> bool:
        """Whether at least half of the region has refused a short while ago, or there is nothing in it."""
        if self.there is None or self.scheme.action == "stat":
            return False
        if not self.weigh(region.start, region.end):
            return True
        covered = sum(
            max(min(region.end, end) - max(region.start, start), 0)
            for other, start, end, _, until in self.refused
            if other == target and until >= self.nr_passes
        )
        return 2 * covered >= region.end - region.start

    def note(self, target: int, region: ModelRegion, there: int, applied: int) -> None:
        """Remember who has refused."""
        old = [row for row in self.refused if row[0] == target and row[1] < region.end and row[2] > region.start]
        self.refused = [row for row in self.refused if row not in old]
        if there and 16 * applied < there:
            wait = min(max([2 * row[3] for row in old], default=1), 64)
            self.refused.append([target, region.start, region.end, wait, self.nr_passes + wait])

    def full(self) -> bool:
        return self.esz is not None and self.esz - self.charged < self.unit

    def window(self, now_ns: int) -> None:
        quotas = self.scheme.quotas
        if not quotas.sz_bytes and not quotas.goals:
            return
        if self.window_ns is not None and now_ns - self.window_ns < quotas.reset_interval_ms * 1_000_000:
            return
        if self.window_ns is not None and self.full():
            self.exceeds += 1
        self.window_ns, self.charged = now_ns, 0
        self.esz = quotas.sz_bytes or 2**64
        if quotas.goals:
            score = max(goal.current_value * 10_000 // goal.target_value for goal in quotas.goals)
            if quotas.goal_tuner == "temporal":
                self.esz = 0 if score >= 10_000 else self.esz
            else:
                last = max(self.esz_bp, 10_000)
                if score >= 20_000:
                    self.esz_bp = 10_000
                else:
                    self.esz_bp = max(last + (last * (10_000 - score) // 10_000 if score <= 10_000 else
                                              -(last * (score - 10_000) // 10_000)), 10_000)  # fmt: skip
                self.esz = min(self.esz, self.esz_bp // 10_000)
        if self.esz == 2**64:
            self.esz = None

    def decide(self, region: ModelRegion, target: int) -> bool:
        for item in self.scheme.filters:
            if item.filter_type == "target":
                hit = item.damon_target_idx == target
            else:
                assert item.address_range is not None
                hit = item.address_range.start <= region.start and region.end <= item.address_range.end
            if hit == item.matching:
                return item.allow
        return not (self.scheme.filters and self.scheme.filters[-1].allow)

    def score(self, region: ModelRegion) -> int:
        weights = self.scheme.quotas.weights
        hot = literal_score(region.nr, region.age, weights.nr_accesses_permil, weights.age_permil, 20, 100_000)
        return 99 - hot if self.scheme.action in COLD else hot if self.scheme.action in HOT else 99

    def cut(self, target: int, region: ModelRegion, at: int) -> ModelRegion:
        """Split; the right part is returned and inserted behind ``region``."""
        right = ModelRegion(at, region.end, region.nr, region.age)
        region.end = at
        row = self.targets[target]
        row.insert(next(i for i, r in enumerate(row) if r is region) + 1, right)
        return right

    def eligible(self) -> list[tuple[int, ModelRegion]]:
        found = []
        pattern = self.scheme.access_pattern
        bounds = {
            point
            for item in self.scheme.filters
            if item.address_range is not None
            for point in (item.address_range.start, item.address_range.end)
        }
        for target, row in enumerate(self.targets):
            for region in list(row):
                size = region.end - region.start
                if not (
                    pattern.sz_bytes.min <= size <= pattern.sz_bytes.max
                    and int(pattern.nr_accesses.min.value or 0) <= region.nr
                    and (pattern.nr_accesses.max.value is None or region.nr <= pattern.nr_accesses.max.value)
                    and int(pattern.age.min.value or 0) <= region.age
                ):
                    continue
                pieces = [region]
                for point in sorted(bounds):
                    if pieces[-1].start < point < pieces[-1].end:
                        pieces.append(self.cut(target, pieces[-1], point))
                found += [(target, piece) for piece in pieces if self.decide(piece, target)]
        return found

    def apply_pass(self, now_ns: int) -> None:
        self.tried = []
        self.nr_passes += 1
        found = [(target, region) for target, region in self.eligible() if not self.left_alone(target, region)]
        self.window(now_ns)
        if self.full():
            return
        if self.esz is not None:
            lowest = 0
            for score in range(99, -1, -1):
                if sum(self.weigh(r.start, r.end) for _, r in found if self.score(r) >= score) >= self.esz:
                    lowest = score
                    break
            found = [(t, r) for t, r in found if self.score(r) >= lowest]
        resume, self.resume = self.resume, None
        if resume is not None:
            behind = [(t, r) for t, r in found if (t, r.end) > (resume[0], resume[1])]
            if behind:
                target, region = behind[0]
                if target == resume[0] and region.start < resume[1]:
                    behind[0] = target, self.cut(target, region, resume[1])
                found = behind
        while found:
            target, region = found.pop(0)
            if self.esz is not None and self.charged + self.weigh(region.start, region.end) > self.esz:
                at = region.start + self.unit
                while self.charged + self.weigh(region.start, at + self.unit) <= self.esz:
                    at += self.unit
                found.insert(0, (target, self.cut(target, region, at)))
            self.act(target, region)
            if self.full():
                self.resume = target, region.end
                return

    def act(self, target: int, region: ModelRegion) -> None:
        applied = self.fails(region.start, region.end)
        quotas = self.scheme.quotas
        size = region.end - region.start
        charge = there = min(size, max(self.weigh(region.start, region.end), applied))
        if quotas.fail_charge_denom:
            charge = applied + (there - applied) * quotas.fail_charge_num // quotas.fail_charge_denom
        self.charged += charge
        if self.there is not None and self.scheme.action != "stat":
            self.note(target, region, there, applied)
        self.tried.append((target, region.start, region.end))
        tried = size if self.there is None else max(self.weigh(region.start, region.end), applied)
        for place, more in enumerate((1, tried, int(applied > 0), applied)):
            self.sums[place] += more
        if self.scheme.action != "stat" and (self.there is None or applied):
            region.age = 0


pages = st.integers(0, 40)
rows = st.lists(
    st.tuples(st.booleans(), st.integers(1, 12), st.integers(0, 20), st.sampled_from([0, 1, 9, 300, 5000])), max_size=10
)
some_filters = st.lists(
    st.one_of(
        st.builds(
            lambda low, size, matching, allow: Filter(
                filter_type="addr",
                matching=matching,
                allow=allow,
                address_range=AddressRange(start=BASE + low * PAGE, end=BASE + (low + size) * PAGE),
            ),
            *(pages, st.integers(1, 20), st.booleans(), st.booleans()),
        ),
        st.builds(
            lambda index, matching, allow: Filter(
                filter_type="target", matching=matching, allow=allow, damon_target_idx=index
            ),
            *(st.integers(0, 2), st.booleans(), st.booleans()),
        ),
    ),
    max_size=3,
)
some_quotas = st.builds(
    lambda size, window, weights, fail, goals, tuner: Quotas(
        sz_bytes=size,
        reset_interval_ms=window,
        weights=Weights(nr_accesses_permil=weights[0], age_permil=weights[1]),
        fail_charge_num=fail[0],
        fail_charge_denom=fail[1],
        goals=tuple(Goal(metric="user_input", target_value=10, current_value=value) for value in goals),
        goal_tuner=tuner,
    ),
    st.one_of(st.just(0), st.integers(PAGE, 30 * PAGE)),
    st.sampled_from([100, 250, 1000]),
    st.sampled_from([(0, 0), (1, 1), (1000, 0), (3, 7)]),
    st.sampled_from([(0, 0), (1, 3), (1, 1)]),
    st.lists(st.integers(0, 25), max_size=2),
    st.sampled_from(["consist", "temporal"]),
)
some_patterns = st.builds(
    lambda size, low, high, age: AccessPattern(
        sz_bytes=SizeRange(min=size * PAGE),
        nr_accesses=RateRange(min=Rate(low, "samples"), max=Rate(None if high > 20 else low + high, "samples")),
        age=AgeRange(min=Age(age, "aggrs")),
    ),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 30),
    st.sampled_from([0, 0, 1, 9]),
)
some_schemes = st.builds(
    lambda action, pattern, quotas, filters: Scheme(
        action=action,
        access_pattern=pattern,
        quotas=quotas,
        filters=tuple(filters),
        target_nid=0 if "migrate" in action else None,
    ),
    st.sampled_from([*COLD, *HOT, "stat"]),
    st.one_of(st.just(AccessPattern()), some_patterns),
    some_quotas,
    some_filters,
)


def laid_out(row: list[tuple[bool, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """(gap before it, pages, nr, age) to (start, end, nr, age)."""
    at, found = BASE, []
    for gap, count, nr, age in row:
        at += 3 * PAGE if gap else 0
        found.append((at, at + count * PAGE, nr, age))
        at += count * PAGE
    return found


def bench_of(scheme: Scheme, spans: list[list[tuple[int, int, int, int]]], share: Any) -> Bench:
    ops = FakeActing(len(spans))
    ops.share = share
    regions = [make_regions([s[:2] for s in row], [s[2] for s in row], [s[3] for s in row]) for row in spans]
    return Bench(scheme, regions=regions, ops=ops)


def partly(start: int, end: int) -> int:
    """What works out of a region: nothing, half, or all, by its address."""
    return (end - start) * (start // PAGE % 3) // 2


def covered(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans with those that touch joined."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


@settings(max_examples=150, deadline=None)
@given(some_schemes, st.lists(rows, max_size=3), st.integers(1, 6))
def test_passes_are_those_of_a_literal_model(scheme: Scheme, layout: list[Any], passes: int) -> None:
    spans = [laid_out(row) for row in layout]
    bench = bench_of(scheme, spans, partly)
    model = Model(scheme, [[ModelRegion(*s) for s in row] for row in spans], partly)
    for _ in range(passes):
        done = bench.step()
        model.apply_pass(bench.clock.now_ns())
        assert done == model.tried
        for mine, row in zip(bench.regions, model.targets, strict=True):
            assert spans_of(mine) == [(r.start, r.end) for r in row]
            assert mine.age.tolist() == [r.age for r in row]
        assert bench.state.quota.charged_bytes == model.charged or not scheme.quotas.limited
    stats = bench.state.stats
    assert [stats.nr_tried, stats.sz_tried, stats.nr_applied, stats.sz_applied] == model.sums
    assert stats.qt_exceeds == model.exceeds


@settings(max_examples=300, deadline=None)
@given(some_schemes, st.lists(rows, max_size=3), st.integers(1, 9), st.sets(st.integers(0, 150)), st.integers(1, 4))
def test_quotas_for_memory_are_those_of_a_literal_model(
    scheme: Scheme, layout: list[Any], passes: int, absent: set[int], one_in: int
) -> None:
    def there(address: int) -> bool:
        page = (address - BASE) // PAGE
        return page % one_in == 0 and page not in absent

    def resident(start: Any, end: Any) -> Any:
        pairs = zip(start.tolist(), end.tolist(), strict=True)
        return np.array([sum(PAGE for page in range(a, b, PAGE) if there(page)) for a, b in pairs], np.uint64)

    def share(start: int, end: int) -> int:
        return model.weigh(start, end) * (start // PAGE % 3) // 2

    spans = [laid_out(row) for row in layout]
    model = Model(scheme, [[ModelRegion(*s) for s in row] for row in spans], share, there=there)
    bench = bench_of(scheme, spans, share)
    bench.damos.by_memory = True
    bench.ops.resident = resident
    for _ in range(passes):
        done = bench.step()
        model.apply_pass(bench.clock.now_ns())
        assert done == model.tried
        for mine, row in zip(bench.regions, model.targets, strict=True):
            assert spans_of(mine) == [(r.start, r.end) for r in row]
        assert bench.state.quota.charged_bytes == model.charged or not scheme.quotas.limited
        assert bench.state.quota.esz is None or model.charged <= bench.state.quota.esz


@settings(max_examples=100, deadline=None)
@given(
    some_schemes,
    st.integers(0, 50),
    st.lists(rows, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 1000), st.floats(0, 2)), max_size=12),
    st.sampled_from([PAGE, 2 * PAGE]),
)
def test_what_holds_whatever_happens(
    scheme: Scheme, time_ms: int, layout: list[Any], steps: list[tuple[int, int, float]], unit: int
) -> None:
    import msgspec

    if 0 < scheme.quotas.sz_bytes < unit:
        return
    scheme = msgspec.structs.replace(scheme, quotas=msgspec.structs.replace(scheme.quotas, time_ms=time_ms))
    factor = unit // PAGE  # the same layout in units of the smallest region
    spans = [[(BASE + (s - BASE) * factor, BASE + (e - BASE) * factor, n, a) for s, e, n, a in laid_out(row)]
             for row in layout]  # fmt: skip
    ops = FakeActing(len(spans))
    regions = [make_regions([s[:2] for s in row], [s[2] for s in row], [s[3] for s in row]) for row in spans]
    bench = Bench(scheme, regions=regions, ops=ops, min_region=unit)
    before = [covered(spans_of(r)) for r in regions]
    tried_in_window, window_ns, last = 0, None, bench.state.stats
    sums = (0, 0, 0)
    for samples, seed, ns_per_byte in steps:
        random = np.random.default_rng(seed)
        shares: dict[tuple[int, int], int] = {}

        def share(start: int, end: int, random: Any = random, shares: Any = shares) -> int:
            return int(shares.setdefault((start, end), int(random.integers(0, end - start + 1))))

        def passes(start: int, end: int, share: Any = share) -> int:
            return max(share(start, end), (end - start) // 2)

        ops.share, ops.passes = share, passes
        ops.ns_per_byte = ns_per_byte * 100
        began_ns = bench.clock.now_ns() + samples * bench.intervals.sample_us * 1000
        done = bench.step(samples)
        state, quota = bench.state, bench.state.quota

        # Nothing twice in one pass, all within the regions, whole smallest regions.
        pages_done = [(t, page) for t, start, end in done for page in range(start, end, unit)]
        assert len(set(pages_done)) == len(pages_done)
        assert all(start % unit == 0 and end % unit == 0 and start < end for _, start, end in done)

        # Never more than the effective quota in a window.
        if scheme.quotas.limited and state.passes > sums[2]:
            if window_ns is None or began_ns - window_ns >= scheme.quotas.reset_interval_ms * 1_000_000:
                window_ns, tried_in_window = began_ns, 0
            tried_in_window += sum(end - start for _, start, end in done)
            if quota.esz is not None:
                assert quota.charged_bytes <= quota.esz
                if not scheme.quotas.fail_charge_denom:
                    assert tried_in_window == quota.charged_bytes
            if scheme.quotas.sz_bytes and not scheme.quotas.fail_charge_denom:
                assert tried_in_window <= scheme.quotas.sz_bytes

        # Regions: sorted, disjoint, aligned, covering what they covered.
        for row, whole in zip(bench.regions, before, strict=True):
            now = spans_of(row)
            assert covered(now) == whole
            assert all(start < end and start % unit == 0 and end % unit == 0 for start, end in now)
            assert len(row.age) == len(row.nr_accesses) == len(now)

        # What worked out passed the filters, what passed was tried; sums only grow.
        stats = state.stats
        assert stats.sz_tried >= stats.sz_ops_filter_passed >= stats.sz_applied
        assert stats.nr_tried >= stats.nr_applied
        assert stats.sz_tried == ops.tried_bytes()
        assert (stats.sz_tried, stats.sz_applied, state.passes) >= sums
        sums = (stats.sz_tried, stats.sz_applied, state.passes)
    assert last is bench.state.stats
