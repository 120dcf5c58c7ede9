"""``pydamon report``: what a record says. Each verb imports what it needs only when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

# As records.schema.DEFAULT_NAME, which would import pyarrow.
_DEFAULT_INPUT = "pydamon.damon"

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def _common(verb: _Verb) -> _Verb:
    """The options that every report has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON: integers, times in ns, sizes in bytes."),
        click.option("--target", type=int, metavar="N", help="Only this target of the record (they count from 0)."),
        click.option(
            "-i", "--input", "path", metavar="FILE", default=_DEFAULT_INPUT, show_default=True, help="The record."
        ),
    ):
        verb = option(verb)
    return verb


@click.group(subcommand_metavar="REPORT [OPTIONS]")
def command() -> None:
    """Show what a record says about which memory was accessed, and how often."""


@command.command()
@_common
def access(path: str, target: int | None, as_json: bool) -> None:
    """The last snapshot: each range, its size, access rate, age, and what is mapped there."""
    from pydamon.cli.report.access import report

    report(path, target, as_json)


@command.command()
@_common
@click.option(
    "--range",
    "addresses",
    metavar="RANGE",
    default="auto",
    help="Addresses to show: hottest (where most accesses are), all (everything monitored), or START-END, decimal or "
    "0x. Default: what was accessed, without the gaps.",
)
@click.option("-o", "--output", metavar="FILE", help="Draw to FILE instead: .png or .svg.")
def heatmap(path: str, target: int | None, as_json: bool, addresses: str, output: str | None) -> None:
    """Which addresses were accessed how much, when: a picture of time and addresses."""
    from pydamon.cli.report.heatmap import report

    report(path, target, as_json, addresses, output)


@command.command()
@_common
@click.option(
    "--percentiles",
    metavar="P,P,…",
    default="0,25,50,75,100",
    show_default=True,
    help="Percentiles of the working set sizes to show.",
)
@click.option(
    "--min-accesses",
    type=click.IntRange(min=0),
    metavar="N",
    default=1,
    show_default=True,
    help="Count regions with at least N accesses per aggregation.",
)
@click.option("--over", type=click.Choice(["time"]), help="Show the working set over time.")
@click.option("-o", "--output", metavar="FILE", help="Draw to FILE instead: .png or .svg.")
def wss(
    path: str,
    target: int | None,
    as_json: bool,
    percentiles: str,
    min_accesses: int,
    over: str | None,
    output: str | None,
) -> None:
    """How much memory was in use: the distribution of the working set size."""
    from pydamon.cli.report.wss import report

    report(path, target, as_json, percentiles, min_accesses, over == "time", output)


@command.command()
@_common
def regions(path: str, target: int | None, as_json: bool) -> None:
    """Every region of every snapshot, raw, in the order of time."""
    from pydamon.cli.report.regions import report

    report(path, target, as_json)
