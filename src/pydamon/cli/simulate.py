"""``pydamon simulate``: what a policy saves and costs, on a simulated machine. Nothing is done to this one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydamon.cli.completion.values import FILE, workloads
from pydamon.cli.help.classes import Verb
from pydamon.cli.options import COUNT, FORCE, TIME, Quantity
from pydamon.spec import units

if TYPE_CHECKING:
    from pydamon.cli.simulation.asked import Asked


@click.command("simulate", cls=Verb)
@click.argument("programs", nargs=-1, required=True, metavar="PROGRAM...", shell_complete=workloads)
@click.option(
    "--machine",
    metavar="TEXT|FILE",
    help="The machine, like 'ram=2GiB swap=zram:1GiB', or a file that says it.  [default: memory for all, zram]",
)
@click.option("--costs", type=FILE, help="What things cost: a file as calibrate writes it (docs/simulator.md).")
@click.option("--schemes", multiple=True, type=FILE, help="Run with the schemes in this file; repeatable.")
@click.option("--scheme", multiple=True, metavar="TEXT", help="Run with this scheme; repeatable.")
@click.option("--module", "modules", multiple=True, metavar="TEXT", help="Run with this module; repeatable.")
@click.option("--duration", type=Quantity("time", units.parse_time_ns), help="End after this (simulated) time.")
@click.option(
    "--repeat", type=click.IntRange(0), default=1, show_default=True, metavar="N", help="Play N times; 0: for ever."
)
@click.option("--sample", type=TIME, help="Sampling interval.  [default: 5ms; as recorded; 50us with a trace]")
@click.option("--aggr", type=TIME, help="Aggregation interval.  [default: 20 x --sample]")
@click.option("--min-regions", type=COUNT, help="At least so many regions.  [default: 10, or as recorded]")
@click.option("--max-regions", type=COUNT, help="At most so many regions.  [default: 1000, or as recorded]")
@click.option("--target", type=click.IntRange(0), metavar="N", help="Of recordings: only this target.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all that is random.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-o", "--output", type=FILE, help="Draw it (.png, .svg, .html), or write the run as a record.")
@click.option(*FORCE.opts, is_flag=True, help=FORCE.help)
def command(programs: tuple[str, ...], **options: Any) -> None:
    """Try policies on a simulated machine: bytes saved, what came back, by how much programs are slowed down.

    PROGRAM is a workload (stairs, zigzag, hotspots, random, or a file of masim), a recording (run.damon;
    record:FILE for those of other tools) whose targets are played again, or a trace (lackey:FILE, perf-script:FILE);
    several share the machine. It runs once without a policy, and once with each --schemes, --scheme and --module.
    """
    from pydamon.cli.simulation.asked import understand

    _run(understand(programs, options), options)


def _run(asked: Asked, options: dict[str, Any]) -> None:
    from pydamon import messages
    from pydamon.cli.render.screen import current_screen, emit, emit_json
    from pydamon.cli.simulation.shown import machine_words, text
    from pydamon.errors import RequestError
    from pydamon.run.simulation.runs import compare

    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:  # each run says it
            said.add(line)
            messages.say(line)

    for line in asked.remarks:
        messages.say(line)
    try:
        results = compare(asked.setting, asked.policies, output=asked.record, force=options["force"], say=say)
    except RequestError as error:
        where = error.where or ""
        if where.startswith("machine"):  # found out when the programs are placed on it
            raise RequestError(error.message, where="--machine") from None
        raise
    if options["as_json"]:
        emit_json({"runs": [result.values() for result in results]})
    else:
        emit("\n".join(text(results, asked.setting, current_screen())) + "\n")
    if asked.picture:
        from pydamon.cli.render.picture import write_picture
        from pydamon.cli.render.simulation_figure import simulation_figure

        title = ", ".join(program.name for program in asked.setting.programs)
        figure = simulation_figure(results, title, machine_words(results[0], asked.setting))
        write_picture(asked.picture, figure, asked, f"Simulation: {title}")
        messages.say(f"wrote {asked.picture}")
