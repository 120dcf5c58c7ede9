"""What would come back of memory that a scheme pages out, in words: who plans a policy that thrashes is to know it."""

from __future__ import annotations

from fractions import Fraction

from pydamon.spec.schemes import Scheme
from pydamon.spec.units import format_duration_ns, format_size

USUAL_BP = 20  # 0.2 % of the working set per minute: the target of software-defined far memory
_NS_PER_S, _BP, _MINUTE_MS = 1_000_000_000, 10_000, 60_000


def taken_at_s(scheme: Scheme) -> float | None:
    """From which idle time on a scheme pages out, in s; None if it does not, or its age is in aggregations."""
    age = scheme.access_pattern.age.min
    if scheme.action != "pageout" or age.unit != "us" or age.value is None:
        return None
    return float(age.value / 1_000_000)


def most_per_minute(scheme: Scheme) -> int | None:
    """How many bytes its quota lets it page out in a minute; None without one in bytes."""
    quotas = scheme.quotas
    return int(Fraction(quotas.sz_bytes * _MINUTE_MS, quotas.reset_interval_ms)) if quotas.sz_bytes else None


def refault_words(
    bytes_per_minute: int, error_bytes: int, working_set_bytes: int | None, window_s: int, hits: int, seen_s: float
) -> str:
    """How much would come back, ± its error, and what share of the working set that is."""
    seen = f"{hits:,} {'return' if hits == 1 else 'returns'} of single pages in {_time(seen_s)}"
    line = f"about {format_size(bytes_per_minute)} a minute would come back ± {format_size(error_bytes)} ({seen})"
    if not working_set_bytes:
        return line
    share = percent(bytes_per_minute * _BP / working_set_bytes)
    return f"{line}, {share} of the {format_size(working_set_bytes)} used within {_time(window_s)}"


def thrash_words(least_bp: float, better_s: int | None) -> str:
    """That it is too much, and from which age on it would not be."""
    line = f"it would thrash: at least {percent(least_bp)} of the working set a minute; {percent(USUAL_BP)} is usual"
    return line if better_s is None else f"{line}; min_age={_time(better_s)} keeps below it"


def percent(share_bp: float) -> str:
    """1/10,000 as percent, with two digits."""
    return f"{float(f'{share_bp / 100:.2g}'):g}%"


def _time(seconds: float) -> str:
    return format_duration_ns(round(seconds) * _NS_PER_S)
