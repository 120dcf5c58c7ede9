"""The terminal program: its screens, and the thread that looks at the machine meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from textual.app import App
from textual.binding import BindingType

from pydamon.top.page import Page


class TopApp(App[None]):
    """Shows the page that ``first`` makes; ``update`` it from any thread by `tell`.

    ``work`` runs in a thread of its own until ``self.ending`` is set; an error in it ends the program, and is raised by
    whoever called `run_top`.
    """

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(self, first: Callable[[TopApp], Page], work: Callable[[TopApp], None] | None = None) -> None:
        super().__init__()
        self.ending = threading.Event()
        self._hurry = threading.Event()
        self.failed: BaseException | None = None
        self._first = first
        self._work = work
        self._thread: threading.Thread | None = None

    def on_mount(self) -> None:
        """Begin."""
        self.push_screen(self._first(self))
        if self._work is not None:
            self._thread = threading.Thread(target=self._run, name="pydamon top", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        assert self._work is not None
        try:
            self._work(self)
        except BaseException as error:
            self.failed = error
            if not self.ending.is_set():
                self.call_from_thread(self.exit)

    def tell(self) -> None:
        """There is something new to see; from any thread but the program's own."""
        if not self.ending.is_set():
            self.call_from_thread(self.redraw)

    def redraw(self) -> None:
        """Show what there is to see on the screen on top."""
        if isinstance(self.screen, Page):
            self.screen.update()

    async def action_quit(self) -> None:
        """End."""
        self.end()

    def end(self) -> None:
        """End, from the program's own thread."""
        self.ending.set()
        self.hurry()
        self.exit()

    def wait(self, seconds: float) -> None:
        """Let the thread that works sleep, until then, the end, or `hurry`."""
        self._hurry.wait(seconds)
        self._hurry.clear()

    def hurry(self) -> None:
        """What works is to look now."""
        self._hurry.set()


def run_top(app: TopApp) -> None:
    """Run it to its end. Raises what its thread has raised."""
    try:
        app.run()
    finally:
        app.ending.set()
        app.hurry()
        if app._thread is not None:
            app._thread.join(timeout=10)
    if app.failed is not None:
        raise app.failed


def once_a_second(app: TopApp, step: Callable[[], object]) -> None:
    """Call ``step`` and have what it found shown, once a second, until the end."""
    due = time.monotonic()
    while not app.ending.is_set():
        step()
        app.tell()
        due = max(due + 1.0, time.monotonic())
        app.wait(due - time.monotonic())
