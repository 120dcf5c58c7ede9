"""Outliers, and what a rollout changed, shown."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydamon.cli.fleet.asked import Shown
from pydamon.cli.fleet.words import drawn, more_line, name_words, size_words, titled
from pydamon.cli.render.bars import TWO, Bar, Bars, Legend
from pydamon.cli.render.screen import Screen
from pydamon.errors import RequestError
from pydamon.fleet.asking import Data
from pydamon.fleet.questions import differences
from pydamon.fleet.statistics import Interval
from pydamon.fleet.where import Where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pydamon.fleet.questions.differences import Effect

_DEFAULT = ("resident", "cold_600s", "returned_600s")
_DEFAULT_COMPARED = ("resident", "cold_600s", "used_600s", "returned_600s")
_MOST_DRAWN = 40


def _amount(value: float, outcome: str) -> str:
    unit = differences.UNITS[outcome]
    if unit == "us/min":
        return f"{value:.3g} us/min"
    return size_words(value) + ("/min" if unit == "bytes/min" else "")


def outliers(data: Data, where: Where, top: int, outcomes: tuple[str, ...], least_z: float) -> Shown:
    """Hosts that are not like others."""
    rows, found = differences.outliers(data, where, outcomes or _DEFAULT, least_z)
    title = "Hosts unlike others of their class"

    def text(screen: Screen) -> list[str]:
        cells = [
            [name_words(row.host), name_words(row.service), name_words(row.host_class), row.outcome,
             _amount(row.value, row.outcome), _amount(row.usual, row.outcome), f"{row.z:+.1f}"]
            for row in rows[:top]
        ]  # fmt: skip
        headings = ["host", "service", "class", "of", "here", "usual", "z"]
        about = f"{least_z:g} robust standard deviations or more from the median of the service in the class"
        return titled(title, about, headings, cells, screen, 4) + more_line(len(rows) - top, screen)

    def values() -> dict[str, Any]:
        told = [
            {"host": row.host, "service": row.service, "host_class": row.host_class, "outcome": row.outcome,
             "unit": differences.UNITS[row.outcome], "value": row.value, "median": row.usual, "robust_z": row.z}
            for row in rows
        ]  # fmt: skip
        return {"least_z": least_z, "rows": told}

    def figure() -> Figure:
        held = [row for row in rows if differences.UNITS[row.outcome] != "us/min"][: min(top, _MOST_DRAWN)]
        bars = [Bar(f"{name_words(row.host)} {name_words(row.service)} {row.outcome}", [row.usual, row.value],
                    f"z {row.z:+.1f}") for row in held]  # fmt: skip
        return drawn([Bars(title, "", bars)], Legend("bytes", ["usual", "here"], TWO, beside=True))

    return Shown(text, values, figure, title, found)


def compare(data: Data, where: Where, rollout: str, outcomes: tuple[str, ...]) -> Shown:
    """What a rollout changed."""
    label, sign, value = rollout.partition("=")
    if not sign or not value:
        raise RequestError(f"{rollout[:40]!r} names no value; write it like kernel=6.18.2", where="--rollout")
    rows, it, found = differences.compare(data, label, value, where, outcomes or _DEFAULT_COMPARED)
    when = datetime.fromtimestamp(it.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    title = f"What {name_words(label)} {name_words(value)} changed"
    method = f"difference in differences of {it.hosts} hosts that got it and {it.control} that did not"
    if not it.control:
        method = f"paired differences of {it.hosts} hosts; all got it, so the time of day is in them"

    def text(screen: Screen) -> list[str]:
        cells = [
            [name_words(row.service), row.outcome, _amount(row.before, row.outcome), _amount(row.after, row.outcome),
             _amount(row.effect.value, row.outcome), _between(row, row.effect), _share(row.relative.value),
             f"{_share(row.relative.low)} .. {_share(row.relative.high)}", "*" if _clear(row.relative) else ""]
            for row in rows
        ]  # fmt: skip
        headings = ["service", "of a host", "before", "after", "effect", "95 %", "relative", "95 %", ""]
        return titled(title, f"at {when}; {method}; *: 0 is not within", headings, cells, screen, 2)

    def values() -> dict[str, Any]:
        told = [
            {
                "service": row.service, "outcome": row.outcome, "unit": differences.UNITS[row.outcome],
                "hosts": row.hosts, "control_hosts": row.control, "before": row.before, "after": row.after,
                "effect": _told(row.effect), "relative": _told(row.relative),
            }
            for row in rows
        ]  # fmt: skip
        about = {"label": label, "value": value, "at_s": it.at, "hosts": it.hosts, "control_hosts": it.control}
        return {"rollout": about, "method": method, "rows": told}

    def figure() -> Figure:
        bars = [
            Bar(f"{name_words(row.service)} {row.outcome}", [row.before, row.after],
                f"{_share(row.relative.low)} .. {_share(row.relative.high)}{' *' if _clear(row.relative) else ''}")
            for row in rows if differences.UNITS[row.outcome] != "us/min"
        ][:_MOST_DRAWN]  # fmt: skip
        legend = Legend("bytes of a host", ["before", "after"], TWO, beside=True)
        return drawn([Bars(title, f"at {when}; 95 % intervals; *: 0 is not within", bars, [method])], legend)

    one_sided = (f"left out {it.one_sided} hosts that have no before or no after (new, gone or renamed)",)
    return Shown(text, values, figure, title, found, one_sided if it.one_sided else ())


def _between(row: Effect, found: Interval) -> str:
    if not math.isfinite(found.low):
        return "?"
    return f"{_amount(found.low, row.outcome)} .. {_amount(found.high, row.outcome)}"


def _share(value: float) -> str:
    return f"{value:+.1%}" if math.isfinite(value) and value < 100 else "?"


def _clear(found: Interval) -> bool:
    return found.low > 0 or found.high < 0


def _told(found: Interval) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in found._asdict().items()}
