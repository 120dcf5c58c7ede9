"""``pydamon what-if``: what a policy would save and cost, answered from a recording. Nothing is run on this machine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import Verb
from pydamon.cli.inputs import reads_record
from pydamon.cli.options import Quantity
from pydamon.cli.report.choice import WHEN
from pydamon.errors import RequestError
from pydamon.spec.units import parse_share, parse_size

if TYPE_CHECKING:
    from pydamon.cli.whatif.asked import Asked


def _share(text: str, per: str = "") -> float:
    """A share like ``2%``, above 0 and at most 100 %, as a fraction; ``per`` is what may follow, like ``/min``."""
    share = float(parse_share(text.strip().removesuffix(per)))
    if not 0 < share <= 1:
        raise RequestError(f"{text[:40]!r} must be above 0% and at most 100%")
    return share


def _size(text: str, per: str = "") -> int:
    """A size in bytes, above 0; ``per`` is what must follow, like ``/s``."""
    text = text.strip()
    if not text.endswith(per):
        raise RequestError(f"{text[:40]!r} is no rate; write it like 1MiB{per}")
    size = parse_size(text.removesuffix(per))
    if not size:
        raise RequestError("must be above 0")
    return size


@click.command("what-if", cls=Verb)
@reads_record
@click.option("--target", type=click.IntRange(0), metavar="N", help="Only this target.")
@click.option("--from", "from_ns", type=WHEN, metavar="TIME", help="Only from this time after the start (or -5s).")
@click.option("--to", "to_ns", type=WHEN, metavar="TIME", help="Only up to this time after the start (or -5s).")
@click.option(
    "--goal",
    type=Quantity("share", partial(_share, per="/min")),
    default="0.2%/min",
    show_default=True,
    metavar="SHARE/min",
    help="At most this share of the working set may come back in a minute.",
)
@click.option(
    "--slowdown",
    type=Quantity("share", _share),
    default="2%",
    show_default=True,
    metavar="SHARE",
    help="At most this share of its time may the program lose.",
)
@click.option(
    "--refaults",
    type=Quantity("size", partial(_size, per="/s")),
    default="1MiB/s",
    show_default=True,
    metavar="SIZE/s",
    help="How much memory is needed for no more refaults than that.",
)
@click.option(
    "--fast",
    type=Quantity("size", _size),
    metavar="SIZE",
    help="What a fast tier of this size could hold of the accesses.",
)
@click.option("--costs", type=FILE, help="What things cost on the machine; else usual ones (docs/what-if.md).")
@click.option(
    "--schemes",
    type=FILE,
    multiple=True,
    help="Play the recording under the schemes of this file; repeatable, for a comparison.",
)
@click.option("--scheme", multiple=True, metavar="TEXT", help="The same under this scheme; repeatable.")
@click.option(
    "--module", "modules", multiple=True, metavar="TEXT", help="The same under the schemes of this module; repeatable."
)
@click.option(
    "--search",
    metavar="TEXT",
    help="Search the knobs of a module or scheme that are LOW..HIGH, or A|B, for what saves most within --limit.",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="LIMIT",
    help="What a search keeps within: slowdown=2%, slowdown-ssd=5%, refaults=0.2%/min, refaults=1MiB/s; repeatable.  "
    "[default: slowdown as --slowdown]",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of a search.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes that play the recording.  [default: all CPUs]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-o", "--output", type=FILE, help="Draw it (.png, .svg or .html) instead of printing it.")
def command(path: str, **options: Any) -> None:
    """Say what taking idle memory would save and cost, for every idle time at once, from a recording.

    For each idle time T: how much memory is idle for that long, how much of it would come back in a minute, what that
    costs with swap in zram and on an SSD; the lowest T that keeps within --goal and --slowdown; how much memory is
    needed for few refaults; what was never used. It is an open loop: what is taken does not change what is accessed.

    With policies (--schemes, --scheme, --module) the recording is played again on the simulated machine under each of
    them: what they take is out, comes back when it is accessed, and is counted.

    With --search the knobs of a policy are searched: screened by the recording's idle times, the best few played again;
    chosen by the first 70 %, judged on the rest. It exits with 1 where nothing keeps within the limits.
    """
    from pydamon.cli.whatif.asked import Asked, answer

    asked: Asked = Asked(path=path, **options)
    answer(asked)
