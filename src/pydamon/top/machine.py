"""The terminal program over this machine's processes: all of them, or one that is monitored by itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pydamon.plain import printable
from pydamon.top.app import TopApp, once_a_second, run_top
from pydamon.top.listing import Listing, Selection, listed
from pydamon.top.order import Order
from pydamon.top.past import Past
from pydamon.top.processes_page import ProcessesPage
from pydamon.views.processes import Process

if TYPE_CHECKING:
    from pydamon.top.one import One
    from pydamon.top.watch import Watch


class Machine:
    """The list of processes, and the one that is looked at by itself.

    While that is so, its pages are not asked for the list: of one process one alone clears the accessed bits.
    """

    def __init__(self, selection: Selection, order: Order) -> None:
        self.past = Past()
        self.page = ProcessesPage(self.past, self.look_at, self.write, order)
        self._selection = selection
        self._app: TopApp | None = None
        self._watch: Watch | None = None
        self._one: One | None = None
        self._wanted: Process | None = None  # is looked at by itself, as soon as it is not asked for the list
        self._left = threading.Event()  # it is not

    def first(self, app: TopApp) -> ProcessesPage:
        """The first page of the program."""
        self._app = app
        return self.page

    def work(self, app: TopApp) -> None:
        """Look once a second, until the end."""
        listing = Listing(self._selection)
        self.past.add(listed(listing))
        app.tell()
        from pydamon.top.watch import Watch  # what asks takes longer to import than to list

        watch = self._watch = Watch(listing)
        try:
            once_a_second(app, lambda: self._step(watch))
        finally:
            watch.close()
            if self._one is not None:
                self._one.close()

    def _step(self, watch: Watch) -> None:
        wanted, left = self._wanted, self._left
        watch.left_out = set() if wanted is None else {(wanted.pid, wanted.start_ticks)}
        self.past.add(watch.step(self.page.shown_pids()))
        if wanted is not None:
            left.set()

    def look_at(self, process: Process) -> None:
        """See `ProcessesPage`."""
        assert self._app is not None
        from pydamon.top.one import One, spec_of
        from pydamon.top.one_page import OnePage

        self._wanted, self._left = process, threading.Event()
        one = self._one = One(spec_of(pid=process.pid), self._left)
        self._app.hurry()
        page = OnePage(
            one.scenes,
            back=self._back,
            write=one.write,
            waiting=f"{process.pid} {printable(process.name)}: looking ...",
            notice=lambda: one.notice,
        )
        one.begin()
        self._app.push_screen(page)

    def _back(self) -> None:
        assert self._app is not None
        self._app.pop_screen()
        one, self._one, self._wanted = self._one, None, None
        if one is not None:
            one.close()

    def write(self, path: str) -> str:
        """See `Page`."""
        from pydamon.top.writing import write_looks

        watch = self._watch
        return write_looks(path, "" if watch is None else watch.through, [] if watch is None else watch.looked())


def show(selection: Selection, order: Order) -> None:
    """All processes, until the user ends it."""
    machine = Machine(selection, order)
    run_top(TopApp(machine.first, machine.work))
