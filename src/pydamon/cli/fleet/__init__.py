"""``pydamon fleet``: questions over the memory of many machines. Each verb imports what it needs only when it runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pydamon.cli.completion.values import FILE
from pydamon.cli.fleet.policy import command as policy
from pydamon.cli.help.classes import VerbGroup
from pydamon.cli.options import Quantity, up_to_all
from pydamon.cli.render.output import MODE
from pydamon.errors import RequestError
from pydamon.spec.units import parse_size

if TYPE_CHECKING:
    from pydamon.cli.fleet.asked import Asked

_Verb = TypeVar("_Verb", bound=Callable[..., Any])
LABELS = ("service", "host_class", "host", "cgroup", "pod", "kernel", "version")
OUTCOMES = (
    "resident",
    "cold_600s",
    "cold_3600s",
    "used_600s",
    "used_3600s",
    "returned_600s",
    "refaulted",
    "psi_some_us",
)


def _time(text: str) -> int:
    """Seconds since 1970 of a date, or a date and a time, in UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise RequestError(f"{text[:40]!r} is no time; write it like 2026-11-27 or 2026-11-27T12:00 (UTC)") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def _goal(text: str) -> float:
    return up_to_all(text.strip().removesuffix("/min"))


def _memory(text: str) -> int:
    size = parse_size(text)
    if not 64 << 20 <= size <= 1 << 46:
        raise RequestError(f"{text[:40]!r} is not 64 MiB or more, up to 64 TiB")
    return size


def _days(text: str) -> int:
    number = text.strip().removesuffix("d")
    if not number.isascii() or not number.isdigit() or len(number) > 5:
        raise RequestError(f"{text[:40]!r} is no number of days; write it like 30d")
    return int(number)


_TIME, _DAYS = Quantity("time", _time), Quantity("days", _days)
_MEMORY = Quantity("size", _memory)
_WHERE = (
    click.option("--service", metavar="NAME", help="Only this service."),
    click.option("--class", "host_class", metavar="NAME", help="Only hosts of this class."),
    click.option("--host", metavar="NAME", help="Only this host."),
    click.option("--cgroup", metavar="PATH", help="Only this cgroup."),
    click.option(
        "--from", "start", type=_TIME, metavar="TIME", help="From this time on: 2026-11-27, 2026-11-27T12:00."
    ),
    click.option("--to", "end", type=_TIME, metavar="TIME", help="Up to this time, itself not included (UTC)."),
)
_HOW = (
    click.option("--raw", is_flag=True, help="From rows of minutes, also where there are roll-ups of hours."),
    click.option(
        "--memory", type=_MEMORY, default="1GiB", show_default=True, help="DuckDB may use so much; more goes to disk."
    ),
    click.option(
        "--threads", type=click.IntRange(1, 1024), default=2, show_default=True, help="Of DuckDB; a worker has one."
    ),
    click.option("--workers", type=click.IntRange(0, 1024), default=0, help="Ask by so many processes of Dask."),
    click.option("--cluster", metavar="ADDRESS", help="Ask by the workers of this scheduler of Dask: tcp://host:8786."),
)
_OUTPUT = (
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object; sizes in bytes."),
    click.option("-o", "--output", type=FILE, help="Draw to FILE instead: .png, .svg or .html."),
    MODE,
)


def _asks(verb: _Verb) -> _Verb:
    """The options and the argument that all questions have."""
    for option in reversed((*_WHERE, *_HOW, *_OUTPUT)):
        verb = option(verb)
    return click.argument("path", metavar="DATA")(verb)


def _by(verb: _Verb) -> _Verb:
    return click.option(
        "--by", type=click.Choice(LABELS), default="service", show_default=True, help="What rows are of."
    )(verb)


_TOP = click.option(
    "--top", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="So many rows (of each kind)."
)
_GOAL = click.option(
    "--goal", type=Quantity("share", _goal), default="0.2%/min", show_default=True, metavar="SHARE/min",
    help="At most this share of the working set may come back in a minute.",
)  # fmt: skip
_OUTCOME = click.option(
    "--outcome", "outcomes", type=click.Choice(OUTCOMES), multiple=True, help="Of what; repeatable."
)


@click.group("fleet", cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Ask about the memory of many machines: the data set that their services ship (docs/fleet.md)."""


def _asked(options: dict[str, Any]) -> Asked:
    from pydamon.cli.fleet.asked import Asked

    return Asked.of(options)


@command.command()
@_asks
@_by
@_TOP
def cold(by: str, top: int, **options: Any) -> None:
    """How much memory is cold, of each service and for how long idle."""
    from pydamon.cli.fleet import memory

    _asked(options).show(partial(memory.cold, by=by, top=top))


@command.command()
@_asks
@_by
@_TOP
@_GOAL
def savings(by: str, top: int, goal: float, **options: Any) -> None:
    """What reclaim would save of each service while no more than the goal comes back."""
    from pydamon.cli.fleet import memory

    _asked(options).show(partial(memory.savings, by=by, top=top, goal=goal))


@command.command()
@_asks
@click.option(
    "--window", type=click.Choice(["60", "600", "3600"]), default="3600", show_default=True, help="Used within, in s."
)
def wss(window: str, **options: Any) -> None:
    """How working sets of hosts are distributed in each class of hosts."""
    from pydamon.cli.fleet import memory

    _asked(options).show(partial(memory.working_sets, window_s=int(window)))


@command.command()
@_asks
@_by
@_TOP
@_GOAL
def candidates(by: str, top: int, goal: float, **options: Any) -> None:
    """Which services reclaim, a slower tier and huge pages could do most for."""
    from pydamon.cli.fleet import choices

    _asked(options).show(partial(choices.candidates, by=by, top=top, goal=goal))


@command.command()
@_asks
@_TOP
def rightsize(top: int, **options: Any) -> None:
    """What services have as limit and request, and what they use within an hour and a day."""
    from pydamon.cli.fleet import choices

    _asked(options).show(partial(choices.right_sizes, top=top))


@command.command()
@_asks
def cost(**options: Any) -> None:
    """What monitoring costs the fleet: CPU time and memory, by class of hosts."""
    from pydamon.cli.fleet import choices

    _asked(options).show(choices.cost)


@command.command()
@_asks
@_TOP
@_OUTCOME
@click.option("--z", type=click.FloatRange(1), default=5.0, show_default=True, help="Robust standard deviations.")
def outliers(top: int, outcomes: tuple[str, ...], z: float, **options: Any) -> None:
    """Hosts on which a service is not as on others of their class."""
    from pydamon.cli.fleet import differences

    _asked(options).show(partial(differences.outliers, top=top, outcomes=outcomes, least_z=z))


@command.command()
@_asks
@_OUTCOME
@click.option("--rollout", required=True, metavar="LABEL=VALUE", help="What hosts got, like kernel=6.18.2.")
def compare(outcomes: tuple[str, ...], rollout: str, **options: Any) -> None:
    """What a rollout changed, before and after, beside hosts that did not get it (95 % intervals)."""
    from pydamon.cli.fleet import differences

    _asked(options).show(partial(differences.compare, rollout=rollout, outcomes=outcomes))


@command.command()
@click.argument("path", metavar="DATA")
@click.option("--keep", type=_DAYS, metavar="DAYS", help="Delete minutes and regions that are older, like 30d.")
@click.option("--keep-hours", type=_DAYS, metavar="DAYS", help="Delete roll-ups that are older, like 400d.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes.  [default: all CPUs]")
@click.option("--memory", type=_MEMORY, default="1GiB", show_default=True, help="Of all of them; more goes to disk.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compact(**options: Any) -> None:
    """Put small files together, without what is there twice or cannot be true, and roll hours up."""
    from pydamon.cli.fleet import making

    making.compact(**options)


@command.command()
@click.argument("path", metavar="DIR")
@click.option("--hosts", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="How many.")
@click.option("--cgroups", type=click.IntRange(1, 10_000), default=50, show_default=True, help="On each host.")
@click.option("--days", type=click.FloatRange(1 / 1440, 366), default=1.0, show_default=True, help="How long.")
@click.option("--until", type=_TIME, metavar="TIME", help="The end of the last day.  [default: the last midnight, UTC]")
@click.option("--pieces", type=click.IntRange(1, 1440), default=1, show_default=True, help="Files per date and bucket.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Another fleet.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes.  [default: all CPUs]")
def simulate(**options: Any) -> None:
    """Write a simulated fleet into a new folder, with truth.json: what the right answers are."""
    from pydamon.cli.fleet import making

    making.simulate(**options)


command.add_command(policy)
