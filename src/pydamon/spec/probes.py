"""Data attributes monitoring in the spec: probes, of which each counts the samples that have an attribute.

Each probe is a list of filters, which work as those of schemes do: the first that matches the sampled page decides
(``allow``: it has the attribute), a page that none matches is treated as the opposite of what the last filter does.
"""

from __future__ import annotations

from pydamon.errors import RequestError, located
from pydamon.spec.schemes import MAX_FILTERS, Filter, Struct, validate_filter

MAX_PROBES = 4  # as in the kernel
# What can be told of one page without changing it. (The kernel's probes know anon and memcg so far.)
PROBE_FILTERS = frozenset({"anon", "memcg", "active", "hugepage_size"})


class Probe(Struct, frozen=True):
    """An attribute: whether the filters let a page pass. Without filters all pages have it."""

    filters: tuple[Filter, ...] = ()


def validate_probes(probes: tuple[Probe, ...], *, ops: str) -> None:
    """Check what types alone do not say; raises RequestError with the field's path, e.g. ``probes[0].filters``."""
    if len(probes) > MAX_PROBES:
        raise RequestError(f"has {len(probes)} entries; the most is {MAX_PROBES}", where="probes")
    if probes and ops == "reported":
        raise RequestError("cannot be had: reported accesses are of no running process", where="probes")
    for number, probe in enumerate(probes):
        with located(f"probes[{number}].filters"):
            if len(probe.filters) > MAX_FILTERS:
                raise RequestError(f"has {len(probe.filters)} entries; the most is {MAX_FILTERS}")
            for index, item in enumerate(probe.filters):
                with located(f"[{index}]"):
                    _validate_filter(item)


def _validate_filter(item: Filter) -> None:
    if item.filter_type not in PROBE_FILTERS:
        known = ", ".join(sorted(PROBE_FILTERS))
        raise RequestError(
            f"is {item.filter_type}, which is no attribute of a page; a probe's filters are of {known}",
            where="filter_type",
        )
    validate_filter(item, None)


def parse_probe(text: str) -> Probe:
    """A probe from filters in their short form, separated by blanks: ``anon``, ``!memcg=/a``, ``hugepage_size=2M``.

    A filter is ``[allow:|reject:][!]TYPE[=VALUE]`` as in a scheme's short form; without a verb it allows: the page has
    the attribute. Raises RequestError.
    """
    from pydamon.spec.forms.scheme_short import parse_filter

    if not text.split():
        raise RequestError(f"is empty; name an attribute: {', '.join(sorted(PROBE_FILTERS))}")
    return Probe(filters=tuple(parse_filter(word, default="allow") for word in text.split()))


def describe_probe(probe: Probe) -> str:
    """The attribute in words, e.g. ``anon``, ``not memcg /a``, ``pages of 2.0 MiB``."""
    return ", else ".join(_describe_filter(item) for item in probe.filters) or "all pages"


def _describe_filter(item: Filter) -> str:
    from pydamon.spec.units import format_size

    if item.hugepage_size is not None:
        low, high = item.hugepage_size.min, item.hugepage_size.max
        text = f"pages of {format_size(low)}" + ("" if low == high else f" to {format_size(high)}")
    else:
        text = " ".join(filter(None, (item.filter_type, item.memcg_path)))
    return text if item.matching == item.allow else f"not {text}"
