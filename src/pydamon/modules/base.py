"""What a module is: knobs in, schemes and controllers out; and how knobs are written and read. Pure; the rows are in
`registry`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from pydamon.errors import RequestError
from pydamon.modules.chains import Chains
from pydamon.modules.controller import Controller
from pydamon.spec import Intervals, NrRegions, units
from pydamon.spec.forms.scheme_short import (
    exact_permil,
    exact_time_us,
    guess,
    parse_quota,
    parse_watermarks,
    shown,
    write_watermarks,
)
from pydamon.spec.model import PAGE_SIZE
from pydamon.spec.module_numbers import OF_SCHEMES
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import (
    AccessPattern,
    AgeRange,
    Filter,
    Quotas,
    RateRange,
    Scheme,
    SizeRange,
    Watermarks,
    Weights,
)

Target = Literal["process", "cgroup", "physical"]
EngineName = Literal["user", "kernel", "sim"]
PAGES_OUT, MAKES_HUGE = "page out", "make huge pages"  # what modules do that others may do, too
OFF = "off"
_MOST_BYTES = 1 << 56
_LEAST_INTERVAL_US = 100_000
OLDEST_FIRST = Weights(sz_permil=0, nr_accesses_permil=0, age_permil=1)  # as in the kernel's module


class Knob(msgspec.Struct, frozen=True):
    """What a user sets: its name as written, how text of it is read (raises RequestError) and written, what it does."""

    name: str
    parse: Callable[[str], Any]
    write: Callable[[Any], str]
    help: str


class Facts(msgspec.Struct, frozen=True):
    """What a module has to know of the machine; None where that could not be found out, or nothing is in the way.

    ``psi``, ``io_psi``: whether pressure of memory and io is told, of the target's cgroup if it is one.
    ``free_permil`` of the machine, ``node_free_permil`` of each of its NUMA nodes.
    ``reclaim_obstacle``, ``low_obstacle``: why the target's cgroup cannot be asked to give memory, or keep it.
    ``low_limited_by``: a cgroup above it that has no memory.low. ``kernel``: its version. ``huge_pages``: where the
    kernel makes them by itself (always, madvise, never), or ``absent``; ``only_advised``: whether it can leave that out
    for a command; ``launches``: whether one is started. ``reporting_obstacle``, ``compact_obstacle``: why free memory
    does not go to a host, or cannot be compacted. ``zram``: what keeps each device of zram from writing back.
    ``tiers``: those of its NUMA nodes, or ``tiers_obstacle``, why there are none. ``cpu_psi``: whether pressure of CPUs
    is told. ``cgroup``: that of the target. ``knows_ages``: whether single pages can be asked (young).
    """

    engine: str = "user"
    target: Target = "process"
    swap_bytes: int | None = None
    swap_free_bytes: int | None = None
    free_permil: int | None = None
    node_free_permil: Mapping[int, int] | None = None
    psi: bool | None = None
    io_psi: bool | None = None
    reclaim_obstacle: str | None = None
    low_obstacle: str | None = None
    low_limited_by: str | None = None
    kernel: tuple[int, int] | None = None
    huge_pages: str | None = None
    only_advised: bool = False
    launches: bool = False
    reporting_obstacle: str | None = None
    compact_obstacle: str | None = None
    zram: Mapping[str, str | None] | None = None
    tiers: Chains = ()
    tiers_obstacle: str | None = None
    cpu_psi: bool | None = None
    cgroup: str | None = None
    knows_ages: bool | None = None

    def free_permil_of(self, marks: Watermarks) -> int | None:
        """What the watermarks go by, in 1/1000; None where there are none, or nothing is known of it."""
        if marks.metric == "none":
            return None
        return self.free_permil if marks.nid is None else (self.node_free_permil or {}).get(marks.nid)


def too_much_free(marks: Watermarks, facts: Facts) -> list[str]:
    """That such watermarks keep a module from acting now, if they do."""
    free_permil = facts.free_permil_of(marks)
    if free_permil is None or free_permil <= marks.mid_permil:
        return []
    free = f"{free_permil / 10:.0f}% of {marks.of_what} is free now"
    return [f"{free}: it begins at {marks.mid_permil / 10:g}% or less; watermarks={OFF} makes it always active"]


class Knobs(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs of a module: each field's unit is in its name, its default is the module's, its row is a `Knob`."""


def time_knob(name: str, help: str) -> Knob:
    """A time in us, 0 is off."""
    return Knob(name, lambda text: 0 if text == OFF else units.parse_time_us(text), _write_time, help)


def interval_knob(help: str) -> Knob:
    """How long a loop waits, in us."""

    def parse(text: str) -> int:
        value = 0 if text == OFF else units.parse_time_us(text)
        if value < _LEAST_INTERVAL_US:
            raise RequestError("must be 100 ms or more")
        return value

    return Knob("interval", parse, exact_time_us, help)


def quota_knob(name: str, help: str) -> Knob:
    """Time and size per window, as in schemes; ``off`` is no limit."""
    return Knob(name, _parse_quota, _write_quota, help)


def watermarks_knob(name: str, help: str) -> Knob:
    """Shares of free memory between which the module is active; ``off``: always."""
    return Knob(name, _parse_marks, _write_marks, help)


def permil_knob(name: str, help: str) -> Knob:
    """A share in 1/1000."""
    return Knob(name, _parse_permil, exact_permil, help)


def bp_knob(name: str, help: str, *, may_be_off: bool = False) -> Knob:
    """A share in 1/10,000; 0 is off, where that may be."""

    def parse(text: str) -> int:
        if may_be_off and text == OFF:
            return 0
        share = units.parse_share(text) * 10_000
        if not 1 <= share <= 10_000 or share.denominator != 1:
            raise RequestError(f"{shown(text)}: must be 0.01% to 100%, in steps of 0.01%")
        return int(share)

    return Knob(name, parse, lambda value: units.exact_bp(value) if value or not may_be_off else OFF, help)


def size_knob(name: str, help: str) -> Knob:
    """Bytes, 0 is off."""
    return Knob(name, lambda text: 0 if text == OFF else _parse_bytes(text), lambda v: _size(v) if v else OFF, help)


def words_knob(name: str, words: tuple[str, ...], help: str) -> Knob:
    """One or more of some words, joined by ``+``; a tuple in the order of ``words``."""

    def parse(text: str) -> tuple[str, ...]:
        given = text.split("+")
        for word in given:
            if word not in words:
                raise RequestError(f"{shown(word)} is none of {', '.join(words)}{guess(word, words)}")
        return tuple(word for word in words if word in given)

    return Knob(name, parse, "+".join, f"{', '.join(words)}, or some joined by +: {help}")


def choice_knob(name: str, choices: tuple[str, ...], help: str) -> Knob:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise RequestError(f"is {shown(text)}; it must be {' or '.join(choices)}")
        return text

    return Knob(name, parse, str, f"{' or '.join(choices)}: {help}")


def unused_for(age_us: int, least_bytes: int = PAGE_SIZE) -> AccessPattern:
    """Regions of ``least_bytes`` or more that no sample has found used for that long."""
    return AccessPattern(
        sz_bytes=SizeRange(min=least_bytes),
        nr_accesses=RateRange(max=Rate(0, "samples")),
        age=AgeRange(min=Age(Fraction(age_us), "us")),
    )


def only_files(files: str) -> tuple[Filter, ...]:
    """The filters of a scheme that leaves anonymous memory alone, with ``only``."""
    return (Filter(filter_type="anon"),) if files == "only" else ()


def _parse_bytes(text: str) -> int:
    value = units.parse_size(text)
    if value > _MOST_BYTES:
        raise RequestError(f"{shown(text)} is more than any machine has")
    return value


def _write_time(value: int) -> str:
    return exact_time_us(value) if value else OFF


def _parse_permil(text: str) -> int:
    value = units.parse_permil(text)
    if value > 1000:
        raise RequestError(f"{shown(text)} is more than 100%")
    return value


def _parse_quota(text: str) -> Quotas:
    return Quotas(weights=OLDEST_FIRST, **({} if text == OFF else parse_quota(text)))


def _write_quota(value: Quotas) -> str:
    amounts = [exact_time_us(value.time_ms * 1000)] if value.time_ms else []
    amounts += [_size(value.sz_bytes)] if value.sz_bytes else []
    return f"{'+'.join(amounts)}/{exact_time_us(value.reset_interval_ms * 1000)}" if amounts else OFF


def _size(size_bytes: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size_bytes % (1 << power) == 0:
            return f"{size_bytes >> power}{unit}"
    return f"{size_bytes}B"


def _parse_marks(text: str) -> Watermarks:
    marks: Watermarks = Watermarks() if text == OFF else parse_watermarks(text)["watermarks"]
    if not marks.high_permil >= marks.mid_permil >= marks.low_permil:
        raise RequestError(f"{shown(text)}: high, middle and low must not rise")
    return marks


def _write_marks(value: Watermarks) -> str:
    return OFF if value == Watermarks() else write_watermarks(value)


def _no_schemes(knobs: Any, target: Target) -> tuple[Scheme, ...]:
    return ()


def _no_loops(knobs: Any, target: Target) -> tuple[Controller, ...]:
    return ()


def _no_obstacles(knobs: Any, facts: Facts) -> list[str]:
    return []


def _as_they_are(knobs: Any, facts: Facts) -> Any:
    return knobs


def _no_words(knobs: Any) -> list[str]:
    return []


def _no_bounds(knobs: Any) -> Mapping[str, str]:
    return {}


def _nothing(knobs: Any) -> tuple[str, ...]:
    return ()


def _as_usual(knobs: Any) -> tuple[Intervals, NrRegions] | None:
    return None


@cache  # 1 ms, as the annotations are evaluated for it
def _table(knobs: type[Knobs]) -> Mapping[str, tuple[str, Knob]]:
    found = {}
    for field, kind in get_type_hints(knobs, include_extras=True).items():
        if get_origin(kind) is Annotated:
            knob = get_args(kind)[1]
            found[knob.name] = (field, knob)
    return found


class Module(msgspec.Struct, frozen=True):
    """A module.

    ``schemes`` makes its schemes of its knobs and the target, ``cannot`` says what it will not do on a machine;
    ``where``: of each engine, the targets that it works on. ``controllers`` makes its loops anew, none where the policy
    is no loop. ``words`` say what they do, a line each; ``numbers``: what it tells of itself, rows of
    `spec.module_numbers`. ``fit`` gives the knobs that it has on a machine and with an engine; it raises PydamonError
    where the module can do nothing at all. ``monitoring`` is how it has to be monitored, None: as usual.
    ``makes_huge_pages``: a command that is started gets none that nobody has asked for. ``does`` tells what others may
    do, too, like "page out", and ``bounds`` of these the knob whose bound holds only if nobody else does it.
    """

    name: str
    help: str
    knobs: type[Knobs]
    where: Mapping[EngineName, tuple[Target, ...]]
    schemes: Callable[[Any, Target], tuple[Scheme, ...]] = _no_schemes
    cannot: Callable[[Any, Facts], list[str]] = _no_obstacles
    controllers: Callable[[Any, Target], tuple[Controller, ...]] = _no_loops
    numbers: tuple[str, ...] = OF_SCHEMES
    words: Callable[[Any], list[str]] = _no_words
    fit: Callable[[Any, Facts], Any] = _as_they_are
    monitoring: Callable[[Any], tuple[Intervals, NrRegions] | None] = _as_usual
    makes_huge_pages: bool = False
    bounds: Callable[[Any], Mapping[str, str]] = _no_bounds
    does: Callable[[Any], tuple[str, ...]] = _nothing

    @property
    def table(self) -> Mapping[str, tuple[str, Knob]]:
        """The field and the row of each knob, by its name as it is written."""
        return _table(self.knobs)


class Use(msgspec.Struct, frozen=True):
    """A module with the values of its knobs."""

    module: Module
    knobs: Knobs

    def schemes(self, target: Target) -> tuple[Scheme, ...]:
        """What it adds to a context with such a target."""
        return self.module.schemes(self.knobs, target)

    def cannot(self, facts: Facts) -> list[str]:
        """What it will not do with these knobs there, and the nearest that it will, a line each."""
        return self.module.cannot(self.knobs, facts)

    def fitted(self, facts: Facts) -> Use:
        """The same with the knobs that it has there. Raises PydamonError where it can do nothing at all."""
        return Use(self.module, self.module.fit(self.knobs, facts))

    def does(self) -> tuple[str, ...]:
        """What it does that others may do, too."""
        return self.module.does(self.knobs)

    def bounds(self) -> Mapping[str, str]:
        """Of that, the bounds that hold only if nobody else does it: how they are written."""
        return self.module.bounds(self.knobs)

    def words(self) -> list[str]:
        """What its loops do, if it has any; of schemes `spec.words.explain` tells."""
        return self.module.words(self.knobs)

    def controllers(self, target: Target) -> tuple[Controller, ...]:
        """Its loops for such a target, new ones each time."""
        return self.module.controllers(self.knobs, target)

    def write(self, *, all_knobs: bool = False) -> str:
        """As it is written: the name, and the knobs that are not as usual, or all of them."""
        words = [self.module.name]
        usual = self.module.knobs()
        for name, (field, knob) in self.module.table.items():
            value = getattr(self.knobs, field)
            if all_knobs or value != getattr(usual, field):
                words.append(f"{name}={knob.write(value)}")
        return " ".join(words)
