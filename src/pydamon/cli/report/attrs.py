"""``pydamon report attrs``: how much memory has the attributes that a recording counted, and how hot it is by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pydamon.analysis.attribute_heat import F64, USUAL_WEIGHTS, AttributeHeat, attribute_heat, histogram, percentiles
from pydamon.analysis.attributes import AttributeShare, attribute_shares
from pydamon.analysis.window import Window
from pydamon.cli.inputs import DEFAULT
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice, refuse_given
from pydamon.cli.report.common import count, empty, opened, window_of
from pydamon.errors import PydamonError, RequestError
from pydamon.plain import json_text, printable
from pydamon.records.hits import TABLE, ProbedRegions, probed_regions
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.views.names import target_line

if TYPE_CHECKING:
    from pydamon.views.hits import Hits

_PERCENTS = (0, 1, 5, 25, 50, 75, 95, 99, 100)
_BINS = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be shown; ``weights`` are those of a temperature: hits, age in us, size in bytes."""

    style: str = "shares"
    sort: str = "temperature"
    reverse: bool = False
    weights: tuple[float, float, float] = USUAL_WEIGHTS


def wanted_of(style: str, sort: str, reverse: bool, weights: str) -> Wanted:
    """What the options say. Raises RequestError for what is wrong, or was given and would do nothing."""
    found = Wanted(style, sort, reverse, parse_weights(weights))
    if style != "detailed":
        refuse_given(("sort", "reverse"), "goes with --style detailed")
    if style in ("shares", "recency-sz-hist", "recency-percentiles"):
        refuse_given(("weights",), "goes with --style detailed or of temperature")
    return found


def parse_weights(text: str) -> tuple[float, float, float]:
    """``HITS,AGE,SIZE`` of ``--weights``; RequestError if it is not that."""
    try:
        hits, age, size = (float(part) for part in text.split(","))
    except ValueError:
        hits = age = size = -1.0
    if not all(0 <= weight <= 1e15 for weight in (hits, age, size)):
        text = f"{text[:40]!r} is not three numbers of at least 0; write e.g. 100,100,0"
        raise RequestError(text, where="--weights")
    return hits, age, size


def report(path: str, choice: Choice, wanted: Wanted, as_json: bool) -> None:
    """Print, for each target, what its probes counted: by attribute over time, or by region in the last snapshot."""
    with opened(path) as reader:
        span = reader.time_range()
        if span is None:
            raise empty(reader, None)
        parts = _within(reader, window_of(choice, span), span[0], choice)
        if not _print(
            _Whose(reader.path, lambda n, s: target_line(reader, n, s.limit, s.ellipsis)), parts, wanted, as_json
        ):
            if choice.target is not None and all(t.target != choice.target for t in reader.info.targets):
                raise empty(reader, choice.target)
            asked = any(entry.name == TABLE for entry in reader.tables())
            why = " of that" if asked else ": none was asked for (record --probe)"
            raise PydamonError(f"has no hits of probes{why}", where=path)


def report_live(name: str, path: str, choice: Choice, wanted: Wanted, as_json: bool) -> None:
    """The same of the last snapshots of the kdamond ``name``, while it runs; ``path`` is what a record would be."""
    from pydamon.service.client import Client

    if path != DEFAULT:
        raise RequestError("is instead of a record", where="--live")
    if choice.from_ns is not None or choice.to_ns is not None:
        raise RequestError("is of the last snapshot; --from and --to are for records", where="--live")
    client = Client(name)
    told = client.hits()
    if told is None:
        raise PydamonError("has no probes; pydamon tune --probe gives it some", where=client.name)
    known = {one.target: one for one in told if choice.target in (None, one.target)}
    if told and not known:
        targets = ", ".join(str(one.target) for one in told[:20])
        raise RequestError(f"{client.name} has no target {choice.target}; its targets are: {targets}", where="--target")

    def line(target: int, screen: Screen) -> str:
        one = known[target]
        who = printable(one.command or f"target {target}") + ("" if one.pid is None else f" (pid {one.pid})")
        return screen.fit(who)

    parts = (_part(one).within(choice.low, choice.high) for one in known.values())
    if not _print(_Whose(client.name, line), parts, wanted, as_json):
        raise PydamonError("has no snapshot with its probes yet; ask again in a moment", where=client.name)


def _part(one: Hits) -> ProbedRegions:
    regions = len(one.start)
    narrow = {name: np.array(getattr(one, name), np.uint32) for name in ("nr_accesses", "age", "samples")}
    return ProbedRegions(
        time_ns=one.time_ns,
        duration_ns=one.duration_ns,
        target=one.target,
        attributes=tuple(one.attributes),
        weights=tuple(one.weights),
        start=np.array(one.start, np.uint64),
        end=np.array(one.end, np.uint64),
        hits=np.array(one.hits, np.uint32).reshape(-1, regions),
        **narrow,
    )


class _Whose(NamedTuple):
    """What hits are of: a record, or a kdamond; and the line that says which target is which."""

    path: str
    line: Callable[[int, Screen], str]


def _print(whose: _Whose, parts: Iterator[ProbedRegions], wanted: Wanted, as_json: bool) -> bool:
    """Print what is asked for; whether there was anything."""
    found = False
    for text in _shares(whose, parts, as_json) if wanted.style == "shares" else _heat(whose, parts, wanted, as_json):
        found = True
        emit(text + "\n")
    return found


def _shares(whose: _Whose, parts: Iterator[ProbedRegions], as_json: bool) -> Iterator[str]:
    """For each probe, how much of the accessed and of the idle memory has the attribute; a text for each target."""
    shares = attribute_shares(parts)
    if not any(share.accessed_total_bytes + share.idle_total_bytes for share in shares):
        return
    for target in dict.fromkeys(share.target for share in shares):
        mine = [share for share in shares if share.target == target]
        if as_json:
            rows = [{name: value for name, value in asdict(share).items() if name != "target"} for share in mine]
            yield json_text({"target": target, "probes": rows})
        else:
            yield "\n".join(_text(whose, target, mine, current_screen()))


# -- the last snapshot ----------------------------------------------------------------------------------------------


def _heat(whose: _Whose, parts: Iterator[ProbedRegions], wanted: Wanted, as_json: bool) -> Iterator[str]:
    """How hot the regions of the last snapshot of each target are; a text for each."""
    last = {part.target: part for part in parts if len(part.start)}
    for target, part in sorted(last.items()):
        heat = attribute_heat(part, wanted.weights)
        probes = [
            {"attribute": attribute, "weight": weight}
            for attribute, weight in zip(part.attributes, heat.weights, strict=True)
        ]
        headings, rows, values = _SHOWN[wanted.style](heat, wanted)
        if as_json:
            head = {"target": target, "time_ns": part.time_ns, "probes": probes}
            yield json_text(head | {"percentiles" if "percent" in wanted.style else "rows": values})
            continue
        screen = current_screen()
        what = ", ".join(f"{probe['attribute']} (weight {probe['weight']})" for probe in probes)
        most = int(part.samples.max())
        details = f"{printable(whose.path)}: the last of the snapshots; of {count(most, 'sample')}: {printable(what)}"
        lines = [
            styled(whose.line(target, screen), BOLD, screen),
            styled(screen.fit(details), DIM, screen),
        ]
        yield "\n".join([*lines, *table(headings, rows, screen)])


Style = Callable[[AttributeHeat, Wanted], "Shown"]  # how it is shown
Shown = tuple[list[str], list[list[str]], list[dict[str, Any]]]  # headings, rows of text, rows for JSON


def _detailed(heat: AttributeHeat, wanted: Wanted) -> Shown:
    order = heat.order(wanted.sort)
    rows, values = [], []
    part = heat.part
    for at in (order[::-1] if wanted.reverse else order).tolist():
        hits, age_ns = part.hits[:, at].tolist(), round(heat.ages_ns[at])
        start, end, degrees = int(part.start[at]), int(part.end[at]), float(heat.temperatures[at])
        rows.append(
            [f"{start:#x}-{end:#x}", format_size(end - start), format_duration_ns(age_ns), *map(str, hits),
             f"{heat.sums[at]:,.0f}", f"{degrees:,.0f}"]
        )  # fmt: skip
        values.append(
            {"start": start, "end": end, "age": int(part.age[at]), "age_ns": age_ns, "hits": hits,
             "samples": int(part.samples[at]), "probe_hits_wsum": round(heat.sums[at]), "temperature": round(degrees)}
        )  # fmt: skip
    each = [f"hits {number}" for number in range(len(part.attributes))]
    return ["range", "size", "age", *each, "weighted hits", "temperature"], rows, values


def _degrees(value: float) -> str:
    return f"{value:,.0f}"


def _time(value: float) -> str:
    return format_duration_ns(round(value))


def _histogram(measure: Callable[[AttributeHeat], F64], words: Callable[[float], str], name: str, unit: str) -> Style:
    def shown(heat: AttributeHeat, wanted: Wanted) -> Shown:
        found = histogram(measure(heat), heat.sizes, _BINS)
        rows = [[f"{words(low)} to {words(high)}", format_size(size)] for low, high, size in found]
        values = [{f"from{unit}": round(low), f"to{unit}": round(high), "bytes": size} for low, high, size in found]
        return [name, "bytes"], rows, values

    return shown


def _percentiles(measure: Callable[[AttributeHeat], F64], words: Callable[[float], str], name: str, unit: str) -> Style:
    def shown(heat: AttributeHeat, wanted: Wanted) -> Shown:
        found = list(zip(_PERCENTS, percentiles(measure(heat), heat.sizes, _PERCENTS), strict=True))
        rows = [[f"{percent} %", words(value)] for percent, value in found]
        return ["of bytes", name], rows, [{"percent": at, f"{name.replace(' ', '_')}{unit}": round(value)}
                                          for at, value in found]  # fmt: skip

    return shown


_OF_HEAT = (lambda heat: heat.temperatures, _degrees, "temperature", "")
_OF_TIME = (lambda heat: heat.idle_ns, _time, "idle time", "_ns")
_SHOWN: dict[str, Style] = {
    "detailed": _detailed,
    "temperature-sz-hist": _histogram(*_OF_HEAT),
    "recency-sz-hist": _histogram(*_OF_TIME),
    "temperature-percentiles": _percentiles(*_OF_HEAT),
    "recency-percentiles": _percentiles(*_OF_TIME),
}


def _within(reader: RecordReader, window: Window, began_ns: int, choice: Choice) -> Iterator[ProbedRegions]:
    """What was counted in the chosen time of the chosen target, cut to the chosen addresses.

    A record that was cut keeps what its tables say of the time before it ``began_ns``: that does not count.
    """
    start_ns = began_ns if window.start_ns is None else max(window.start_ns, began_ns)
    for piece in reader.table(TABLE):
        for part in probed_regions(piece):
            late_enough = part.time_ns > start_ns
            early_enough = window.end_ns is None or part.time_ns - part.duration_ns < window.end_ns
            if late_enough and early_enough and choice.target in (None, part.target):
                yield part.within(choice.low, choice.high)


def _text(whose: _Whose, target: int, shares: list[AttributeShare], screen: Screen) -> list[str]:
    rows = [
        [
            printable(share.attribute),
            _of(share.accessed_bytes + share.idle_bytes, share.accessed_total_bytes + share.idle_total_bytes),
            _of(share.accessed_bytes, share.accessed_total_bytes),
            _of(share.idle_bytes, share.idle_total_bytes),
        ]
        for share in shares
    ]
    total = shares[0].accessed_total_bytes + shares[0].idle_total_bytes
    details = f"{printable(whose.path)}: {count(shares[0].snapshots, 'snapshot')}, {format_size(total)} monitored"
    return [
        styled(whose.line(target, screen), BOLD, screen),
        styled(screen.fit(f"{details}; means, estimated by samples"), DIM, screen),
        *table(["attribute", "of all", "of what was accessed", "of what was idle"], rows, screen),
    ]


def _of(part: int, whole: int) -> str:
    return f"{format_size(part)} ({part / whole:.1%})" if whole else "-"
