"""What the screens of top have in common: their lines, keys, prompts, and going back in time."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen
from textual.widgets import Input

from pydamon.errors import PydamonError
from pydamon.plain import printable
from pydamon.top import words
from pydamon.top.cells import fit
from pydamon.top.lines import Lines
from pydamon.top.spans import Line, Span, text_line

_LEAST_HEIGHT = 4


class Page(Screen[None]):
    """A screen of lines: `content` makes them. ``when`` is the time (ns) that is shown, None: the latest.

    ``write`` is called with the path of a record, and returns what to say of it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,f10", "app.quit", "Quit"),
        Binding("f1,h,question_mark", "help", "Help"),
        Binding("space,p", "pause", "Pause"),
        Binding("t,right", "step(1)", "Later"),
        Binding("T,left", "step(-1)", "Earlier"),
        Binding("right_square_bracket", "step(10)", "Much later"),
        Binding("left_square_bracket", "step(-10)", "Much earlier"),
        Binding("j", "ask('jump')", "Jump"),
        Binding("l", "live", "Live"),
        Binding("w", "ask('write')", "Write"),
        Binding("up,k", "move(-1)", "Up"),
        Binding("down", "move(1)", "Down"),
        Binding("pageup", "leaf(-1)", "Page up"),
        Binding("pagedown", "leaf(1)", "Page down"),
        Binding("home", "move(-1000000)", "First"),
        Binding("end", "move(1000000)", "Last"),
    ]
    AUTO_FOCUS = "Lines"
    KEYS: ClassVar[tuple[tuple[str, str, str], ...]] = words.COMMON_KEYS
    CSS = "Input { dock: bottom; border: none; height: 1; padding: 0; background: transparent; }"

    def __init__(self, write: Callable[[str], str]) -> None:
        super().__init__()
        self._write = write
        self.view = Lines()
        self.when: int | None = None
        self.cursor = 0
        self.first = 0  # of the rows below the head that is seen
        self.note = ""
        self._asking = ""

    def compose(self) -> ComposeResult:
        """See `Screen`."""
        yield self.view

    # -- what a screen says -------------------------------------------------------------------------------------------

    def head(self, width: int) -> list[Line]:
        """The lines above the rows."""
        raise NotImplementedError

    def rows(self) -> int:
        """How many rows there are."""
        raise NotImplementedError

    def row(self, number: int, width: int) -> Line:
        """One of them."""
        raise NotImplementedError

    def chosen_style(self) -> str:
        """How the row under the cursor is drawn."""
        return "cursor"

    def now_ns(self) -> int | None:
        """The time of the latest that there is to see."""
        raise NotImplementedError

    def offset_ns(self) -> int:
        """What added to times of this screen makes them times since 1970."""
        return 0

    def time_at(self, time_ns: int, by: int) -> int | None:
        """The time of what is to be seen so many steps from there."""
        raise NotImplementedError

    def start_of(self, asked: str) -> str:
        """What stands in a prompt at first."""
        return "top.damon" if asked == "write" else ""

    def answer(self, asked: str, text: str) -> None:
        """What was typed at a prompt. Raises PydamonError, which is shown."""
        if asked == "jump" and text.strip():
            now_ns = self.now_ns()
            if now_ns is not None:
                wanted_ns = words.parse_jump(text, now_ns + self.offset_ns())
                self.when = self.time_at(wanted_ns - self.offset_ns(), 0)
        elif asked == "write" and text.strip():
            self.note = self._write(text.strip())

    # -- drawing ------------------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Show what is to be seen now."""
        width, height = self.view.size
        if width and height:
            self.view.show(self.content(width, height))

    def content(self, width: int, height: int) -> list[Line]:
        """All lines of the screen."""
        lines = self.head(width)
        if self.note:
            lines.insert(max(len(lines) - 1, 0), text_line(fit(printable(self.note), width), "note"))
        lines = lines[: max(height - 2, 0)]
        self.room = max(height - len(lines) - 1, 1)
        count = self.rows()
        self.cursor = min(max(self.cursor, 0), max(count - 1, 0))
        self.first = max(self.first, self.cursor - self.room + 1, 0)
        self.first = min(self.first, self.cursor, max(count - self.room, 0))
        self.head_lines = len(lines)
        for number in range(self.first, min(self.first + self.room, count)):
            line = self.row(number, width)
            if number == self.cursor and self.chosen_style():
                line = text_line("".join(span.text for span in line), self.chosen_style())
            lines.append(line)
        if height > _LEAST_HEIGHT:
            lines += [text_line("")] * (height - 1 - len(lines))
            lines.append(self.foot(width))
        return lines[:height]

    def foot(self, width: int) -> Line:
        """The keys."""
        spans = []
        for key, name in words.foot(self.KEYS, width):
            spans += [Span(key, "key"), Span(name + " ", "head"), Span(" ")]
        return tuple(spans)

    room = 1
    head_lines = 0

    # -- keys ---------------------------------------------------------------------------------------------------------

    def on_resize(self, event: events.Resize) -> None:
        """All is drawn anew."""
        self.call_after_refresh(self.update)

    def on_screen_resume(self) -> None:
        """Another screen was over it."""
        self.call_after_refresh(self.update)

    def action_move(self, by: int) -> None:
        """The cursor goes up or down."""
        self.cursor += by
        self.update()

    def action_leaf(self, by: int) -> None:
        """By a page."""
        self.cursor += by * self.room
        self.update()

    def action_pause(self) -> None:
        """Stay here, or go on."""
        self.when = self.now_ns() if self.when is None else None
        self.update()

    def action_live(self) -> None:
        """To what is now."""
        self.when = None
        self.update()

    def action_step(self, by: int) -> None:
        """Later, or earlier."""
        now_ns = self.now_ns()
        if now_ns is not None:
            self.when = self.time_at(now_ns if self.when is None else self.when, by)
        self.update()

    def action_help(self) -> None:
        """What the keys do."""
        self.app.push_screen(Help(self.KEYS))

    def action_ask(self, asked: str) -> None:
        """Begin to type something."""
        if self._asking:
            return
        self._asking = asked
        prompt = Input(self.start_of(asked), placeholder=asked, select_on_focus=False)
        self.mount(prompt)
        prompt.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """It was typed."""
        asked = self._asking
        self._end_prompt()
        try:
            self.note = ""
            self.answer(asked, event.value)
        except PydamonError as error:
            self.note = str(error)
        self.update()

    def on_key(self, event: events.Key) -> None:
        """Escape ends a prompt."""
        if event.key == "escape" and self._asking:
            event.stop()
            event.prevent_default()
            self._end_prompt()

    def _end_prompt(self) -> None:
        self._asking = ""
        self.query(Input).remove()
        self.view.focus()

    # -- the mouse ----------------------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        """A row is chosen; twice: looked at."""
        row = event.y - self.head_lines
        if not 0 <= row < self.room:
            if row < 0:
                self.clicked_head(event.x, row + self.head_lines)
            return
        self.cursor = self.first + row
        self.update()
        if event.chain == 2:
            self.chosen()

    def clicked_head(self, x: int, y: int) -> None:
        """Somewhere above the rows."""

    def chosen(self) -> None:
        """The row under the cursor is to be looked at."""

    def on_mouse_scroll_down(self) -> None:
        """The wheel."""
        self.action_move(3)

    def on_mouse_scroll_up(self) -> None:
        """The wheel."""
        self.action_move(-3)


class Help(ModalScreen[None]):
    """The keys, and what is shown. Any key ends it."""

    def __init__(self, keys: tuple[tuple[str, str, str], ...]) -> None:
        super().__init__()
        self._keys = keys
        self._view = Lines()

    def compose(self) -> ComposeResult:
        """See `Screen`."""
        yield self._view

    def on_resize(self, event: events.Resize) -> None:
        """Draw."""
        width = event.size.width
        lines = [text_line(fit("pydamon top: keys (any key: back)", width), "bold"), text_line("")]
        lines += [(Span(f"{key:<8}", "key"), Span(fit(what, max(width - 9, 1)))) for key, _, what in self._keys]
        lines += [text_line(""), *[text_line(line) for about in _ABOUT for line in textwrap.wrap(about, max(width, 8))]]
        self._view.show(lines)

    def on_key(self, event: events.Key) -> None:
        """Back."""
        event.stop()
        self.dismiss()

    def on_click(self) -> None:
        """Back."""
        self.dismiss()


_ABOUT = (
    "USED was accessed within 10 s, IDLE was not for 1 min; > : at least, the time is not over.",
    "Both are estimates from pages drawn at random; ± holds in 95 of 100 cases.",
    "RES is in memory. VIA: what pages are asked through. COST: CPU that asking takes.",
    "- : nobody knows. Looking clears the accessed bits of the pages that it asks about.",
)
