"""What a search has found, as text, JSON and a picture, and what has to be said beside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydamon.analysis.search.frontier import Candidate, Verified
from pydamon.analysis.search.limits import Judge, Limit
from pydamon.analysis.search.screen import Burden
from pydamon.analysis.whatif.answers import FEW_HITS
from pydamon.cli.render.axes import percent
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen
from pydamon.cli.render.table import table
from pydamon.cli.whatif.showing import Shown, acted_line, age_words, size_words, thrash_line
from pydamon.errors import PydamonError
from pydamon.library.search import Changed, Found
from pydamon.plain import printable
from pydamon.records.reader import RecordReader

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 14  # of the frontier as text


def searched(reader: RecordReader, found: Found, goal: float, acted: list[str], why_no_panel: str) -> Shown:
    """The ways to show it; ``goal`` is the share of the working set a minute beyond which a policy thrashes."""
    said = remarks(found, goal, acted, why_no_panel)

    def figure() -> Figure:
        from pydamon.cli.render.search_figure import search_figure

        return search_figure(found, printable(reader.path))

    return Shown(
        text=lambda screen: _text(reader, found, screen),
        values=lambda: _object(reader, found, said),
        figure=figure,
        title=f"Search: {printable(found.space.source)}",
        remarks=said,
    )


def out_of_reach(found: Found) -> PydamonError | None:
    """What is wrong where no setting keeps within the limits: how near the nearest comes."""
    if found.chosen is not None:
        return None
    near, judge = found.nearest, found.judge
    beyond = max(judge.limits, key=lambda limit: judge.cost(limit, near.tuned) / limit.value)
    cost = cost_words(beyond, judge.cost(beyond, near.tuned))
    text = f"no setting keeps within {beyond.text}; the nearest, {printable(near.candidate.text)!r}, has {cost}"
    return PydamonError(text, where="--limit")


def cost_words(limit: Limit, cost: float) -> str:
    """A cost in the unit of the limit."""
    if limit.kind == "refault-bytes":
        return f"{size_words(cost)}/s"
    return percent(cost) + ("/min" if limit.kind == "refaults" else "")


# -- text ---------------------------------------------------------------------------------------------------------


def _text(reader: RecordReader, found: Found, screen: Screen) -> str:
    title = f"{printable(found.space.source)} on {printable(reader.path)}"
    lines = [styled(screen.fit(title), BOLD, screen)]
    lines += [styled(screen.fit(line), DIM, screen) for line in _details(found)]
    lines += _front(found, screen)
    lines += ["", *_played(found, screen), ""]
    lines += [screen.fit(line) for line in conclusions(found)]
    return "\n".join([*lines, command(found)]) + "\n"


def _details(found: Found) -> list[str]:
    first, rest = age_words(found.tuned_s), age_words(found.rest_s)
    played = len(found.verified) + (found.usual is not None)
    limits = " and ".join(limit.text for limit in found.judge.limits)
    return [
        f"chosen by the first {first}, judged on the {rest} after that; saves most within {limits}",
        f"{found.screened:,} settings screened in {age_words(found.screening_s)}, {played} played again in "
        f"{age_words(found.playing_s)}",
    ]


def _front(found: Found, screen: Screen) -> list[str]:
    """Some points of the frontier, the last included."""
    knobs = found.space.knobs
    headings = [*(knob.name for knob in knobs), "saved", "back a minute", *_cost_headings(found.judge)]
    rows = []
    for one in _some(found.front, found.judge):
        values = [knob.write(value) for knob, value in zip(knobs, one.point, strict=True)]
        rows.append([*values, *_cells(found.judge, one.foretold.tuned)])
    what = "refaults" if found.judge.limits[0].kind.startswith("refault") else "slowdown"
    line = f"the frontier, as it is foretold: nothing saves more at the same {what}"
    return [screen.fit(line), *table(headings, rows, screen, len(knobs))]


def _some(front: Sequence[Candidate], judge: Judge) -> list[Candidate]:
    """At most `_ROWS`, evenly by what they save."""
    if len(front) <= _ROWS:
        return list(front)
    low, high = (front[end].foretold.tuned.saved for end in (0, -1))
    wanted = [low + (high - low) * at / (_ROWS - 1) for at in range(_ROWS)]
    nearest = [min(front, key=lambda one: abs(one.foretold.tuned.saved - size)) for size in wanted]
    return list(dict.fromkeys(nearest))


def _played(found: Found, screen: Screen) -> list[str]:
    headings = ["played again", "saved", "back a minute", *_cost_headings(found.judge)]
    headings += ["on the rest: saved", "back a minute", *_cost_headings(found.judge)]
    rows = []
    for one in sorted(found.verified, key=lambda one: one.tuned.saved):
        mark = "* " if one is found.chosen else "  "
        rows.append([mark + printable(one.candidate.text), *_both(found.judge, one)])
    if found.usual is not None:
        rows.append([f"  {printable(found.usual.candidate.text)} (default)", *_both(found.judge, found.usual)])
    return table(headings, rows, screen)


def _both(judge: Judge, one: Verified) -> list[str]:
    return [*_cells(judge, one.tuned), *_cells(judge, one.rest)]


def _cost_headings(judge: Judge) -> list[str]:
    names = {"slowdown": "lost zram", "slowdown-ssd": "lost SSD", "refaults": "of w. set", "refault-bytes": "back"}
    return [names[limit.kind] for limit in judge.limits]


def _cells(judge: Judge, burden: Burden) -> list[str]:
    costs = [cost_words(limit, judge.cost(limit, burden)) for limit in judge.limits]
    return [size_words(burden.saved), size_words(burden.back), *costs]


def conclusions(found: Found) -> list[str]:
    """The chosen setting, how far the default is from it, and what half and twice of each knob make of it."""
    best, judge = found.nearest, found.judge
    what = "chosen" if found.chosen is not None else "the nearest, beyond the limit"
    lines = [
        f"{what}: {printable(best.candidate.text)}: saves {size_words(best.tuned.saved)}, on the rest "
        f"{size_words(best.rest.saved)} with {_cost_list(judge, best.rest)}"
    ]
    if found.usual is not None:
        lines.append(_default(found, best, found.usual))
    lines += _sensitivity(found, best)
    return lines


def _default(found: Found, best: Verified, usual: Verified) -> str:
    if best is usual:
        return "that is the default: nothing that was searched is better"
    share = usual.rest.saved / best.rest.saved if best.rest.saved else 1.0
    text = f"the default saves {percent(share)} of that on the rest ({size_words(usual.rest.saved)}), with "
    return text + _cost_list(found.judge, usual.rest)


def _sensitivity(found: Found, best: Verified) -> list[str]:
    """A line for each knob."""
    lines = []
    for knob in dict.fromkeys(one.knob for one in found.near):
        mine = [_change(found, best, one) for one in found.near if one.knob == knob]
        lines.append(f"{knob}: {'; '.join(mine)}")
    return lines


def _change(found: Found, best: Verified, one: Changed) -> str:
    words = f"{'half' if one.times < 1 else 'twice'} of it ({one.text}) "
    if one.foretold is None:
        return words + "cannot be told"
    now = best.candidate.foretold.tuned
    more = one.foretold.saved / now.saved - 1 if now.saved else 0.0
    saves = f"{percent(abs(more))} {'more' if more > 0 else 'less'}" if abs(more) >= 0.0005 else "as much"
    return f"{words}saves {saves}, {_cost_list(found.judge, one.foretold)}"


def _cost_list(judge: Judge, burden: Burden) -> str:
    names = {"slowdown": " lost", "slowdown-ssd": " lost to an SSD", "refaults": " of the working set back"}
    return ", ".join(
        cost_words(limit, judge.cost(limit, burden)) + names.get(limit.kind, " back") for limit in judge.limits
    )


def command(found: Found) -> str:
    """The line that uses it."""
    option = "--module" if found.space.module else "--scheme"
    return f"pydamon start {option} {shlex.quote(printable(found.nearest.candidate.text))}"


# -- remarks ------------------------------------------------------------------------------------------------------


def remarks(found: Found, goal: float, acted: list[str], why_no_panel: str) -> list[str]:
    """What makes it less sure, a line each."""
    lines = []
    if not found.has_panel:
        lines.append(
            f"there is no page panel ({why_no_panel}): screened by regions, which miss most of the single pages that "
            "come back, and these are not played"
        )
    if acted:
        lines.append(acted_line(acted))
    if found.left_out:
        lines.append(
            f"{found.left_out:,} settings wait for longer than {age_words(found.longest_s)}, of which the first "
            f"{age_words(found.tuned_s)} tell too little: left out; record longer"
        )
    lines += [*_of_the_best(found, goal), *_at_the_edge(found)]
    if found.space.module:
        lines.append(
            "searched as if always active, since nothing says how much memory was free: watermarks are left out"
        )
    return lines


def _of_the_best(found: Found, goal: float) -> list[str]:
    lines, best, judge = [], found.nearest, found.judge
    share = best.rest.back / judge.working_set if judge.working_set else 0.0
    if share > goal:
        lines.append(thrash_line(printable(best.candidate.text), share, goal))
    if found.chosen is not None and not judge.fits(best.rest):
        lines.append(f"on the rest it costs more than it may: {_cost_list(judge, best.rest)}; the program changes")
    row = next((row for row in found.answers.rows if row.age_s >= best.candidate.age_s), None)
    if row is not None and row.hits is not None and row.hits < FEW_HITS:
        lines.append(f"that rests on {row.hits} returns only: record longer, or take a larger panel")
    return lines


def _at_the_edge(found: Found) -> list[str]:
    """Knobs whose best value is an end of what was searched, where more might be better still."""
    lines = []
    for knob, value in zip(found.space.knobs, found.nearest.candidate.point, strict=False):
        if knob.kind == "choice" or value not in (knob.low, knob.high):
            continue
        end, beyond = ("lowest", "below") if value == knob.low else ("highest", "above")
        lines.append(f"{knob.name}: {knob.write(value)} is the {end} that was searched; what is {beyond} may be better")
    return lines


# -- JSON ---------------------------------------------------------------------------------------------------------


def _object(reader: RecordReader, found: Found, said: list[str]) -> dict[str, Any]:
    """As one JSON object; sizes in bytes, refaults in bytes per minute, times in s, costs in the unit of each limit."""
    judge, best = found.judge, found.nearest
    return {
        "record": reader.path,
        "search": found.space.source,
        "seed": found.seed,
        "limits": [{"limit": limit.text, "kind": limit.kind, "value": limit.value} for limit in judge.limits],
        "tuned_s": found.tuned_s,
        "rest_s": found.rest_s,
        "working_set_bytes": round(judge.working_set),
        "screened": found.screened,
        "left_out": found.left_out,
        "screening_s": found.screening_s,
        "playing_s": found.playing_s,
        "frontier": [_candidate(found, one) for one in found.front],
        "played": [_verified(found, one) for one in found.verified],
        "default": None if found.usual is None else _verified(found, found.usual),
        "chosen": None if found.chosen is None else _verified(found, found.chosen),
        "nearest": _verified(found, best),
        "sensitivity": [
            {
                "knob": one.knob,
                "times": float(one.times),
                "value": one.text,
                "foretold": None if one.foretold is None else _burden(judge, one.foretold),
            }
            for one in found.near
        ],
        "command": command(found),
        "remarks": said,
    }


def _candidate(found: Found, one: Candidate) -> dict[str, Any]:
    knobs = {knob.name: knob.write(value) for knob, value in zip(found.space.knobs, one.point, strict=False)}
    foretold = {"tuned": _burden(found.judge, one.foretold.tuned), "rest": _burden(found.judge, one.foretold.rest)}
    return {"policy": one.text, "knobs": knobs, "foretold": foretold}


def _verified(found: Found, one: Verified) -> dict[str, Any]:
    played = {"tuned": _burden(found.judge, one.tuned), "rest": _burden(found.judge, one.rest)}
    return _candidate(found, one.candidate) | {"played": played, "within": found.judge.fits(one.tuned)}


def _burden(judge: Judge, burden: Burden) -> dict[str, Any]:
    return {
        "saved_bytes": round(burden.saved),
        "refaults": round(burden.back),
        "paged_out_per_minute": round(burden.out),
        "costs": [judge.cost(limit, burden) for limit in judge.limits],
    }
