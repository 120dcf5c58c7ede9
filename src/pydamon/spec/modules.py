"""The part of a spec that is for the kernel's special-purpose modules: ``modules: {damon_reclaim: {min_age: 30s}}``.

Parameters are the kernel's, by its names (``Documentation/admin-guide/mm/damon/reclaim.rst`` and its neighbours); which
of them there are is for the kernel to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydamon.errors import RequestError, located
from pydamon.spec import units

Value = int | bool
MODULES = ("damon_reclaim", "damon_lru_sort", "damon_stat")
RECLAIMING = "damon_reclaim"  # what it takes out of memory needs swap, unless it is of files

# How a value that is written as text is read: what is counted in microseconds, milliseconds, bytes, 1/1000 or 1/10,000.
_PARSERS: dict[str, Callable[[str], int]] = {
    **dict.fromkeys(
        ("min_age", "cold_min_age", "wmarks_interval", "sample_interval", "aggr_interval", "quota_mem_pressure_us"),
        units.parse_time_us,
    ),
    **dict.fromkeys(("quota_ms", "quota_reset_interval_ms"), units.parse_time_ms),
    "quota_sz": units.parse_size,
    **dict.fromkeys(("monitor_region_start", "monitor_region_end"), units.parse_address),
    **dict.fromkeys(("wmarks_high", "wmarks_mid", "wmarks_low", "hot_thres_access_freq"), units.parse_permil),
    "active_mem_bp": units.parse_permyriad,
}


def exact(data: object) -> dict[str, dict[str, Value]]:
    """The modules with exact values, from what a JSON or YAML parser returns. Raises RequestError naming the field."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise RequestError("must be an object: the names of modules with their parameters", where="modules")
    found: dict[str, dict[str, Value]] = {}
    for name, parameters in data.items():
        where = f"modules.{str(name)[:40]}"
        if name not in MODULES:
            raise RequestError(f"is no module of DAMON; there are {', '.join(MODULES)}", where=where)
        if not isinstance(parameters, dict | None):
            raise RequestError("must be an object: parameters with their values", where=where)
        found[name] = {}
        for key, value in (parameters or {}).items():
            with located(f"{where}.{key[:40]}"):
                found[name][key] = _exact(key, value)
    if len(found) > 1:
        raise RequestError("has several entries; the kernel runs one of them at a time", where="modules")
    return found


def _exact(key: str, value: Any) -> Value:
    if isinstance(value, str):
        value = _PARSERS.get(key, units.parse_count)(value)
    if not isinstance(value, int):
        raise RequestError(f"is {str(value)[:40]!r}; it must be a whole number, true or false")
    if not isinstance(value, bool) and not 0 <= value <= units.U64_MAX:
        raise RequestError(f"is {value}; it must be 0 to 2^64 - 1")
    return value
