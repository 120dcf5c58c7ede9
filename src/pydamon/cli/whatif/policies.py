"""Policies that are tried on a recording: how they are given; the table, JSON and picture of what they did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydamon.analysis.whatif.costs import lost
from pydamon.analysis.whatif.playable import always_active, of_module
from pydamon.cli.files import schemes_in, schemes_of
from pydamon.cli.render.axes import percent
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen
from pydamon.cli.render.table import table
from pydamon.cli.whatif.showing import Shown, age_words, size_words, thrash_line
from pydamon.errors import RequestError, located
from pydamon.plain import printable
from pydamon.spec import Scheme
from pydamon.spec.costs import BACKINGS, Backing, Costs
from pydamon.spec.schemes import validate_schemes
from pydamon.spec.units import format_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pydamon.analysis.whatif.answers import Answers
    from pydamon.library.policies import Outcome, Recording
    from pydamon.records.reader import RecordReader

MOST = 16


@dataclass(frozen=True, slots=True)
class Policy:
    """Schemes together, under a name."""

    name: str
    schemes: tuple[Scheme, ...]


def policies(files: tuple[str, ...], texts: tuple[str, ...], modules: tuple[str, ...]) -> list[Policy]:
    """Those of each file, each short form and each module. Raises RequestError naming where it was given."""
    found = [Policy(path, schemes_in(path, "sim")) for path in files]
    found += [Policy(text, schemes_of(text, "sim")) for text in texts]
    for text in modules:
        with located("--module", ": "):
            found.append(Policy(text, of_module(text)))
    if len(found) > MOST:
        raise RequestError(f"{len(found)} policies are too many; the most is {MOST}", where="--schemes")
    for policy in found:
        with located(policy.name, ": "):
            validate_schemes(policy.schemes, ops="sim", nr_targets=1)
            if not policy.schemes:
                raise RequestError("has no scheme: there is nothing to try")
    return found


def tried(
    reader: RecordReader, found: Answers, recording: Recording, wanted: list[Policy], goal: float, costs: Costs
) -> Shown:
    """What they do to the recording, which is played under each of them."""
    outcomes = [recording.play(policy.name, [always_active(one) for one in policy.schemes]) for policy in wanted]
    always = [policy.name for policy in wanted if any(one != always_active(one) for one in policy.schemes)]
    said = remarks(found, recording, outcomes, always, goal)

    def figure() -> Figure:
        from pydamon.cli.render.policies_figure import policies_figure

        return policies_figure(outcomes, printable(reader.path))

    return Shown(
        text=lambda screen: _text(reader, found, recording, outcomes, costs, screen),
        values=lambda: _object(reader, found, recording, outcomes, costs, said),
        figure=figure,
        title="What if: policies",
        remarks=said,
    )


def _text(
    reader: RecordReader,
    found: Answers,
    recording: Recording,
    outcomes: list[Outcome],
    costs: Costs,
    screen: Screen,
) -> str:
    lines = [styled(screen.fit(f"{printable(reader.path)} under these policies"), BOLD, screen)]
    about = f"{age_words(recording.lasting_s)}, {format_size(recording.bytes)} of memory, played "
    lines.append(styled(screen.fit(about + "again on the simulated machine; what is taken comes back"), DIM, screen))
    headings = ["policy", "saved", "back a minute", "worst minute", "of w. set", "lost zram", "SSD", "paged out"]
    rows = []
    for one in outcomes:
        waits = [percent(_lost(one, costs, backing)) for backing in BACKINGS]
        sizes = [size_words(size) for size in (one.saved, one.per_minute, one.worst_minute)]
        share = percent(found.share(one.per_minute))
        rows.append([printable(one.name), *sizes, share, *waits, format_size(one.out)])
    return "\n".join([*lines, *table(headings, rows, screen)]) + "\n"


def _lost(one: Outcome, costs: Costs, backing: Backing) -> float:
    length_s = max(float(one.seconds[-1]), 1e-9) if len(one.seconds) else 1.0
    return lost(costs, backing, one.per_minute / 60, one.out / length_s)


def remarks(found: Answers, recording: Recording, outcomes: list[Outcome], always: list[str], goal: float) -> list[str]:
    """What has to be said beside it, a line each; ``always`` are those whose watermarks are left out."""
    lines = []
    for one in outcomes:
        share = found.share(one.per_minute)
        if share > goal:
            lines.append(thrash_line(one.name, share, goal))
        if not one.out:
            lines.append(f"{one.name} took nothing: no memory was as it wants it")
    if always:
        names = ", ".join(always)
        lines.append(f"played as if always active, since nothing says how much memory was free: {names}")
    if not recording.has_panel:
        lines.append("there is no page panel: single pages that come back in idle regions are not played")
    return lines


def _object(
    reader: RecordReader,
    found: Answers,
    recording: Recording,
    outcomes: list[Outcome],
    costs: Costs,
    said: list[str],
) -> dict[str, Any]:
    """As one JSON object; sizes in bytes, refaults in bytes per minute, shares as fractions."""
    told = [
        {
            "policy": one.name,
            "saved_bytes": round(one.saved),
            "refaults": round(one.per_minute),
            "worst_minute_bytes": round(one.worst_minute),
            "working_set_share": found.share(one.per_minute),
            "lost": {backing: _lost(one, costs, backing) for backing in BACKINGS},
            "paged_out_bytes": one.out,
            "seconds": one.seconds.tolist(),
            "resident_bytes": [round(size) for size in one.resident.tolist()],
        }
        for one in outcomes
    ]
    about = {"record": reader.path, "target": recording.target, "memory_bytes": recording.bytes}
    return about | {"working_set_bytes": round(found.working_set), "policies": told, "remarks": said}
