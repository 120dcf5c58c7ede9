"""One scheme in one line: ``pageout size>=4K rate=0% age>=60s quota=10ms+128M/1s``.

An action, then words in any order; what is not said has its default. The grammar is in ``docs/schemes.md``.
`write_short` is the opposite of `parse_short`, for every valid scheme. Nothing is validated here beyond what a word
says by itself (see `pydamon.spec.schemes.validate_scheme`).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

from pydamon.errors import RequestError
from pydamon.spec import units
from pydamon.spec.actions import ACTIONS
from pydamon.spec.forms.quoting import quoted
from pydamon.spec.metrics import METRICS
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import (
    FILTERS_OF_PROBES_ONLY,
    AccessPattern,
    AddressRange,
    AgeRange,
    Dest,
    Filter,
    FilterName,
    Goal,
    Quotas,
    RateRange,
    Scheme,
    SizeRange,
    SumRange,
    Watermarks,
    Weights,
)
from pydamon.spec.units import U64_MAX

FILTERS: tuple[str, ...] = tuple(name for name in get_args(FilterName) if name not in FILTERS_OF_PROBES_ONLY)

_LONGEST = 64 << 10  # characters of one scheme
_WORD = re.compile(r"""(?:[^\s"]|"(?:[^"\\]|\\.)*")+""")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_HELD = re.compile("\0(\\d+)\0")
_CONDITION = re.compile(r"(size|rate|age)(>=|<=|=|>|<)(.*)", re.DOTALL)
_TIME = re.compile(r"[\d.,_]+(?:ns|us|µs|usec|ms|msec|s|sec|min|h|d)", re.ASCII)
_SIZE = re.compile(r"[\d.,_]+(?:[KMGTPE](?:i?B)?|[kmgtpe]i?b|[Bb])", re.ASCII)
_BARE = re.compile(r"[\d.,_]+", re.ASCII)

Plain = Callable[[str], str]  # puts quoted text back
Fields = dict[str, Any]


def guess(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` if one of ``known`` is like ``word``, else ``; there are: …``."""
    names = list(known)
    close = difflib.get_close_matches(word.lower()[:64], names, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(names)}"


def shown(text: str) -> str:
    """What a user wrote, quoted and not too long, for a message."""
    return repr(text if len(text) <= 48 else text[:47] + "…")


def parse_short(text: str, warn: Callable[[str], None] = lambda remark: None) -> Scheme:
    """A scheme from its short form; ``warn`` gets what is valid, but may be meant otherwise.

    Raises RequestError that names the word and what would be right.
    """
    words, plain = _split(text)
    if not words:
        raise RequestError("is empty; a scheme begins with its action, like pageout age>=60s")
    action, *rest = words
    if action not in ACTIONS:
        raise RequestError(f"{shown(plain(action))} is no action{guess(action, ACTIONS)}")
    bounds: dict[str, list[Any]] = {"size": [None, None], "rate": [None, None], "age": [None, None]}
    fields: Fields = {}
    quota: Fields = {}
    filters: list[Filter] = []
    goals: list[Goal] = []
    given: set[str] = set()
    for word in rest:
        try:
            condition = _CONDITION.fullmatch(word)
            if condition is not None:
                _bound(bounds[condition[1]], condition[1], condition[2], condition[3])
                continue
            key, value = _key_and_value(word, given)
            if key == "filter":
                filters.append(parse_filter(value, plain))
                if value.startswith("!"):  # looks like the opposite of what it is
                    kind = value[1:]
                    warn(
                        f"filter={plain(value)} leaves out what is not {plain(kind)}; to leave out what is, write "
                        f"filter={plain(kind)} (and filter=reject:{plain(value)} if this is what you mean)"
                    )
            elif key == "goal":
                goals.append(_goal(value, plain))
            else:
                (quota if key in _QUOTA_KEYS else fields).update(_KEYS[key](value, plain))
        except RequestError as error:
            raise RequestError(f"{shown(plain(word))}: {error.message}") from None
    pattern = AccessPattern(
        sz_bytes=SizeRange(**_ends(bounds["size"])),
        nr_accesses=RateRange(**_ends(bounds["rate"])),
        age=AgeRange(**_ends(bounds["age"])),
    )
    return Scheme(
        action=action,  # type: ignore[arg-type]
        access_pattern=pattern,
        quotas=Quotas(**quota, goals=tuple(goals)),
        filters=tuple(filters),
        **fields,
    )


# -- words --------------------------------------------------------------------------------------------------------


def _split(text: str) -> tuple[list[str], Plain]:
    """The words, in which each quoted part is held out so that separators in it do not count; and what restores it."""
    if len(text) > _LONGEST:
        raise RequestError(f"is longer than {_LONGEST} characters")
    if "\0" in text:
        raise RequestError("has a NUL byte")
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        try:
            value = json.loads(match[0], strict=False)
            value.encode()
        except (ValueError, UnicodeError):
            raise RequestError(f'{shown(match[0])} is no quoted text; as in JSON, \\ stands before " and \\') from None
        if "\0" in value:
            raise RequestError("has a NUL byte")
        held.append(value)
        return f"\0{len(held) - 1}\0"

    words: list[str] = []
    at = 0
    for match in _WORD.finditer(text):
        if text[at : match.start()].strip():
            break
        if match[0].startswith("#"):
            at = len(text)
            break
        words.append(_QUOTED.sub(hold, match[0]))
        at = match.end()
    if text[at:].strip():
        raise RequestError(f"{shown(text[at:].strip())}: a quotation mark is not closed")
    return words, lambda word: _HELD.sub(lambda match: held[int(match[1])], word)


def _key_and_value(word: str, given: set[str]) -> tuple[str, str]:
    key, _, value = word.partition("=")
    known = (*_EXAMPLES, "filter", "goal", *_KEYS)
    if key in _EXAMPLES:
        raise RequestError(f"needs a bound, like {_EXAMPLES[key]}")
    if key not in known:
        raise RequestError(f"there is no key {shown(key)}{guess(key, known)}")
    if not value:
        raise RequestError(f"{key} needs a value: {key}=…")
    if key in given and key not in ("filter", "goal"):
        raise RequestError(f"{key} was given before")
    given.add(key)
    return key, value


def _bound(ends: list[Any], key: str, operator: str, text: str) -> None:
    """Set the lower end, the upper end or both."""
    read: Callable[[str], Any] = {"size": _size, "rate": _rate, "age": _age}[key]
    if operator in (">", "<"):
        raise RequestError(f"write {key}{operator}={text}: bounds are included")
    low, high = operator != "<=", operator != ">="
    if (low and ends[0] is not None) or (high and ends[1] is not None):
        raise RequestError(f"{key} was bounded before")
    first, dots, last = text.partition("..") if operator == "=" else (text, "", "")
    if key != "size" and _BARE.fullmatch(first):
        first += _BARE.sub("", last, count=1)  # 1..5% is 1%..5%
    if low:
        ends[0] = read(first)
    if high:
        ends[1] = read(last if dots else first)


def _ends(ends: list[Any]) -> Fields:
    return {name: value for name, value in zip(("min", "max"), ends, strict=True) if value is not None}


def _size(text: str) -> int:
    return 0 if text == "min" else units.parse_size(text)


def _rate(text: str) -> Rate:
    rate = Rate.parse(text)
    if _BARE.fullmatch(text) and rate.value:
        raise RequestError(f"{text!r} has no unit; write {text}% of the samples, {text}samples or {text}Hz")
    return rate


def _age(text: str) -> Age:
    age = Age.parse(text)
    if _BARE.fullmatch(text) and age.value:
        raise RequestError(f"{text!r} has no unit; write {text}s or {text}aggrs (aggregation intervals)")
    return age


# -- keys ---------------------------------------------------------------------------------------------------------


def _every(text: str, _: Plain) -> Fields:
    return {"apply_interval_us": units.parse_time_us(text)}


def parse_quota(text: str, _: Plain = str) -> Fields:
    """Fields of `Quotas` from ``10ms+128M/1s``. Raises RequestError."""
    amounts, slash, reset = text.partition("/")
    fields: Fields = {"reset_interval_ms": units.parse_time_ms(reset)} if slash else {}
    for amount in amounts.split("+") if amounts else ():
        if _TIME.fullmatch(amount):
            key, value = "time_ms", units.parse_time_ms(amount)
        elif amount == "max" or _SIZE.fullmatch(amount):
            key, value = "sz_bytes", units.parse_size(amount)
        elif re.fullmatch(r"[\d.,_]+m", amount):
            raise RequestError(f"{shown(amount)} may be minutes or MiB; write {amount}in or {amount[:-1]}M")
        else:
            raise RequestError(f"{shown(amount)} is neither a time nor a size; write it like quota=10ms+128M/1s")
        if key in fields:
            raise RequestError(f"has two {'times' if key == 'time_ms' else 'sizes'}; write it like quota=10ms+128M/1s")
        fields[key] = value
    return fields


def _weights(text: str, _: Plain) -> Fields:
    parts = text.split(":")
    if len(parts) != 3:
        raise RequestError("needs three numbers: weights=SIZE:RATE:AGE, in 1/1000, like weights=0:500:500")
    size, rate, age = map(units.parse_permil, parts)
    return {"weights": Weights(sz_permil=size, nr_accesses_permil=rate, age_permil=age)}


def _tuner(text: str, _: Plain) -> Fields:
    if text not in ("consist", "temporal"):
        raise RequestError(f"there is no such tuner{guess(text, ('consist', 'temporal'))}")
    return {"goal_tuner": text}


def _fail(text: str, _: Plain) -> Fields:
    num, slash, denom = text.partition("/")
    if not slash:
        raise RequestError("is the cost of a failed byte as a fraction, like fail=1/1024")
    return {"fail_charge_num": units.parse_count(num), "fail_charge_denom": units.parse_count(denom)}


def _goal(text: str, plain: Plain) -> Goal:
    head, colon, rest = text.partition(":")
    if not colon:
        raise RequestError("needs a target: goal=METRIC[@NODE[@CGROUP]]:TARGET, like goal=some_mem_psi_us:10ms")
    metric, *of = head.split("@")
    if metric not in METRICS:
        raise RequestError(f"there is no metric {shown(plain(metric))}{guess(metric, METRICS)}")
    if len(of) > 2:
        raise RequestError("has more than a node and a cgroup: METRIC@NODE@CGROUP")
    target, *more = rest.split(",")
    fields: Fields = {"metric": metric, "target_value": units.parse_metric(target)}
    if of and of[0]:
        fields["nid"] = units.parse_count(of[0])
    if len(of) == 2:
        fields["memcg_path"] = plain(of[1])
    for item in more:
        key, _, value = item.partition("=")
        if key == "now":
            fields["current_value"] = units.parse_metric(value)
        elif key == "name":
            fields["name"] = plain(value)
        else:
            raise RequestError(f"after the target there may be now=VALUE and name=NAME, not {shown(plain(item))}")
    return Goal(**fields)


def parse_watermarks(text: str, _: Plain = str) -> Fields:
    """``watermarks`` of a scheme from ``free[@NODE]:50%:40%:20%/5s``. Raises RequestError."""
    marks, slash, interval = text.partition("/")
    metric, *levels = marks.split(":")
    metric, at, node = metric.partition("@")
    names = {"free": "free_mem_rate", "free_mem_rate": "free_mem_rate", "none": "none"}
    if metric not in names or len(levels) != 3 or (at and metric == "none"):
        raise RequestError("write it as free[@NODE]:HIGH:MID:LOW/INTERVAL, like watermarks=free:50%:40%:20%/5s")
    high, mid, low = map(units.parse_permil, levels)
    fields: Fields = {"interval_us": units.parse_time_us(interval)} if slash else {}
    fields |= {"metric": names[metric], "high_permil": high, "mid_permil": mid, "low_permil": low}
    return {"watermarks": Watermarks(nid=units.parse_count(node) if at else None, **fields)}


def parse_filter(text: str, plain: Plain = str, default: str = "reject", known: Sequence[str] = FILTERS) -> Filter:
    """A filter from ``[allow:|reject:][!]TYPE[=VALUE]``; without a verb it is ``default``. Raises RequestError.

    ``known`` are the types that there are.
    """
    verb, colon, rest = text.partition(":")
    if verb not in ("allow", "reject") or not colon:
        verb, rest = default, text
    fields: Fields = {"allow": verb == "allow", "matching": not rest.startswith("!")}
    kind, equals, value = rest.removeprefix("!").partition("=")
    if kind not in known:
        raise RequestError(f"there is no filter {shown(plain(kind))}{guess(kind, known)}")
    fields["filter_type"] = kind
    if kind in _FILTER_FORMS and not value:
        raise RequestError(f"needs a value: {_FILTER_FORMS[kind]}")
    if kind not in _FILTER_FORMS and equals:
        raise RequestError(f"a filter of type {kind} takes no value")
    if kind == "memcg":
        fields["memcg_path"] = plain(value)
    elif kind in ("target", "node"):
        fields["nid" if kind == "node" else "damon_target_idx"] = units.parse_count(value)
    elif kind == "addr":
        first, dash, last = value.partition("-")
        if not dash:
            raise RequestError(f"is not a range; write it like {_FILTER_FORMS[kind]}")
        fields["address_range"] = AddressRange(start=units.parse_address(first), end=units.parse_address(last))
    elif kind == "hugepage_size":
        low, high = map(_size, _two_ends(value))
        fields["hugepage_size"] = SizeRange(min=low, max=high)
    elif kind == "probe_hits_wsum":
        low, high = (U64_MAX if end == "max" else units.parse_count(end) for end in _two_ends(value))
        fields["probe_hits_wsum"] = SumRange(min=low, max=high)
    return Filter(**fields)


def _two_ends(text: str) -> tuple[str, str]:
    first, dots, last = text.partition("..")
    return first, last if dots else first


def _dests(text: str, _: Plain) -> Fields:
    dests = []
    for item in text.split(","):
        node, colon, weight = item.partition(":")
        dests.append(Dest(id=units.parse_count(node), weight=units.parse_count(weight) if colon else 1))
    return {"dests": tuple(dests)}


_EXAMPLES = {"size": "size>=4K", "rate": "rate<=5%", "age": "age>=60s"}
_QUOTA_KEYS = frozenset({"quota", "weights", "tuner", "fail", "bloat"})
_KEYS: dict[str, Callable[[str, Plain], Fields]] = {
    "every": _every,
    "quota": parse_quota,
    "weights": _weights,
    "tuner": _tuner,
    "fail": _fail,
    "bloat": lambda text, _: {"bloat_bp": units.parse_permyriad(text)},
    "watermarks": parse_watermarks,
    "node": lambda text, _: {"target_nid": units.parse_count(text)},
    "dests": _dests,
    "snapshots": lambda text, _: {"max_nr_snapshots": units.parse_count(text)},
    "name": lambda text, plain: {"name": plain(text)},
}
_FILTER_FORMS = {
    "memcg": "memcg=/path",
    "target": "target=0",
    "addr": "addr=0x1000-0x8000",
    "hugepage_size": "hugepage_size=2M..max",
    "node": "node=0",
    "probe_hits_wsum": "probe_hits_wsum=100..max",
}


# -- writing ------------------------------------------------------------------------------------------------------


def write_short(scheme: Scheme) -> str:
    """The short form of a scheme, without what has its default value."""
    quotas, pattern = scheme.quotas, scheme.access_pattern
    words: list[str] = [
        scheme.action,
        *_write_range("size", pattern.sz_bytes, SizeRange(), exact_size),
        *_write_range("rate", pattern.nr_accesses, RateRange(), exact_quantity),
        *_write_range("age", pattern.age, AgeRange(), exact_quantity),
    ]
    if scheme.apply_interval_us:
        words.append(f"every={exact_time_us(scheme.apply_interval_us)}")
    amounts = [exact_time_us(quotas.time_ms * 1000)] if quotas.time_ms else []
    amounts += [exact_size(quotas.sz_bytes)] if quotas.sz_bytes else []
    reset = "" if quotas.reset_interval_ms == 1000 and not amounts else exact_time_us(quotas.reset_interval_ms * 1000)
    if amounts or reset:
        words.append(f"quota={'+'.join(amounts)}/{reset}")
    if quotas.weights != Weights():
        weights = quotas.weights
        words.append(f"weights={weights.sz_permil}:{weights.nr_accesses_permil}:{weights.age_permil}")
    words += [_write_goal(goal) for goal in quotas.goals]
    words += [f"tuner={quotas.goal_tuner}"] if quotas.goal_tuner != "consist" else []
    if quotas.fail_charge_num or quotas.fail_charge_denom:
        words.append(f"fail={quotas.fail_charge_num}/{quotas.fail_charge_denom}")
    words += [f"bloat={units.exact_bp(quotas.bloat_bp)}"] if quotas.bloat_bp else []
    if scheme.watermarks != Watermarks():
        words.append(f"watermarks={write_watermarks(scheme.watermarks)}")
    words += [_write_filter(item) for item in scheme.filters]
    if scheme.target_nid is not None:
        words.append(f"node={scheme.target_nid}")
    if scheme.dests:
        words.append("dests=" + ",".join(f"{dest.id}:{dest.weight}" for dest in scheme.dests))
    words += [f"snapshots={scheme.max_nr_snapshots}"] if scheme.max_nr_snapshots else []
    if scheme.name is not None:
        words.append(f"name={quoted(scheme.name)}")
    return " ".join(words)


def exact_size(size_bytes: int) -> str:
    """Bytes, in the largest unit that keeps them exact: ``4K``, ``4097B``, ``max``."""
    if size_bytes >= U64_MAX:
        return "max"
    for power, letter in ((40, "T"), (30, "G"), (20, "M"), (10, "K")):
        if size_bytes and size_bytes % (1 << power) == 0:
            return f"{size_bytes >> power}{letter}"
    return f"{size_bytes}B"


def exact_time_us(time_us: int) -> str:
    """Microseconds, in the largest unit that keeps them exact: ``10ms``, ``90s``, ``2min``."""
    for unit, unit_us in (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000)):
        if time_us and time_us % unit_us == 0:
            return f"{time_us // unit_us}{unit}"
    return f"{time_us // 1000}ms" if time_us % 1000 == 0 else f"{time_us}us"


def exact_quantity(value: Rate | Age) -> str:
    """A rate or an age with its unit and without a space: ``5%``, ``3samples``, ``60s``, ``max``."""
    if isinstance(value, Age) and value.unit == "us" and value.value is not None and value.value.denominator == 1:
        return exact_time_us(int(value.value))
    return str(value).replace(" ", "")


def _write_range(key: str, ends: Any, default: Any, write: Callable[[Any], str]) -> list[str]:
    low, high = ends.min != default.min, ends.max != default.max
    if ends.min == ends.max:
        return [f"{key}={write(ends.min)}"]
    if low and high:
        return [f"{key}={write(ends.min)}..{write(ends.max)}"]
    if low:
        return [f"{key}>={write(ends.min)}"]
    return [f"{key}<={write(ends.max)}"] if high else []


def _write_goal(goal: Goal) -> str:
    of = ""
    if goal.nid is not None or goal.memcg_path is not None:
        of = f"@{'' if goal.nid is None else goal.nid}"
    if goal.memcg_path is not None:
        of += f"@{quoted(goal.memcg_path)}"
    text = f"goal={goal.metric}{of}:{_write_metric(goal, goal.target_value)}"
    if goal.current_value:
        text += f",now={_write_metric(goal, goal.current_value)}"
    return text if goal.name is None else f"{text},name={quoted(goal.name)}"


def _write_metric(goal: Goal, value: int) -> str:
    unit = METRICS[goal.metric].unit
    if unit == "us":
        return exact_time_us(value)
    if unit == "bp":
        return units.exact_bp(value)
    return str(value)


def write_watermarks(marks: Watermarks) -> str:
    """Behind the keyword."""
    what = "free" if marks.metric == "free_mem_rate" else marks.metric
    of = "" if marks.nid is None else f"@{marks.nid}"
    levels = ":".join(map(exact_permil, (marks.high_permil, marks.mid_permil, marks.low_permil)))
    return f"{what}{of}:{levels}/{exact_time_us(marks.interval_us)}"


def exact_permil(value: int) -> str:
    """1/1000 as a percentage: ``50%``, ``0.5%``."""
    return f"{value // 10}" + (f".{value % 10}" if value % 10 else "") + "%"


def _write_filter(item: Filter) -> str:
    text = f"filter={'allow' if item.allow else 'reject'}:{'' if item.matching else '!'}{item.filter_type}"
    if item.memcg_path is not None:
        text += f"={quoted(item.memcg_path)}"
    if item.address_range is not None:
        text += f"={item.address_range.start:#x}-{item.address_range.end:#x}"
    if item.hugepage_size is not None:
        text += f"={exact_size(item.hugepage_size.min)}..{exact_size(item.hugepage_size.max)}"
    if item.probe_hits_wsum is not None:
        most = item.probe_hits_wsum.max
        text += f"={item.probe_hits_wsum.min}..{'max' if most == U64_MAX else most}"
    for number in (item.damon_target_idx, item.nid):
        text += "" if number is None else f"={number}"
    return text
