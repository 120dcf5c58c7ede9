"""The terminal program over this machine's processes."""

from __future__ import annotations

from pydamon.top.app import TopApp, once_a_second, run_top
from pydamon.top.listing import Listing, Selection
from pydamon.top.order import Order
from pydamon.top.past import Past
from pydamon.top.processes_page import ProcessesPage
from pydamon.top.watch import Watch
from pydamon.views.processes import Process


class Machine:
    """The list, and the one process that is looked at by itself."""

    def __init__(self, selection: Selection, order: Order) -> None:
        self.past = Past()
        self.page = ProcessesPage(self.past, self.look_at, self.write, order)
        self._selection = selection

    def work(self, app: TopApp) -> None:
        """Look once a second, until the end."""
        watch = Watch(Listing(self._selection))
        try:
            once_a_second(app, lambda: self.past.add(watch.step(self.page.shown_pids())))
        finally:
            watch.close()

    def look_at(self, process: Process) -> None:
        """See `ProcessesPage`."""

    def write(self, path: str) -> str:
        """See `ProcessesPage`."""
        return ""


def show(selection: Selection, order: Order) -> None:
    """Until the user ends it."""
    machine = Machine(selection, order)
    run_top(TopApp(lambda app: machine.page, machine.work))
