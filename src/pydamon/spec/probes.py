"""Data attributes monitoring in the spec: probes, of which each counts the samples that have an attribute.

Each probe is a list of filters, which work as those of schemes do: the first that matches the sampled page decides
(``allow``: it has the attribute), a page that none matches is treated as the opposite of what the last filter does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydamon.errors import RequestError, located
from pydamon.spec import units
from pydamon.spec.schemes import FILTERS_OF_PROBES_ONLY, MAX_FILTERS, Filter, Struct, validate_filter

MAX_PROBES = 4  # as in the kernel
# What can be told of one page without changing it. (The kernel's probes do not know active.)
PROBE_FILTERS = frozenset({"anon", "memcg", "active", "hugepage_size", "pgidle_set", "pgidle_unset", "perf_event"})
_EVENT = re.compile(r"[!-~]{1,200}")  # an event by its name, or PMU/term=value,.../
_MOST_HITS = 255  # that the kernel counts per aggregation
_MOST_SUM = 2**32 - 1


class Prep(Struct, frozen=True):
    """What is done to each sampled page before the sampling interval: ``set_pgidle`` marks it as not accessed."""

    prep_action: Literal["set_pgidle"] = "set_pgidle"


class Probe(Struct, frozen=True):
    """An attribute: whether the filters let a page pass. Without filters all pages have it.

    If any probe has a ``weight``, regions follow the weighted sums of hits, and accesses are not looked for at all.
    """

    filters: tuple[Filter, ...] = ()
    weight: int = 0
    preps: tuple[Prep, ...] = ()


def attributes_only(probes: Sequence[Probe]) -> bool:
    """Whether regions follow these attributes, and accesses are not looked for."""
    return any(probe.weight for probe in probes)


def event_of(probe: Probe) -> str | None:
    """The perf event whose samples the probe counts, by region; None if it asks about the pages that are sampled."""
    return probe.filters[0].perf_event if probe.filters else None


def validate_probes(probes: tuple[Probe, ...], *, ops: str, window: int) -> None:
    """Check what types alone do not say; raises RequestError with the field's path, e.g. ``probes[0].filters``.

    ``window`` is the number of samples per aggregation: the most that a probe can hit.
    """
    if len(probes) > MAX_PROBES:
        raise RequestError(f"has {len(probes)} entries; the most is {MAX_PROBES}", where="probes")
    if probes and ops == "reported":
        raise RequestError("cannot be had: reported accesses are of no running process", where="probes")
    for number, probe in enumerate(probes):
        with located(f"probes[{number}]"):
            _validate_probe(probe, ops)
    _validate_weights(probes, window)


def _validate_probe(probe: Probe, ops: str) -> None:
    for name in ("filters", "preps"):
        if len(getattr(probe, name)) > MAX_FILTERS:
            raise RequestError(f"has {len(getattr(probe, name))} entries; the most is {MAX_FILTERS}", where=name)
    for index, item in enumerate(probe.filters):
        with located(f"filters[{index}]"):
            _validate_filter(item)
            if item.perf_event is not None:
                _validate_event(probe, ops)
    if probe.weight < 0:
        raise RequestError(f"a weight of {probe.weight}; it must not be below 0", where="weight")


def _validate_event(probe: Probe, ops: str) -> None:
    """Samples are of regions where other attributes are of the page that is sampled: the two do not go together."""
    (item, *others) = probe.filters
    if others or item.perf_event is None:
        raise RequestError("goes alone: a probe of an event has no other filter", where="perf_event")
    if not (item.matching and item.allow):
        raise RequestError(
            "goes with matching and allow only: samples do not say what was not accessed", where="perf_event"
        )
    if not _EVENT.fullmatch(item.perf_event):
        raise RequestError("is no name of an event, like page-faults or cpu/event=0xd1,umask=0x20/", where="perf_event")
    if ops not in ("vaddr", "fvaddr"):
        raise RequestError(f"is for processes (ops vaddr, fvaddr), not for {ops}", where="perf_event")


def _validate_weights(probes: tuple[Probe, ...], window: int) -> None:
    """The kernel's bounds: of hits 8 bits, of their weighted sum 32."""
    if not attributes_only(probes):
        return
    if window > _MOST_HITS:
        text = f"a weight goes with {_MOST_HITS} samples per aggregation at most; the intervals make {window}"
        first = next(number for number, probe in enumerate(probes) if probe.weight)
        raise RequestError(text, where=f"probes[{first}].weight")
    total = 0
    for number, probe in enumerate(probes):
        total += probe.weight * window
        if total > _MOST_SUM:
            before = total // window - probe.weight
            most = _MOST_SUM // window - before
            raise RequestError(
                f"a weight of {probe.weight}; the most is {most} with {window} samples per aggregation"
                + (f" and {before} of the probes before" if before else ""),
                where=f"probes[{number}].weight",
            )


def _validate_filter(item: Filter) -> None:
    if item.filter_type not in PROBE_FILTERS:
        known = ", ".join(sorted(PROBE_FILTERS))
        raise RequestError(
            f"is {item.filter_type}, which is no attribute of a page; a probe's filters are of {known}",
            where="filter_type",
        )
    validate_filter(item, None)


def parse_probe(text: str) -> Probe:
    """A probe from words separated by blanks: ``anon``, ``!memcg=/a``, ``set_pgidle pgidle_unset weight=100``.

    ``weight=N`` is its weight, ``set_pgidle`` its preparation, ``perf_event=EVENT`` what it counts in place of pages;
    the others are filters,
    ``[allow:|reject:][!]TYPE[=VALUE]`` as in a scheme's short form; without a verb one allows: the page has the
    attribute. Raises RequestError.
    """
    from pydamon.spec.forms.scheme_short import FILTERS, parse_filter

    fields: dict[str, Any] = {}
    filters: list[Filter] = []
    for word in text.split():
        key, equals, value = word.partition("=")
        if key == "weight":
            if key in fields:
                raise RequestError("weight was given before")
            if not equals or not value:
                raise RequestError("weight needs a number: weight=100")
            fields[key] = units.parse_count(value)
        elif "perf_event" in key:
            if key != "perf_event" or not value:
                raise RequestError(f"{word[:60]!r} is not perf_event=EVENT, like perf_event=page-faults")
            filters.append(Filter(filter_type="perf_event", allow=True, perf_event=value))
        elif word == "set_pgidle":
            fields["preps"] = (*fields.get("preps", ()), Prep())
        else:
            filters.append(parse_filter(word, default="allow", known=(*FILTERS, *sorted(FILTERS_OF_PROBES_ONLY))))
    if not filters and not fields:
        raise RequestError(f"is empty; name an attribute: {', '.join(sorted(PROBE_FILTERS))}")
    return Probe(filters=tuple(filters), **fields)


def describe_probe(probe: Probe) -> str:
    """The attribute in words, e.g. ``anon``, ``not memcg /a``, ``pages of 2.0 MiB``."""
    return ", else ".join(_describe_filter(item) for item in probe.filters) or "all pages"


_WORDS = {"perf_event": "accesses sampled by", "pgidle_set": "idle", "pgidle_unset": "accessed"}


def _describe_filter(item: Filter) -> str:
    if item.hugepage_size is not None:
        low, high = item.hugepage_size.min, item.hugepage_size.max
        text = f"pages of {units.format_size(low)}" + ("" if low == high else f" to {units.format_size(high)}")
    else:
        text = " ".join(
            filter(None, (_WORDS.get(item.filter_type, item.filter_type), item.memcg_path, item.perf_event))
        )
    return text if item.matching == item.allow else f"not {text}"
