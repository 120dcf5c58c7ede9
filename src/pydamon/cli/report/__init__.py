"""``pydamon report``: what a record says. Each verb imports what it needs only when it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pydamon import lean
from pydamon.cli.completion.values import FILE, RECORD, kdamonds
from pydamon.cli.help.classes import VerbGroup
from pydamon.cli.inputs import DEFAULT, reads_record, two_records
from pydamon.cli.render.output import MODE
from pydamon.cli.report.choice import ADDRESSES, AGES, RATES, SHARE, SIZES, WHEN, choice, counted, windowed
from pydamon.errors import RequestError

STYLES = (
    "shares", "detailed", "temperature-sz-hist", "recency-sz-hist", "temperature-percentiles", "recency-percentiles",
)  # fmt: skip

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def _common(verb: _Verb) -> _Verb:
    """The options that every report has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON: integers, times in ns, sizes in bytes."),
        click.option("--target", type=int, metavar="N", help="Only this target of the record (they count from 0)."),
    ):
        verb = option(verb)
    return reads_record(verb)


def _drawn(verb: _Verb) -> _Verb:
    """The options of reports that draw pictures."""
    for option in (
        MODE,
        click.option("-o", "--output", type=FILE, help="Draw to FILE instead: .png, .svg or .html."),
    ):
        verb = option(verb)
    return verb


class _Reports(VerbGroup):
    """A word that is no report but names a file is the record of the summary; a report's name wins over a file's."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and _is_file(args[0]):
            return "summary", self.get_command(ctx, "summary"), args  # the name here is a module, once it is imported
        return super().resolve_command(ctx, args)


def _is_file(word: str) -> bool:
    """Whether it is there, or is written as files are and reports never."""
    return any(mark in word for mark in "./*?[") or os.path.lexists(word)


@click.group(cls=_Reports, subcommand_metavar="[REPORT] [FILE] [OPTIONS]", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: integers, times in ns, sizes in bytes.")
@click.option("--target", type=int, metavar="N", help="Only this target of the record (they count from 0).")
@click.option("-i", "--input", "path", type=RECORD, help="The record, also without -i.  [default: pydamon.damon]")
@click.pass_context
def command(ctx: click.Context, path: str | None, target: int | None, as_json: bool) -> None:
    """Show what a record says about which memory was accessed, and how often. Without a REPORT: the summary."""
    if ctx.invoked_subcommand is None:
        _summary(path if path is not None else DEFAULT, target, as_json)
        return
    # What was said before the name of the report holds for it.
    said = {"path": path, "inputs": path and (path,), "target": target, "as_json": as_json or None}
    said = {name: value for name, value in said.items() if value is not None}
    usual = dict(ctx.default_map or {})
    ctx.default_map = {**usual, ctx.invoked_subcommand: {**usual.get(ctx.invoked_subcommand, {}), **said}}


@command.command()
@_common
@counted
@_drawn
def summary(path: str, target: int | None, as_json: bool, whole_ranges: bool, output: str | None) -> None:
    """One screen: how much is resident, used and idle, which mappings hold it, what could be taken away."""
    _summary(path, target, as_json, whole_ranges, output)


def _summary(
    path: str, target: int | None, as_json: bool, whole_ranges: bool = False, output: str | None = None
) -> None:
    with lean.imports():
        from pydamon.cli.report.choice import Choice
        from pydamon.cli.report.summary import report

    report(path, Choice(target=target, whole_ranges=whole_ranges), as_json, output)


@command.command()
@_common
@counted
@click.option(
    "--at", "at_ns", type=WHEN, metavar="TIME", help="The snapshot of this time after the start (-5s: before the end)."
)
@click.option(
    "--by",
    type=click.Choice(["address", "hottest", "coldest", "recency", "temperature"]),
    default="address",
    show_default=True,
    help="The order of the regions.",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", help="Only the first N in that order.")
@click.option("--size", type=SIZES, metavar="MIN-MAX", help="Only regions of this size, e.g. 1M- or 4K-64K.")
@click.option("--rate", type=RATES, metavar="MIN-MAX", help="Only regions of this rate, in percent of the samples.")
@click.option("--age", type=AGES, metavar="MIN-MAX", help="Only regions of this age, e.g. 10s-.")
@click.option("--mapping", metavar="NAME", help="Only mappings whose names contain this, or match it with * and ?.")
@click.option("--address", "addresses", type=ADDRESSES, metavar="START-END", help="Only these addresses.")
@click.option(
    "--view",
    "style",
    type=click.Choice(["table", "boxes", "strip"]),
    default="table",
    show_default=True,
    help="boxes: wider is larger, higher is older; strip: one line of heat.",
)
def access(
    path: str,
    target: int | None,
    as_json: bool,
    size: tuple[float, float] | None,
    rate: tuple[float, float] | None,
    age: tuple[float, float] | None,
    addresses: tuple[int, int] | None,
    **options: Any,
) -> None:
    """One snapshot, by default the last: each range, its size, access rate, age, and what is mapped there."""
    with lean.imports():
        from pydamon.analysis.choose import ANY, Wanted
        from pydamon.cli.report.access import View, report

    if addresses is not None:
        options |= {"low": addresses[0], "high": addresses[1]}
    report(path, target, as_json, View(wanted=Wanted(size or ANY, rate or ANY, age or ANY), **options))


@command.command()
@_common
@windowed
@click.option(
    "--range",
    "view",
    metavar="RANGE",
    default="auto",
    help="Addresses to show: hottest (where most accesses are), all (everything monitored), or START-END, decimal or "
    "0x. Default: what was accessed, without the gaps.",
)
@click.option(
    "--max",
    "top",
    type=SHARE,
    metavar="PERCENT",
    help="What the hottest colour stands for, to compare pictures: 100% of the samples, or e.g. 20%. "
    "Default: the hottest there is.",
)
@_drawn
def heatmap(
    path: str, target: int | None, as_json: bool, view: str, output: str | None, top: float | None, **window: Any
) -> None:
    """Which addresses were accessed how much, when: a picture of time and addresses."""
    with lean.imports():
        from pydamon.cli.report.heatmap import report

    report(path, choice(target, **window), as_json, view, output, top)


@command.command()
@_common
@windowed
@click.option(
    "--percentiles",
    metavar="P,P,...",
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
@click.option(
    "--all", "every", is_flag=True, help="Percentiles of all snapshots, also the first, while regions were being found."
)
@click.option(
    "--over",
    type=click.Choice(["time", "window"]),
    help="Show the working set over time, or what was used within windows of 1 s to a day, with errors.",
)
@click.option(
    "--window", "used_ns", type=WHEN, metavar="TIME", help="What was used within this time, e.g. 10s, with its error."
)
@_drawn
def wss(
    path: str,
    target: int | None,
    as_json: bool,
    percentiles: str,
    min_accesses: int,
    over: str | None,
    output: str | None,
    used_ns: int | None,
    every: bool,
    **window: Any,
) -> None:
    """How much memory was in use: the distribution of the working set size, or what was used within a --window."""
    with lean.imports():
        from pydamon.cli.report import panel
        from pydamon.cli.report.choice import refuse_given
        from pydamon.cli.report.wss import report

    if used_ns is not None and over is not None:
        raise RequestError(f"shows one window, --over {over} many sizes; give one of the two", where="--window")
    if used_ns is not None or over == "window":
        refuse_given(("percentiles", "min_accesses", "every"), "is of sizes by snapshot, not of what a window used")
        panel.report(path, choice(target, **window), as_json, used_ns, output)
        return
    report(path, choice(target, **window), as_json, percentiles, min_accesses, over == "time", output, every)


@command.command()
@_common
@windowed
def regions(path: str, target: int | None, as_json: bool, **window: Any) -> None:
    """Every region of every snapshot, raw, in the order of time."""
    with lean.imports():
        from pydamon.cli.report.regions import report

    report(path, choice(target, **window), as_json)


@command.command("raw")
@_common
@windowed
def raw(path: str, target: int | None, as_json: bool, **window: Any) -> None:
    """The same as regions, by the name that it has in the field's tool."""
    with lean.imports():
        from pydamon.cli.report.regions import report

    report(path, choice(target, **window), as_json)


_WHOLE = click.option("--whole", is_flag=True, help="Over all snapshots, as a mean over time. Default: the last one.")


@command.command()
@_common
@windowed
@_WHOLE
@click.option("--rate", is_flag=True, help="Distribution of the access rate instead of the idle time.")
@_drawn
def recency(
    path: str, target: int | None, as_json: bool, output: str | None, whole: bool, rate: bool, **window: Any
) -> None:
    """How many bytes were accessed how long ago (or, with --rate, how often)."""
    with lean.imports():
        from pydamon.cli.report.distribution import report

    report(path, "rate" if rate else "recency", choice(target, **window), whole, as_json, output)


@command.command()
@_common
@windowed
@_WHOLE
@click.option(
    "--weights",
    metavar="RATE,AGE",
    default="100,100",
    show_default=True,
    help="Of one percent of the samples, and of one second of age (damo's are 100,1e8).",
)
@_drawn
def temperature(
    path: str, target: int | None, as_json: bool, output: str | None, whole: bool, weights: str, **window: Any
) -> None:
    """How many bytes have which temperature: access rate and age in one number."""
    with lean.imports():
        from pydamon.cli.report.distribution import parse_weights, report

    report(path, "temperature", choice(target, **window), whole, as_json, output, parse_weights(weights))


@command.command()
@_common
@windowed
@_WHOLE
@_drawn
def idle(path: str, target: int | None, as_json: bool, output: str | None, whole: bool, **window: Any) -> None:
    """How much memory has been idle for how long: what could be reclaimed."""
    with lean.imports():
        from pydamon.cli.report.idle import report

    report(path, choice(target, **window), whole, as_json, output)


@command.command()
@_common
@windowed
@_drawn
def footprint(path: str, target: int | None, as_json: bool, output: str | None, **window: Any) -> None:
    """The working set beside the resident, virtual and swapped size."""
    with lean.imports():
        from pydamon.cli.report.series import footprint as report

    report(path, choice(target, **window), as_json, output)


@command.command()
@_common
@windowed
@_drawn
def bandwidth(path: str, target: int | None, as_json: bool, output: str | None, **window: Any) -> None:
    """An estimate of the bytes accessed per second, and what resctrl measured where the record has it."""
    with lean.imports():
        from pydamon.cli.report.series import bandwidth as report

    report(path, choice(target, **window), as_json, output)


@command.command("files")
@_common
@windowed
@click.option("--all", "every", is_flag=True, help="All files, and not only the 20 with the most memory.")
def mapped_files(path: str, target: int | None, as_json: bool, every: bool, **window: Any) -> None:
    """What all targets together use of each file that they map; what they share counts once."""
    with lean.imports():
        from pydamon.cli.report.mapped_files import report

    report(path, choice(target, **window), as_json, every)


@command.command()
@_common
@windowed
def cost(path: str, target: int | None, as_json: bool, **window: Any) -> None:
    """What monitoring itself cost: CPU, checks, clears, and how long the target was disturbed."""
    with lean.imports():
        from pydamon.cli.report.cost import report

    report(path, choice(target, **window), as_json)


@command.command()
@_common
@windowed
@click.option("--tried", is_flag=True, help="The regions that were tried last, instead of the statistics.")
def schemes(path: str, target: int | None, as_json: bool, tried: bool, **window: Any) -> None:
    """What the schemes of a recording did, over time."""
    with lean.imports():
        from pydamon.cli.report.schemes import report

    report(path, choice(target, **window), tried, as_json)


@command.command("modules")
@_common
@windowed
def modules(path: str, target: int | None, as_json: bool, **window: Any) -> None:
    """What modules took, what of it came back and when, and what that cost; and what the module stat told."""
    with lean.imports():
        from pydamon.cli.report.modules import report

    report(path, choice(target, **window), as_json)


@command.command()
@_common
@windowed
@click.option(
    "--style",
    type=click.Choice(STYLES),
    default="shares",
    help="How much has each attribute (shares, the usual), or of the last snapshot: its regions (detailed), bytes by "
    "temperature or idle time.",
)
@click.option(
    "--sort",
    type=click.Choice(["address", "probe_hits_wsum", "age", "size", "temperature"]),
    default="temperature",
    help="With detailed: by what the regions are sorted.  [default: temperature]",
)
@click.option("--reverse", is_flag=True, help="With detailed: the largest first.")
@click.option(
    "--weights",
    metavar="HITS,AGE,SIZE",
    default="100,100,0",
    help="What counts in a temperature: weighted hits, age in us, size in bytes.  [default: 100,100,0]",
)
@click.option(
    "--live", "name", metavar="NAME", shell_complete=kdamonds, help="The kdamond NAME as it runs, in place of a record."
)
def attrs(
    path: str,
    name: str | None,
    target: int | None,
    as_json: bool,
    style: str,
    sort: str,
    reverse: bool,
    weights: str,
    **window: Any,
) -> None:
    """How much memory has the attributes that probes counted, and how hot it is by them."""
    with lean.imports():
        from pydamon.cli.report.attrs import report, report_live, wanted_of

    wanted = wanted_of(style, sort, reverse, weights)
    if name is not None:
        report_live(name, path, choice(target, **window), wanted, as_json)
        return
    report(path, choice(target, **window), wanted, as_json)


@command.command()
@_common
@windowed
@click.option(
    "--perf",
    type=FILE,
    required=True,
    help="CPU samples of the same time, as perf script prints them.",
)
@click.option(
    "--hot",
    "hot_percent",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    default=50,
    show_default=True,
    help="Hot is when bytes x access rate (of --address) is at least this share of its maximum.",
)
@click.option("--top", type=click.IntRange(min=1), metavar="N", default=20, show_default=True, help="Symbols to show.")
def profile(
    path: str, target: int | None, as_json: bool, perf: str, hot_percent: float, top: int, **window: Any
) -> None:
    """What the target executed while its memory was hot, beside the rest of the time."""
    with lean.imports():
        from pydamon.cli.report.profile import report

    report(path, perf, choice(target, **window), hot_percent, top, as_json)


@command.command()
@click.argument("files", nargs=-1, metavar="BEFORE AFTER", type=RECORD)
@click.option("-i", "--input", "inputs", multiple=True, type=RECORD, help="Twice: the records, also without -i.")
@click.option("--target", type=int, metavar="N", default=0, show_default=True, help="The target to compare.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--by",
    type=click.Choice(["address", "mapping"]),
    default="address",
    show_default=True,
    help="Compare addresses, or (between processes whose addresses differ) all memory of each mapping's name.",
)
@windowed
@_drawn
def diff(
    files: tuple[str, ...],
    inputs: tuple[str, ...],
    target: int,
    as_json: bool,
    output: str | None,
    by: str,
    **window: Any,
) -> None:
    """What became hotter, colder, bigger or smaller between two records."""
    before, after = two_records(files, inputs)
    with lean.imports():
        from pydamon.cli.report.diff import report

    report(before, after, choice(target, **window), by, as_json, output)


@command.command()
@_common
@click.option("--verify", "verified", is_flag=True, help="Read all of it; exit status 1 if anything in it is damaged.")
def info(path: str, target: int | None, as_json: bool, verified: bool) -> None:
    """What is in the record: what it is about, how it was made, and what it holds."""
    with lean.imports():
        from pydamon.cli.report.info import report

    report(path, as_json, verified=verified)
