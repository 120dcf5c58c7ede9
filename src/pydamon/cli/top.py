"""``pydamon top``: what processes use of their memory, live."""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from pydamon.cli.completion.values import RECORD
from pydamon.cli.completion.values import tops as complete
from pydamon.cli.help.classes import Verb
from pydamon.cli.options import Quantity
from pydamon.cli.render.screen import current_screen, echo, emit
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.plain import json_text
from pydamon.spec import units

if TYPE_CHECKING:
    from pydamon.top.listing import Selection
    from pydamon.top.order import Order
    from pydamon.top.scenes import Scenes
    from pydamon.views.live import Live

_Seen = TypeVar("_Seen")
_WINDOW_S = 11  # until it is known what was used within 10 s
_SORTS = ("pid", "used", "error", "resident", "idle", "user", "cost", "command")  # as pydamon.top.order.COLUMNS


@click.command("top", cls=Verb)
@click.argument("target", required=False, metavar="[PID|NAME]", shell_complete=complete)
@click.option("--cgroup", metavar="PATH", help="Monitor the processes in this cgroup v2, as they come and go.")
@click.option("-i", "--input", "path", type=RECORD, help="Show this record.")
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
    target: str | None,
    cgroup: str | None,
    path: str | None,
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
    """Show what processes use of their memory, live: all of them, or one.

    All are listed by what each has used within 10 s (USED), with how sure that is (±), beside what is in memory (RES)
    and what has been idle for a minute (IDLE). Pages drawn at random tell it: 4,096 in proportion to what is resident,
    at least 32 of each process. Their accessed bits are cleared, once a second where they were set; nothing else is
    touched. Without root, only what is resident is told.

    Of one process (PID, or Enter in the list), of the processes of a cgroup, of a kdamond in the background (NAME), or
    of a record it shows where their memory is hot, the working set over time, and schemes. F1 shows the keys.
    """
    for given, name in ((times, "times"), (delay, "delay"), (as_json or None, "json")):
        if given is not None and not batch:
            raise RequestError("goes with --batch", where=name)
    subjects = {"PID or NAME": target, "cgroup": cgroup, "input": path}
    named = [name for name, value in subjects.items() if value is not None]
    if len(named) > 1:
        raise RequestError(f"does not go with {named[0]}; give one of them", where=named[1])
    for value, name in ((uid, "uid"), (words or None, "filter"), (children, "children")):
        if value is not None and named:
            raise RequestError(f"is for the list of all processes; it does not go with {named[0]}", where=name)
    from pydamon.top.order import Order

    order = Order(by=sort, tree=tree)
    how = _Printing(times or 1, 1.0 if delay is None else delay / 1e9, as_json) if batch else None
    if how is None:
        _check_terminal()
        _check_library()
    if path is not None:
        _record(path, order, how)
    elif cgroup is not None or target is not None:
        _one_or_kdamond(target, cgroup, order, how)
    else:
        from pydamon.top.listing import Selection

        _machine(Selection(uid=_uid(uid), words=words, parent=children), order, how)


class _Printing(NamedTuple):
    """What ``-b`` is to do."""

    times: int
    delay_s: float
    as_json: bool


def _uid(text: str | None) -> int | None:
    if text is None or text.isdigit():
        return None if text is None else int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise RequestError(f"there is no user {text!r}; give a name or a number", where="uid") from None


def _machine(selection: Selection, order: Order, how: _Printing | None) -> None:
    if how is None:
        from pydamon.top.machine import show

        show(selection, order)
        return
    from pydamon.top.batch import list_lines, settled
    from pydamon.top.listing import Listing
    from pydamon.top.watch import Watch

    limit = current_screen().limit
    watch = Watch(Listing(selection))
    try:
        first = settled(watch.step, time.sleep)
        _print(how, first, watch.step, lambda seen: list_lines(seen, order, limit))
    finally:
        watch.close()


def _one_or_kdamond(target: str | None, cgroup: str | None, order: Order, how: _Printing | None) -> None:
    from pydamon.service.client import Client, running

    if target is not None and target in running():
        from pydamon.top.scenes import OfKdamond

        scenes = OfKdamond(Client(target))
        if how is None:
            from pydamon.top.targets import show_kdamond

            scenes.refresh()
            show_kdamond(scenes, order)
        else:
            _print_scenes(how, scenes, scenes.refresh, lambda: scenes.notice)
        return
    if target is not None and not target.isdecimal():
        names = ", ".join(running()) or "none"
        raise RequestError(f"no kdamond has this name (running: {names}), and it is no pid", where=target)
    from pydamon.top.one import One, spec_of

    one = One(spec_of(cgroup=cgroup) if target is None else spec_of(pid=int(target)))
    one.open()
    if how is None:
        from pydamon.top.targets import show_one

        show_one(one, order, as_list=cgroup is not None)
        return
    one.begin()
    try:
        time.sleep(_WINDOW_S)
        _print_scenes(how, one.scenes, lambda: None, lambda: one.notice)
    finally:
        one.close()


def _record(path: str, order: Order, how: _Printing | None) -> None:
    from pydamon.top.recording import Growing

    record = Growing(path)
    try:
        if record.latest() is None:
            raise RequestError("has no snapshots", where=path)
        if how is None:
            from pydamon.top.targets import show_record

            show_record(record, order)
        else:
            from pydamon.top.scenes import OfHistory

            _print_scenes(how, OfHistory(record), lambda: None, lambda: "")
    finally:
        record.close()


def _print_scenes(how: _Printing, scenes: Scenes, refresh: Callable[[], object], said: Callable[[], str]) -> None:
    from pydamon.top.batch import scene_lines

    limit = current_screen().limit

    def step() -> Live:
        refresh()
        scene = scenes.latest()
        if scene is None:
            raise PydamonError(said() or "nothing was found", where="top")
        return scene.live

    _print(how, step(), step, lambda seen: scene_lines(seen, scenes, limit))


def _print(how: _Printing, first: _Seen, step: Callable[[], _Seen], lines: Callable[[_Seen], Iterable[str]]) -> None:
    seen = first
    for number in range(how.times):
        if number:
            time.sleep(how.delay_s)
            seen = step()
        if how.as_json:
            emit(json_text(seen) + "\n")
        else:
            echo("\n".join(lines(seen)))
        sys.stdout.flush()


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
