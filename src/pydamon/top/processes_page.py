"""The screen of many processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from textual.binding import Binding, BindingType

from pydamon.plain import printable
from pydamon.top import cells, words
from pydamon.top.order import BY_NAME, Entry, Group, Order, arranged
from pydamon.top.page import Page
from pydamon.top.spans import Line, text_line
from pydamon.views.processes import Process, Processes


class Times(Protocol):
    """`Processes` in the order of time (`past.Past`)."""

    def latest(self) -> Processes | None: ...

    def at(self, time_ns: int) -> Processes | None: ...

    def step(self, time_ns: int, by: int) -> Processes | None: ...


class ProcessesPage(Page):
    """Lists the processes of ``times``; ``look_at`` is called with the one that the user wants to see by itself.

    ``write`` is as in `Page`.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Look"),
        Binding("f4,backslash,slash", "ask('filter')", "Filter"),
        Binding("f5,g", "tree", "Tree"),
        Binding("f6,greater_than_sign,full_stop", "sort(1)", "Sort"),
        Binding("less_than_sign,comma", "sort(-1)", "Sort"),
        Binding("I", "invert", "Invert"),
    ]
    KEYS = (*words.LIST_KEYS, *words.COMMON_KEYS)

    def __init__(
        self, times: Times, look_at: Callable[[Process], None], write: Callable[[str], str], order: Order
    ) -> None:
        super().__init__(write)
        self.times = times
        self.order = order
        self._look_at = look_at
        self._entries: list[Entry] = []
        self._arranged_for: tuple[Processes, Order] | None = None
        self._columns = cells.columns_for(80)
        self._picked: tuple[int, int] | None = None  # who is under the cursor: it goes with him

    # -- what it says -------------------------------------------------------------------------------------------------

    def seen(self) -> Processes | None:
        """What is to be seen."""
        return self.times.latest() if self.when is None else self.times.at(self.when)

    def content(self, width: int, height: int) -> list[Line]:
        """See `Page`."""
        self._columns = cells.columns_for(width)
        self._arrange()
        lines = super().content(width, height)
        entry = self._entry()
        self._picked = (entry.pid, entry.start_ticks) if isinstance(entry, Process) else None
        return lines

    def _arrange(self) -> None:
        seen = self.seen()
        if seen is None:
            return
        if self._arranged_for is not None:
            before, order = self._arranged_for
            if seen is before and self.order == order:
                return
        self._entries = arranged(seen.processes, self.order)
        self._arranged_for = (seen, self.order)
        if self._picked is not None and self.cursor > 0:
            for number, entry in enumerate(self._entries):
                if isinstance(entry, Process) and (entry.pid, entry.start_ticks) == self._picked:
                    self.first += number - self.cursor
                    self.cursor = number
                    break

    def head(self, width: int) -> list[Line]:
        """See `Page`."""
        seen, now_ns = self.seen(), self.now_ns()
        if seen is None:
            return [text_line("pydamon top: looking ...", "bold")]
        past = self.when is not None
        about = words.about_list(seen, now_ns if past else None, width)
        lines = [text_line(cells.fit(about, width), "past" if past else "bold")]
        notes = list(dict.fromkeys(seen.notices))
        if self.order.words:
            notes.append(f"filter: {self.order.words}")
        lines += [text_line(cells.fit(printable(note), width), "note") for note in notes[-2:]]
        lines.append(text_line(cells.fit(cells.head(self._columns, self.order), width), "head"))
        return lines

    def rows(self) -> int:
        """See `Page`."""
        return len(self._entries)

    def row(self, number: int, width: int) -> Line:
        """See `Page`."""
        entry = self._entries[number]
        text = cells.line(entry, self._columns, indent=1 if self.order.tree else 0)
        if isinstance(entry, Group):
            return text_line(text, "bold")
        return text_line(text, "" if entry.used is not None and entry.used.bytes else "dim")

    def shown_pids(self) -> set[int]:
        """The pids that are on the screen now."""
        shown = self._entries[self.first : self.first + self.room]
        return {entry.pid for entry in shown if isinstance(entry, Process)}

    def now_ns(self) -> int | None:
        """See `Page`."""
        latest = self.times.latest()
        return None if latest is None else latest.time_unix_ns

    def time_at(self, time_ns: int, by: int) -> int | None:
        """See `Page`."""
        found = self.times.step(time_ns, by)
        return None if found is None else found.time_unix_ns

    def start_of(self, asked: str) -> str:
        """See `Page`."""
        return self.order.words if asked == "filter" else super().start_of(asked)

    def answer(self, asked: str, text: str) -> None:
        """See `Page`."""
        if asked == "filter":
            self.order = self.order._replace(words=text.strip())
            self.cursor = 0
        else:
            super().answer(asked, text)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def action_tree(self) -> None:
        """In groups, or not."""
        self.order = self.order._replace(tree=not self.order.tree)
        self.update()

    def action_sort(self, by: int) -> None:
        """By another column."""
        self.order = self.order.next(by)
        self.update()

    def action_invert(self) -> None:
        """The other way round."""
        self.order = self.order._replace(turned=not self.order.turned)
        self.update()

    def action_choose(self) -> None:
        """Look at the process under the cursor."""
        self.chosen()

    def chosen(self) -> None:
        """See `Page`."""
        entry = self._entry()
        if isinstance(entry, Process):
            self._look_at(entry)

    def _entry(self) -> Entry | None:
        return self._entries[self.cursor] if self.cursor < len(self._entries) else None

    def clicked_head(self, x: int, y: int) -> None:
        """Sort by the column that was clicked on, or turn the order."""
        if y != self.head_lines - 1:
            return
        left = 0
        for column in self._columns:
            if left <= x <= left + column.width and column.name in BY_NAME:
                same = column.name == self.order.by
                self.order = self.order._replace(by=column.name, turned=same and not self.order.turned)
                self.update()
                return
            left += column.width + 1
