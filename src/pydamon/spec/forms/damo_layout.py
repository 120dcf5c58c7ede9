"""What ``damo`` and older files write differently, brought into the layout of our spec, before it is read.

Known are the layouts of damo 1.6 to 3.4 (found by reading what they read and write): other names of fields, fields
that we do not have, and their ways to write numbers. A field that we do not have is dropped where it says what is so
anyway, dropped with a warning where pydamon works the same without it, and refused where it would change the meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import msgspec

from pydamon.errors import RequestError, located
from pydamon.spec import units
from pydamon.spec.actions import ACTIONS
from pydamon.spec.forms import damo_readings
from pydamon.spec.forms.scheme_short import FILTERS, guess, shown
from pydamon.spec.metrics import METRICS
from pydamon.spec.model import Context, Intervals, IntervalsGoal, NrRegions, Target
from pydamon.spec.probes import PROBE_FILTERS, Prep, Probe
from pydamon.spec.schemes import (
    AccessPattern,
    Dest,
    Filter,
    Goal,
    Quotas,
    RateRange,
    Scheme,
    Watermarks,
    Weights,
)
from pydamon.spec.units import U32_MAX, U64_MAX

Fields = dict[str, Any]
LONGEST_RESET_MS = 10**10

_BARE = re.compile(r"\s*[0-9][0-9,_]*(?:\.[0-9]+)?\s*", re.ASCII)
_TIME_PARTS = re.compile(r"\s*([0-9][0-9,_]*(?:\.[0-9]+)?)\s*([A-Za-zµ]+)", re.ASCII)
_UNIT_NS = {"ns": 1, "us": 1000, "ms": 1_000_000}
_NO, _YES = ("n", "no", "false"), ("y", "yes", "true")

# What older versions called it.
_OLD_CONTEXT_FIELDS = {"sample": "sample_us", "aggr": "aggr_us", "ops_update": "ops_update_us"}


def bare_number(value: object) -> Fraction | None:
    """The number if ``value`` is one, or text that is one without a unit."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return Fraction(value)
    if isinstance(value, str) and len(value) <= 64 and _BARE.fullmatch(value):
        return Fraction(value.strip().replace(",", "").replace("_", ""))
    return None


def size_bytes(value: object) -> int:
    """Bytes; like damo, ``min`` is 0 and a fraction of a byte (``1.234 GiB``) is cut off. Raises RequestError."""
    number = bare_number(value)
    if number is not None:
        return _whole(number, "bytes")
    text = _text(value, "size")
    if text == "min":
        return 0
    match = re.fullmatch(r"([0-9][0-9,_]*\.[0-9]+)\s*([KMGTPE])(?:i?B)?", text, re.I | re.A)
    if match is None or len(text) > 64:
        return units.parse_size(text)
    exact = Fraction(match[1].replace(",", "").replace("_", "")) * units.parse_size(f"1{match[2]}")
    return _whole(Fraction(int(exact)), "bytes")


def time_in(unit: str, value: object) -> int:
    """A time in ``unit`` (``us`` or ``ms``), also ``1 m 30 s``; a bare number is in that unit. Raises RequestError."""
    number = bare_number(value)
    if number is None:
        text = _text(value, "time")
        if text == "min":
            return 0
        parts = _TIME_PARTS.findall(text) if len(text) <= 128 else []
        if len(parts) > 1 and not _TIME_PARTS.sub("", text).strip():
            number = Fraction(sum(units.parse_time_ns(f"{n}{u}") for n, u in parts), _UNIT_NS[unit])
        else:
            return units.parse_time_us(text) if unit == "us" else units.parse_time_ms(text)
    return _whole(number, {"us": "microseconds", "ms": "milliseconds"}[unit])


def reset_ms(value: object, *, limited: bool, warn: Callable[[str], None]) -> int:
    """A quota's reset interval; damo's ``max`` is what a scheme without quotas has there."""
    found = U64_MAX if value == "max" else time_in("ms", value)
    if found <= LONGEST_RESET_MS:
        return found if found or limited else 1000
    if not limited:
        return 1000
    warn("the quota's reset interval is read as 10,000,000 s, the longest there is")
    return LONGEST_RESET_MS


def _whole(value: Fraction, unit: str) -> int:
    if value.denominator != 1:
        raise RequestError(f"{float(value):g} is not a whole number of {unit}")
    if not 0 <= value <= U64_MAX:
        raise RequestError(f"must be 0 to {U64_MAX} {unit}")
    return int(value)


def _count(value: object) -> int:
    number = bare_number(value)
    if number is not None:
        return _whole(number, "hits")
    text = _text(value, "number")
    return U64_MAX if text == "max" else units.parse_count(text)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise RequestError(f"{shown(repr(value))} is not a {what}")
    return value.strip()


class DamoReader:
    """Brings plain values (what a JSON or YAML parser returns, already bounded in depth and size) into our layout.

    ``warn`` gets one line for each thing that is dropped or read in a way that could be meant otherwise.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn_line = warn

    def _warn(self, path: str, text: str) -> None:
        self._warn_line(f"{path}: {text}")

    # -- the whole spec -----------------------------------------------------------------------------------------

    def spec(self, data: object) -> Fields:
        """``kdamonds: …``."""
        fields = _object(data, "the file")
        kdamonds = _items(fields.get("kdamonds"), "kdamonds")
        return {"kdamonds": [self._kdamond(item, f"kdamonds[{index}]") for index, item in enumerate(kdamonds)]}

    def _kdamond(self, data: object, path: str) -> Fields:
        fields = _object(data, path)
        for name in ("state", "pid", "name", "data_source"):
            fields.pop(name, None)
        _convert(fields, path, time_in, "ms", "refresh_ms")
        contexts = _items(fields.get("contexts"), f"{path}.contexts")
        fields["contexts"] = [self._context(item, f"{path}.contexts[{index}]") for index, item in enumerate(contexts)]
        return fields

    def _context(self, data: object, path: str) -> Fields:
        fields = _object(data, path)
        fields.pop("name", None)
        self._refuse_what_changes_monitoring(fields, path)
        _known(fields, Context, path)
        if "intervals" in fields:
            fields["intervals"] = self._intervals(fields["intervals"], f"{path}.intervals")
        if "nr_regions" in fields:
            bounds = _object(fields["nr_regions"], f"{path}.nr_regions")
            _rename(bounds, {"min_nr_regions": "min", "max_nr_regions": "max"})
            fields["nr_regions"] = _known(bounds, NrRegions, f"{path}.nr_regions")
        if "targets" in fields:
            targets = _items(fields["targets"], f"{path}.targets")
            fields["targets"] = [self._target(item, f"{path}.targets[{index}]") for index, item in enumerate(targets)]
        if "schemes" in fields:
            fields["schemes"] = self.schemes(fields["schemes"], f"{path}.schemes")
        if "probes" in fields:
            probes = _items(fields["probes"], f"{path}.probes")
            fields["probes"] = [_probe(item, f"{path}.probes[{index}]") for index, item in enumerate(probes)]
        return fields

    def _refuse_what_changes_monitoring(self, fields: Fields, path: str) -> None:
        _convert(fields, path, size_bytes, None, "addr_unit")
        if fields.get("addr_unit", 1) != 1:
            text = "is read, but addresses and sizes are read as bytes all the same; damo has them in this unit"
            self._warn(f"{path}.addr_unit", text)
        if "pause" in fields:
            fields["pause"] = _truth(fields["pause"], f"{path}.pause", False)
        if fields.pop("record_request", None):
            self._warn(f"{path}.record_request", "is ignored; `pydamon record` writes records")
        control = _object(fields.pop("sample_control", None) or {}, f"{path}.sample_control")
        primitives = _object(control.get("primitives_enabled") or {}, f"{path}.sample_control.primitives_enabled")
        attrs = _object(fields.pop("ops_attrs", None) or {}, f"{path}.ops_attrs")
        for holder, name, default in (
            (primitives, "sample_control.primitives_enabled.page_table", True),
            (primitives, "sample_control.primitives_enabled.page_fault", False),
            (attrs, "ops_attrs.use_reports", False),
            (attrs, "ops_attrs.write_only", False),
        ):
            where = f"{path}.{name}"
            if _truth(holder.get(name.rpartition(".")[2]), where, default) is not default:
                raise RequestError("is not supported; pydamon's primitives are chosen by primitive", where=where)
        if control.get("sample_filters"):
            raise RequestError("are not supported", where=f"{path}.sample_control.sample_filters")
        if attrs.get("cpus") not in (None, "all") or attrs.get("tids"):
            raise RequestError("with cpus or tids is not supported", where=f"{path}.ops_attrs")

    def _intervals(self, data: object, path: str) -> Fields:
        fields = _object(data, path)
        _rename(fields, _OLD_CONTEXT_FIELDS)
        goal = fields.pop("intervals_goal", None)
        if goal is not None:
            goal = _object(goal, f"{path}.intervals_goal")
            _convert(goal, f"{path}.intervals_goal", time_in, "us", "min_sample_us", "max_sample_us")
            if bare_number(goal.get("aggrs", 3)) != 0:  # damo writes 0 for: off
                fields["intervals_goal"] = _known(goal, IntervalsGoal, f"{path}.intervals_goal")
        _convert(fields, path, time_in, "us", "sample_us", "aggr_us", "ops_update_us")
        return _known(fields, Intervals, path)

    def _target(self, data: object, path: str) -> Fields:
        fields = _object(data, path)
        fields.pop("name", None)
        if "obsolete" in fields:
            fields["obsolete"] = _truth(fields["obsolete"], f"{path}.obsolete", False)
        regions = _items(fields.get("regions"), f"{path}.regions")
        fields["regions"] = [
            _only(_object(item, f"{path}.regions[{index}]"), "start", "end") for index, item in enumerate(regions)
        ]
        return _known(fields, Target, path)

    # -- schemes ------------------------------------------------------------------------------------------------

    def schemes(self, data: object, path: str) -> list[Any]:
        """A list of schemes; one may be text in the short form, which is left as it is."""
        return [
            item if isinstance(item, str) else self.scheme(item, f"{path}[{index}]")
            for index, item in enumerate(_items(data, path))
        ]

    def scheme(self, data: object, path: str) -> Fields:
        """One scheme."""
        fields = _object(data, path)
        stats = fields.pop("stats", None)
        if isinstance(stats, dict) and bare_number(stats.get("max_nr_snapshots")):
            fields.setdefault("max_nr_snapshots", stats["max_nr_snapshots"])
        for name in ("tried_regions", "tried_bytes"):
            fields.pop(name, None)
        _known(fields, Scheme, path, "core_filters", "ops_filters")
        action = fields.get("action", "stat")
        if not isinstance(action, str) or action.lower() not in ACTIONS:
            raise RequestError(
                f"{shown(str(action))} is no action{guess(str(action), ACTIONS)}", where=f"{path}.action"
            )
        fields["action"] = action = action.lower()
        if "access_pattern" in fields:
            fields["access_pattern"] = self._pattern(fields["access_pattern"], f"{path}.access_pattern")
        _convert(fields, path, time_in, "us", "apply_interval_us")
        if "quotas" in fields:
            fields["quotas"] = self._quotas(fields["quotas"], f"{path}.quotas")
        if "watermarks" in fields:
            marks = _object(fields["watermarks"], f"{path}.watermarks")
            _convert(marks, f"{path}.watermarks", time_in, "us", "interval_us")
            _known(marks, Watermarks, f"{path}.watermarks")
            # damo writes zeros where there are none
            fields["watermarks"] = {} if marks.get("metric") == "none" else marks
        filters = []
        for name in ("core_filters", "ops_filters", "filters"):
            items = _items(fields.pop(name, None), f"{path}.{name}")
            filters += [_filter(item, f"{path}.{name}[{index}]") for index, item in enumerate(items)]
        fields["filters"] = filters
        dests = _items(fields.get("dests"), f"{path}.dests")
        for index, item in enumerate(dests):
            _known(_object(item, f"{path}.dests[{index}]"), Dest, f"{path}.dests[{index}]")
        if "target_nid" in fields and (dests or not ACTIONS[action].migrates):
            if dests:
                self._warn(f"{path}.target_nid", "is ignored: dests says where to")
            del fields["target_nid"]
        return fields

    def _pattern(self, data: object, path: str) -> Fields:
        fields = _object(data, path)
        for name in ("sz_bytes", "nr_accesses", "age"):
            ends = {end: fields.pop(f"{end}_{name}", None) for end in ("min", "max")}
            if any(value is not None for value in ends.values()):
                fields.setdefault(name, ends)
            if name in fields:
                fields[name] = _object(fields[name], f"{path}.{name}")
        _convert(fields.get("sz_bytes", {}), f"{path}.sz_bytes", size_bytes, None, "min", "max")
        rate_unit, age_unit = fields.pop("nr_accesses_unit", None), fields.pop("age_unit", None)
        for name, unit, read in (("nr_accesses", rate_unit, self._rate), ("age", age_unit, self._age)):
            ends = fields.get(name, {})
            for end in ("min", "max"):
                if end in ends:
                    ends[end] = read(ends[end], unit, f"{path}.{name}.{end}")
            if _number_and_unit(ends.get("min"))[0] == 0 and _number_and_unit(ends.get("max"))[0] != 0:
                del ends["min"]  # zero in any unit is the default
            _known(ends, RateRange, f"{path}.{name}")
        _known(fields.get("sz_bytes", {}), RateRange, f"{path}.sz_bytes")
        return _known(fields, AccessPattern, path)

    def _rate(self, value: object, unit: object, path: str) -> Any:
        number, own = _number_and_unit(value)
        if _is_max(value):
            return "max"
        if number is None or not number:
            return value
        if number >= U32_MAX and own in ("", "%", "samples", "sample_intervals"):
            return "max"
        if own:
            return f"{value}".replace("sample_intervals", "samples")
        if unit in ("samples", "sample_intervals"):
            return f"{_decimal(number)} samples"
        if unit is None:
            self._warn(path, f"{_decimal(number)} has no unit and is read as {_decimal(number)} %, as damo does")
        elif unit != "percent":
            raise RequestError(f"{shown(str(unit))} is no unit of nr_accesses", where=path)
        return f"{_decimal(number)} %"

    def _age(self, value: object, unit: object, path: str) -> Any:
        number, own = _number_and_unit(value)
        if _is_max(value) or (own == "aggr_intervals" and number is not None and number >= U32_MAX):
            return "max"
        if number is None or not number or own:
            if isinstance(value, str) and len(_TIME_PARTS.findall(value[:128])) > 1:
                return f"{_field(path, None, time_in, 'us', value)} us"
            return value
        if number >= U64_MAX:
            return "max"
        if unit == "aggr_intervals":
            return "max" if number >= U32_MAX else f"{_decimal(number)} aggrs"
        if unit is None:
            text = f"{_decimal(number)} has no unit and is read as {_decimal(number)} microseconds, as damo does"
            self._warn(path, text)
        elif unit != "usec":
            raise RequestError(f"{shown(str(unit))} is no unit of age", where=path)
        return f"{_decimal(number)} us"

    def _quotas(self, data: object, path: str) -> Fields:
        fields = _object(data, path)
        fields.pop("effective_sz_bytes", None)  # a reading
        if isinstance(tuner := fields.get("goal_tuner"), str):
            fields["goal_tuner"] = tuner.strip()  # damo hands on the file's newline
        weights = {f"{name}_permil": fields.pop(f"weight_{name}_permil", None) for name in ("sz", "nr_accesses", "age")}
        if any(value is not None for value in weights.values()):
            fields.setdefault("weights", {name: value for name, value in weights.items() if value is not None})
        if "weights" in fields:
            fields["weights"] = _known(_object(fields["weights"], f"{path}.weights"), Weights, f"{path}.weights")
        _convert(fields, path, time_in, "ms", "time_ms")
        _convert(fields, path, size_bytes, None, "sz_bytes")
        goals = _items(fields.get("goals"), f"{path}.goals")
        fields["goals"] = [_goal(item, f"{path}.goals[{index}]") for index, item in enumerate(goals)]
        if "reset_interval_ms" in fields:
            limited = any(fields.get(name) for name in ("time_ms", "sz_bytes", "goals"))
            where = f"{path}.reset_interval_ms"
            with located(where):
                fields["reset_interval_ms"] = reset_ms(
                    fields["reset_interval_ms"], limited=limited, warn=lambda text: self._warn(where, text)
                )
        return _known(fields, Quotas, path)


def _goal(data: object, path: str) -> Fields:
    fields = _object(data, path)
    if "target_value_bp" in fields:  # damo 2.0 to 2.2
        fields.setdefault("metric", "user_input")
        _rename(fields, {"target_value_bp": "target_value", "current_value_bp": "current_value"})
    if "complement" in fields:
        fields["complement"] = _truth(fields["complement"], f"{path}.complement", False)
    metric = fields.get("metric")
    if metric is not None and not (isinstance(metric, str) and metric in METRICS):
        raise RequestError(
            f"there is no metric {shown(str(metric))}{guess(str(metric), METRICS)}", where=f"{path}.metric"
        )
    if not fields.get("memcg_path"):
        fields.pop("memcg_path", None)
    return _known(damo_readings.goal(fields), Goal, path)


def _probe(data: object, path: str) -> Fields:
    fields = _object(data, path)
    preps = _items(fields.get("preps"), f"{path}.preps")
    fields["preps"] = [
        _known(_object(item, where := f"{path}.preps[{index}]"), Prep, where) for index, item in enumerate(preps)
    ]
    filters = []
    for index, item in enumerate(_items(fields.get("filters"), f"{path}.filters")):
        where = f"{path}.filters[{index}]"
        of_item = _object(item, where)
        _rename(of_item, {"path": "memcg_path"})
        bounds = of_item.pop("range_min", None), of_item.pop("range_max", None)
        if bounds != (None, None):
            of_item["hugepage_size"] = list(bounds)
        filters.append(_filter(of_item, where, sorted(PROBE_FILTERS)))
    return _known(fields | {"filters": filters}, Probe, path)


def _filter(data: object, path: str, known: Sequence[str] = FILTERS) -> Fields:
    fields = damo_readings.of_filter(_object(data, path))
    fields.pop("name", None)
    _rename(fields, {"filter_pass": "allow", "probe_hits_wsum_range": "probe_hits_wsum"})
    kind = fields.get("filter_type")
    if kind is not None and kind not in known:
        raise RequestError(
            f"there is no filter {shown(str(kind))}{guess(str(kind), known)}", where=f"{path}.filter_type"
        )
    for name, default in (("matching", True), ("allow", False)):
        if name in fields:
            fields[name] = _truth(fields[name], f"{path}.{name}", default)
    if not fields.get("memcg_path"):
        fields.pop("memcg_path", None)
    if "address_range" in fields:
        fields["address_range"] = _only(_object(fields["address_range"], f"{path}.address_range"), "start", "end")
    for name, read in (("hugepage_size", size_bytes), ("probe_hits_wsum", _count)):
        ends = fields.get(name)
        if isinstance(ends, list | tuple):
            if len(ends) != 2:
                raise RequestError("must be a minimum and a maximum", where=f"{path}.{name}")
            ends = {"min": ends[0], "max": ends[1]}
        if ends is not None:
            fields[name] = ends = _object(ends, f"{path}.{name}")
            _convert(ends, f"{path}.{name}", read, None, "min", "max")
    return _known(fields, Filter, path)


# -- plain values -------------------------------------------------------------------------------------------------


def _object(data: object, path: str) -> Fields:
    """A copy, without what is null: that is the same as not said."""
    if not isinstance(data, dict):
        raise RequestError(f"must be an object, not {_kind(data)}", where=path)
    return {key: value for key, value in data.items() if value is not None}


def _items(data: object, path: str) -> list[Any]:
    if data is None:
        return []
    if not isinstance(data, list):
        raise RequestError(f"must be a list, not {_kind(data)}", where=path)
    return data


def _kind(data: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(data), "a number")


def _only(fields: Fields, *names: str) -> Fields:
    return {name: fields[name] for name in names if name in fields}


def _known(fields: Fields, struct: type[msgspec.Struct], path: str, *more: str) -> Fields:
    """The fields, if all of them are fields of ``struct`` (or ``more``)."""
    for name in fields:
        if name not in struct.__struct_fields__ + more:
            raise RequestError(
                f"there is no such field{guess(name, struct.__struct_fields__)}", where=f"{path}.{name[:48]}"
            )
    return fields


def _rename(fields: Fields, names: dict[str, str]) -> None:
    for old, new in names.items():
        if old in fields:
            fields.setdefault(new, fields.pop(old))


def _field(path: str, name: str | None, read: Callable[..., Any], *values: Any) -> Any:
    with located(f"{path}.{name}" if name else path):
        return read(*values)


def _convert(fields: Fields, path: str, read: Callable[..., int], unit: str | None, *names: str) -> None:
    for name in names:
        if name in fields:
            fields[name] = _field(path, name, read, *((unit,) if unit else ()), fields[name])


def _truth(value: object, path: str, default: bool) -> bool:
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _NO + _YES:
        return value.lower() in _YES
    raise RequestError(f"{shown(str(value))} is neither true nor false", where=path)


def _number_and_unit(value: object) -> tuple[Fraction | None, str]:
    number = bare_number(value)
    if number is not None or not isinstance(value, str) or len(value) > 128:
        return number, ""
    match = re.fullmatch(r"\s*([0-9][0-9,_]*(?:\.[0-9]+)?)\s*([A-Za-z_%/µ]+)\s*", value)
    if match is None:
        return None, ""
    return Fraction(match[1].replace(",", "").replace("_", "")), match[2].lower()


def _is_max(value: object) -> bool:
    """``max``, also with a unit after it."""
    return isinstance(value, str) and value[:64].split()[:1] == ["max"]


def _decimal(number: Fraction) -> str:
    return str(int(number)) if number.denominator == 1 else format(float(number), "f").rstrip("0")
