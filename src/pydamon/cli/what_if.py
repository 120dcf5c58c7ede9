"""``pydamon what-if``: what a policy would save and cost, answered from a recording. Nothing is run on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import Verb
from pydamon.cli.inputs import reads_record
from pydamon.cli.report.choice import WHEN
from pydamon.errors import RequestError

if TYPE_CHECKING:
    from pydamon.cli.whatif.asked import Asked

    _GoalType = click.ParamType[float]
    _RateType = click.ParamType[int]
    _PercentType = click.ParamType[float]
    _SizeType = click.ParamType[int]
else:  # it cannot be subscripted in older releases of click
    _GoalType = _RateType = _PercentType = _SizeType = click.ParamType


class _Share(_PercentType):
    """A share like ``2%``, above 0 and at most 100 %, as a fraction; ``per`` is what may follow, like ``/min``."""

    name = "share"

    def __init__(self, per: str = "") -> None:
        self._per = per

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        from pydamon.spec.units import parse_share

        text = str(value).strip().removesuffix(self._per)
        try:
            share = float(parse_share(text))
        except RequestError as error:
            self.fail(error.message, param, ctx)
        if not 0 < share <= 1:
            self.fail(f"{str(value)[:40]!r} must be above 0% and at most 100%", param, ctx)
        return share


class _Size(_SizeType):
    """A size in bytes, above 0; ``per`` is what must follow, like ``/s``."""

    name = "size"

    def __init__(self, per: str = "") -> None:
        self._per = per

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        from pydamon.spec.units import parse_size

        text = str(value).strip()
        if self._per and not text.endswith(self._per):
            self.fail(f"{text[:40]!r} is no rate; write it like 1MiB{self._per}", param, ctx)
        try:
            size = parse_size(text.removesuffix(self._per))
        except RequestError as error:
            self.fail(error.message, param, ctx)
        if not size:
            self.fail("must be above 0", param, ctx)
        return size


@click.command("what-if", cls=Verb)
@reads_record
@click.option("--target", type=click.IntRange(0), metavar="N", help="Only this target.")
@click.option("--from", "from_ns", type=WHEN, metavar="TIME", help="Only from this time after the start (or -5s).")
@click.option("--to", "to_ns", type=WHEN, metavar="TIME", help="Only up to this time after the start (or -5s).")
@click.option(
    "--goal",
    type=_Share("/min"),
    default="0.2%/min",
    show_default=True,
    metavar="SHARE/min",
    help="At most this share of the working set may come back in a minute.",
)
@click.option(
    "--slowdown",
    type=_Share(),
    default="2%",
    show_default=True,
    metavar="SHARE",
    help="At most this share of its time may the program lose.",
)
@click.option(
    "--refaults",
    type=_Size("/s"),
    default="1MiB/s",
    show_default=True,
    metavar="SIZE/s",
    help="How much memory is needed for no more refaults than that.",
)
@click.option("--fast", type=_Size(), metavar="SIZE", help="What a fast tier of this size could hold of the accesses.")
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-o", "--output", type=FILE, help="Draw it (.png, .svg or .html) instead of printing it.")
def command(path: str, **options: Any) -> None:
    """Say what taking idle memory would save and cost, for every idle time at once, from a recording.

    For each idle time T: how much memory is idle for that long, how much of it would come back in a minute, what that
    costs with swap in zram and on an SSD; the lowest T that keeps within --goal and --slowdown; how much memory is
    needed for few refaults; what was never used. It is an open loop: what is taken does not change what is accessed.

    With policies (--schemes, --scheme, --module) the recording is played again on the simulated machine under each of
    them: what they take is out, comes back when it is accessed, and is counted.
    """
    from pydamon.cli.whatif.asked import Asked, answer

    asked: Asked = Asked(path=path, **options)
    answer(asked)
