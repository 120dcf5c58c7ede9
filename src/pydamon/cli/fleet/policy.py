"""``pydamon fleet policy``: one setting of a policy for each service, from recordings of many hosts."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from pydamon import lean
from pydamon.cli.completion.values import FILE, RECORD
from pydamon.cli.help.classes import Verb
from pydamon.cli.options import Quantity, up_to_all
from pydamon.errors import PydamonError, RequestError, located

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pydamon.cli.render.screen import Screen
    from pydamon.fleet.policies import Found, Policy, Question
    from pydamon.fleet.tasks import Tasks

_MOST_SHOWN = 10  # recordings that were left out, by name


@click.command("policy", cls=Verb)
@click.argument("places", nargs=-1, required=True, metavar="FILE|FOLDER...", type=RECORD)
@click.option("--search", "text", required=True, metavar="TEXT", help="A module or scheme with LOW..HIGH or A|B in it.")
@click.option(
    "--limit", "limits", multiple=True, metavar="LIMIT", help="As for what-if; repeatable.  [default: slowdown=2%]"
)
@click.option(
    "--share",
    type=Quantity("share", up_to_all),
    default="95%",
    show_default=True,
    help="On how many of a service's recordings the limits must hold.",
)
@click.option(
    "--by",
    type=click.Choice(["command", "folder"]),
    default="command",
    show_default=True,
    help="What makes a service: the program that is recorded, or the folder that its recordings are in.",
)
@click.option(
    "--play",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    help="On how many recordings of a service, where it costs most, a setting is played again.",
)
@click.option("--costs", type=FILE, help="What things cost (JSON or YAML), as for what-if.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of what is played.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes here.  [default: all CPUs]")
@click.option("--cluster", metavar="ADDRESS", help="A Dask scheduler (tcp://HOST:PORT), whose workers see the files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-o", "--output", type=FILE, help="Write a service file (.yaml) of what was found.")
def command(places: tuple[str, ...], output: str | None, as_json: bool, **options: Any) -> None:
    """Find one setting of a policy for each service, on recordings of many hosts.

    Each recording says what every setting would save and cost. A service gets the one that saves most of those that
    keep within the limits on --share of its recordings, by the first 70 % of each; it is played again where it costs
    most, and judged on the rest. With -o it becomes a file for pydamon service. It exits with 1 where a service has no
    setting within the limits.
    """
    with lean.imports():
        from pydamon.cli.files import load_costs
        from pydamon.fleet.policies import Question, recordings_in, search
        from pydamon.library.search import USUAL_LIMIT
        from pydamon.spec.costs import Costs

    text, limits = options["text"], options["limits"]
    _check(text, limits, output)
    question = Question(
        text=text,
        limits=limits or (USUAL_LIMIT,),
        share=options["share"],
        by=options["by"],
        play=options["play"],
        seed=options["seed"],
        costs=Costs() if options["costs"] is None else load_costs(options["costs"]),
    )
    paths = recordings_in(places)
    with _tasks(options["jobs"], options["cluster"]) as tasks:
        found = search(paths, question, tasks)
    _show(found, output, as_json)


def _check(text: str, limits: tuple[str, ...], output: str | None) -> None:
    from pydamon.analysis.search.limits import parse_limit
    from pydamon.analysis.search.space import parse_space

    with located("--limit", ": "):
        for limit in limits:
            parse_limit(limit)
    with located("--search", ": "):
        parse_space(text)
    if output is not None and not output.endswith((".yaml", ".yml")):
        raise RequestError(f"{output[-60:]!r} must end in .yaml: it becomes a file for pydamon service", where="-o")


def _tasks(jobs: int | None, cluster: str | None) -> AbstractContextManager[Tasks]:
    from pydamon.fleet.tasks import Here, on_cluster

    if cluster is None:
        return nullcontext(Here(jobs))
    if jobs is not None:
        raise RequestError("is of this machine, and --cluster has its own workers: give one of them", where="--jobs")
    return on_cluster(cluster)


def _show(found: Found, output: str | None, as_json: bool) -> None:
    from pydamon.cli.render.output import write_public
    from pydamon.cli.render.screen import current_screen, echo, emit, emit_json, warn
    from pydamon.fleet.policy_file import service_file

    if as_json:
        emit_json(_values(found))
    else:
        emit(_text(found, current_screen()))
    remarks = _remarks(found)
    if output is not None and any(one.text is not None for one in found.policies):
        text, more = service_file(found, output)
        write_public(output, text)
        remarks += more
        if not as_json:
            echo(f"wrote {output}")
    warn(remarks)
    without = [one.service for one in found.policies if one.text is None]
    if without:
        raise PydamonError(f"{len(without)} of {len(found.policies)} services have no setting within the limits")


def _text(found: Found, screen: Screen) -> str:
    from pydamon.cli.render.palette import BOLD, DIM, styled
    from pydamon.cli.render.table import table
    from pydamon.plain import printable
    from pydamon.spec.units import format_size

    question = found.question
    lines = [
        styled(screen.fit(f"{printable(question.text)}: {found.settings} settings"), BOLD, screen),
        styled(screen.fit(_rule(question)), DIM, screen),
    ]
    rows = [
        [
            printable(one.service),
            printable(one.nearest) if one.text is not None else "none within the limits",
            f"{one.recordings:,}",
            format_size(round(one.saved)),
            _of(one.saved, one.memory),
            f"{one.within} ({one.share[0]:.0%} to {one.share[1]:.0%})",
            "-" if math.isnan(one.usual_saved) else _of(one.usual_saved, one.memory),
        ]
        for one in found.policies
    ]
    headings = ["service", "setting", "recordings", "saved", "of its memory", "kept within on", "the default saves"]
    return "\n".join([*lines, *table(headings, rows, screen, 2)]) + "\n"


def _rule(question: Question) -> str:
    from pydamon.cli.render.axes import percent

    limits, share = " and ".join(question.limits), percent(question.share)
    return f"within {limits} on {share} of the recordings; chosen by the first 70 %, judged on the rest"


def _of(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _remarks(found: Found) -> list[str]:
    from pydamon.plain import printable

    lines = [f"{printable(one.path)}: {one.reason}" for one in found.left_out[:_MOST_SHOWN]]
    if len(found.left_out) > _MOST_SHOWN:
        lines.append(f"{len(found.left_out) - _MOST_SHOWN:,} more recordings are left out")
    for one in found.policies:
        if one.recordings * (1 - found.question.share) < 1 < one.recordings and found.question.share < 1:
            lines.append(
                f"{printable(one.service)}: {one.recordings} recordings are few: the limits hold on all of them"
            )
        if one.recordings == 1:
            lines.append(f"{printable(one.service)}: one recording says nothing of other hosts")
    return lines


def _values(found: Found) -> dict[str, Any]:
    """Sizes in bytes, times in h, costs as times the limit."""
    return {
        "search": found.question.text,
        "limits": list(found.question.limits),
        "share": found.question.share,
        "settings": found.settings,
        "services": [_service(one) for one in found.policies],
        "left_out": [{"recording": one.path, "reason": one.reason} for one in found.left_out],
    }


def _service(one: Policy) -> dict[str, Any]:
    usual = None if math.isnan(one.usual_saved) else {"saved_bytes": round(one.usual_saved), "within": one.usual_within}
    return {
        "service": one.service,
        "recordings": one.recordings,
        "hours": one.hours,
        "memory_bytes": round(one.memory),
        "policy": one.text,
        "nearest": one.nearest,
        "rest": {"saved_bytes": round(one.saved), "within": one.within, "within_share": list(one.share)},
        "default": usual,
        "played": [{"recording": p.path, "cost": p.excess, "foretold": p.foretold} for p in one.played],
        "more_careful": one.careful,
    }
