"""The terminal program over one thing that is monitored: a process, a cgroup, a kdamond in the background, a record."""

from __future__ import annotations

from collections.abc import Callable

from pydamon.errors import RequestError
from pydamon.top.app import TopApp, once_a_second, run_top
from pydamon.top.one import One
from pydamon.top.one_page import OnePage
from pydamon.top.order import Order
from pydamon.top.page import Page
from pydamon.top.processes_page import ProcessesPage
from pydamon.top.recording import Growing
from pydamon.top.scenes import OfHistory, OfKdamond, Scenes, Targets
from pydamon.views.processes import Process


class Few:
    """Its targets: a list where there are several, each by itself.

    ``as_list`` says that there is a list even of one, since more may come; ``write`` as in `OnePage`.
    """

    def __init__(
        self,
        scenes: Scenes,
        order: Order,
        *,
        write: Callable[[str], str],
        notice: Callable[[], str] = lambda: "",
        as_list: bool = False,
    ) -> None:
        self._scenes = scenes
        self._order = order
        self._write = write
        self._notice = notice
        self._as_list = as_list
        self._app: TopApp | None = None

    def first(self, app: TopApp) -> Page:
        """The first page of the program."""
        self._app = app
        latest = self._scenes.latest()
        if self._as_list or (latest is not None and len(latest.live.targets) > 1):
            return ProcessesPage(Targets(self._scenes, self._notice), self._look_at, self._write, self._order)
        return self._page(None, app.end)

    def _look_at(self, process: Process) -> None:
        assert self._app is not None
        self._app.push_screen(self._page(process.start_ticks, self._app.pop_screen))

    def _page(self, target: int | None, back: Callable[[], object]) -> OnePage:
        return OnePage(self._scenes, target=target, back=back, write=self._write, notice=self._notice)


def show_one(one: One, order: Order, *, as_list: bool) -> None:
    """What it monitors, which begins now, until the user ends it."""
    few = Few(one.scenes, order, write=one.write, notice=lambda: one.notice, as_list=as_list)
    one.begin()
    try:
        run_top(TopApp(few.first, lambda app: once_a_second(app, lambda: None)))
    finally:
        one.close()


def show_kdamond(scenes: OfKdamond, order: Order) -> None:
    """What a kdamond in the background tells, until the user ends it."""
    few = Few(scenes, order, write=_not_here, notice=lambda: scenes.notice)
    run_top(TopApp(few.first, lambda app: once_a_second(app, scenes.refresh)))


def show_record(record: Growing, order: Order) -> None:
    """A record, until the user ends it."""
    few = Few(OfHistory(record), order, write=_not_here)
    run_top(TopApp(few.first, lambda app: once_a_second(app, lambda: None)))


def _not_here(path: str) -> str:
    raise RequestError("somebody else has the record; here is only what is seen", where=path)
