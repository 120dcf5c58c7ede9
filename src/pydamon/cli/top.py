"""``pydamon top``: what processes use of their memory, live."""

from __future__ import annotations

import os
import pwd
import sys
from typing import TYPE_CHECKING

import click

from pydamon.cli.help.classes import Verb
from pydamon.cli.options import Quantity
from pydamon.cli.render.screen import current_screen, echo, emit
from pydamon.errors import MachineError, RequestError
from pydamon.plain import json_text
from pydamon.spec import units

if TYPE_CHECKING:
    from pydamon.top.listing import Selection
    from pydamon.top.order import Order

_SORTS = ("pid", "used", "error", "resident", "idle", "user", "cost", "command")  # as pydamon.top.order.COLUMNS


@click.command("top", cls=Verb)
@click.option("--uid", metavar="USER", help="List the processes of this user (a name or a number) only.")
@click.option("--filter", "words", default="", metavar="WORDS", help="List those whose command line has these words.")
@click.option("--children", type=click.IntRange(min=1), metavar="PID", help="List this process and its descendants.")
@click.option("--sort", type=click.Choice(_SORTS), default="used", show_default=True, help="The column to sort by.")
@click.option("--tree", is_flag=True, help="List in groups by cgroup.")
@click.option("-b", "--batch", is_flag=True, help="Print instead of showing a screen, first when USED is known.")
@click.option("-n", "--times", type=click.IntRange(min=1), metavar="N", help="With -b: print N times.  [default: 1]")
@click.option(
    "-d", "--delay", type=Quantity("time", units.parse_time_ns), help="With -b: the time between two.  [default: 1 s]"
)
@click.option("--json", "as_json", is_flag=True, help="With -b: JSON, one line each time.")
def command(
    uid: str | None,
    words: str,
    children: int | None,
    sort: str,
    tree: bool,
    batch: bool,
    times: int | None,
    delay: int | None,
    as_json: bool,
) -> None:
    """Show what processes use of their memory, live: all of them, with what each has used within 10 s (USED), and how
    sure that is (±), what is in memory (RES), and what has been idle for a minute (IDLE).

    Pages drawn at random tell it: 4,096 in proportion to what is resident, at least 32 of each process. Their accessed
    bits are cleared, once a second where they were set; nothing else is touched.

    F1 shows the keys. Without root, only what is resident is told.
    """
    for given, name in ((times, "times"), (delay, "delay"), (as_json or None, "json")):
        if given is not None and not batch:
            raise RequestError("goes with --batch", where=name)
    from pydamon.top.listing import Selection
    from pydamon.top.order import Order

    selection = Selection(uid=_uid(uid), words=words, parent=children)
    order = Order(by=sort, tree=tree)
    if batch:
        _print(selection, order, times or 1, 1.0 if delay is None else delay / 1e9, as_json)
    else:
        _show(selection, order)


def _uid(text: str | None) -> int | None:
    if text is None or text.isdigit():
        return None if text is None else int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise RequestError(f"there is no user {text!r}; give a name or a number", where="uid") from None


def _print(selection: Selection, order: Order, times: int, delay_s: float, as_json: bool) -> None:
    import time

    from pydamon.top.batch import list_lines, settled
    from pydamon.top.listing import Listing
    from pydamon.top.watch import Watch

    screen = current_screen()
    watch = Watch(Listing(selection))
    try:
        seen = settled(watch.step, time.sleep)
        for number in range(times):
            if number:
                time.sleep(delay_s)
                seen = watch.step()
            if as_json:
                emit(json_text(seen) + "\n")
            else:
                echo("\n".join(list_lines(seen, order, screen.limit)))
            sys.stdout.flush()
    finally:
        watch.close()


def _show(selection: Selection, order: Order) -> None:
    _check_terminal()
    _check_library()
    from pydamon.top.machine import show

    show(selection, order)


def _check_terminal() -> None:
    """Raise RequestError where no screen can be shown."""
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        if stream is None or not stream.isatty():
            raise RequestError(f"standard {name} is no terminal; -b prints instead", where="top")
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        raise RequestError("TERM says that this terminal cannot show a screen; -b prints instead", where="top")


def _check_library() -> None:
    """Raise MachineError where there is no Textual."""
    try:
        import textual  # noqa: F401
    except ImportError:
        raise MachineError("needs Textual: pip install 'pydamon[top]'", where="top") from None
