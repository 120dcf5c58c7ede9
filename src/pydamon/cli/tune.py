"""``pydamon tune``: change what runs in the background, without losing what it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydamon.cli.completion import values as completion
from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import Verb
from pydamon.cli.options import COUNT, TIME, Share, given
from pydamon.cli.render.screen import echo
from pydamon.errors import RequestError, located
from pydamon.spec import units

if TYPE_CHECKING:
    from pydamon.spec import Spec


@click.command("tune", cls=Verb)
@click.argument("name", required=False, shell_complete=completion.kdamonds)
@click.option("--sample", type=TIME, help="Sampling interval.")
@click.option("--aggr", type=TIME, help="Aggregation interval; if only one of the two is given, their ratio stays.")
@click.option("--update", type=TIME, help="Update interval.")
@click.option("--intervals", type=click.Choice(["fixed", "auto"]), help="Whether the intervals tune themselves.")
@click.option("--min-regions", type=COUNT, help="At least so many regions.")
@click.option("--max-regions", type=COUNT, help="At most so many regions.")
@click.option("--max-cpu", type=Share(), metavar="SHARE", help="From now on keep below this share of one CPU, e.g. 1%.")
@click.option("--schemes", type=FILE, help="Replace all schemes by those in this file.")
@click.option("--scheme", "texts", multiple=True, metavar="TEXT", help="Replace all schemes by this one; repeatable.")
@click.option(
    "--probe",
    "probes",
    multiple=True,
    metavar="TEXT",
    help="Replace all probes by this one; or none.",
)
@click.option("--spec", type=FILE, help="Take the parameters and the schemes of this spec.")
@click.option(
    "--goal-value", "goals", multiple=True, metavar="NAME=VALUE", help="Give the value of a goal; repeatable."
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    name: str | None,
    sample: int | None,
    aggr: int | None,
    update: int | None,
    intervals: Any,
    min_regions: int | None,
    max_regions: int | None,
    max_cpu: float | None,
    schemes: str | None,
    texts: tuple[str, ...],
    probes: tuple[str, ...],
    spec: str | None,
    goals: tuple[str, ...],
) -> None:
    """Change parameters of the kdamond NAME (default: the only one), all or nothing.

    Regions, and what is known of schemes that stay, are kept. Targets and ops cannot be changed. A scheme that keeps
    its place and action, or its name, goes on with its statistics; an empty list removes all.
    """
    from pydamon.cli.files import load_schemes, load_spec
    from pydamon.service.client import Client
    from pydamon.spec import to_builtins
    from pydamon.spec.forms import scheme_files
    from pydamon.spec.units import format_duration_ns

    loaded = None if spec is None else load_spec(ctx, spec)
    if loaded is not None and loaded.modules:
        _tune_module(ctx, loaded, name)
        return
    wanted: dict[str, Any] = {
        "sample_us": sample,
        "aggr_us": aggr,
        "update_us": update,
        "intervals": intervals,
        "min_regions": min_regions,
        "max_regions": max_regions,
        "max_cpu": max_cpu,
        "schemes": None,
        "probes": _probes(probes),
        "spec": None if loaded is None else to_builtins(loaded),
    }
    values = dict(map(_goal_value, goals))
    replaced = schemes is not None or bool(texts)
    if not values and not replaced and all(value is None for value in wanted.values()):
        raise RequestError("nothing to change; give e.g. --sample 10ms", where="tune")
    client = Client(name)
    if replaced:
        found = load_schemes(ctx, schemes, texts, client.status()["ops"])
        wanted["schemes"] = [] if found is None else list(map(scheme_files.to_builtins, found.schemes))
    result = client.tune(**wanted, goal_values=values)
    times = (result["intervals"][key] * 1000 for key in ("sample_us", "aggr_us", "ops_update_us"))
    sample_text, aggr_text, update_text = map(format_duration_ns, times)
    bounds = result["nr_regions"]
    echo(
        f"kdamond {client.name}: samples every {sample_text}, aggregates every {aggr_text}, updates every "
        f"{update_text}, {bounds['min']} to {bounds['max']} regions, "
        + ("1 scheme" if result["nr_schemes"] == 1 else f"{result['nr_schemes']} schemes")
    )


def _tune_module(ctx: click.Context, spec: Spec, name: str | None) -> None:
    """Give a module of the kernel other parameters. Raises RequestError naming the option."""
    from pydamon.service import modules

    for parameter, option in given(ctx).items():
        if parameter not in ("name", "spec"):
            raise RequestError("does not go with a module of the kernel", where=option)
    if name not in (None, modules.only(spec)[0]):
        raise RequestError(f"is {name}; the spec is for {modules.only(spec)[0]}", where="NAME")
    echo(f"module {modules.tune(spec)}: has taken the parameters")


def _probes(texts: tuple[str, ...]) -> list[Any] | None:
    """The probes that take the place of all there are, as plain values; None if nothing was said."""
    if not texts:
        return None
    import msgspec

    from pydamon.cli.asked import parsed_probes

    return [] if texts == ("none",) else [msgspec.to_builtins(probe) for probe in parsed_probes(texts)]


def _goal_value(text: str) -> tuple[str, int]:
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise RequestError(f"{text[:80]!r} is not NAME=VALUE", where="--goal-value")
    with located("--goal-value"):
        return name, units.parse_metric(value)
