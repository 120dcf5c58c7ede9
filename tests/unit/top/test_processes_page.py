"""The screen of many processes: what it shows, on screens of any kind, and what its keys do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.top.drawn import as_it_was, text_of
from tests.unit.top.seen_processes import BEGAN, SECOND, past, processes
from textual.pilot import Pilot

from pydamon.errors import RequestError
from pydamon.top.app import TopApp, run_top
from pydamon.top.order import Order
from pydamon.top.processes_page import ProcessesPage
from pydamon.top.spans import plain
from pydamon.views.processes import Process

Drive = Callable[[Pilot[None]], Any]


class Screen:
    """An app over a past that is filled by hand."""

    def __init__(self, *, seconds: int = 3, more: int = 0, order: Order = Order(), notice: str = "") -> None:  # noqa: B008
        self.past = past(seconds, more)
        latest = self.past.latest()
        if notice and latest is not None:
            latest.notices.append(notice)
        self.looked_at: list[int] = []
        self.page = ProcessesPage(self.past, self._look_at, self._write, order)
        self.app = TopApp(lambda app: self.page)
        self.drawn = ""  # all of the screen, when the last key had been pressed

    def _look_at(self, process: Process) -> None:
        self.looked_at.append(process.pid)

    def _write(self, path: str) -> str:
        if path == "full":
            raise RequestError("no space left", where=path)
        return f"written: {path}"

    @property
    def text(self) -> list[str]:
        return [plain(line) for line in self.page.view.lines]

    def rows(self) -> list[str]:
        """The pids in the rows that are seen."""
        lines = self.text[self.page.head_lines : self.page.head_lines + self.page.room]
        return [line.split()[0] for line in lines if line]


async def press(screen: Screen, *keys: str, size: tuple[int, int] = (80, 24)) -> None:
    async with screen.app.run_test(size=size) as pilot:
        await pilot.pause()
        await pilot.press(*keys)
        await pilot.pause()
        screen.drawn = text_of(screen.app)


def run(screen: Screen, *keys: str, size: tuple[int, int] = (80, 24)) -> Screen:
    asyncio.run(press(screen, *keys, size=size))
    return screen


SCREENS = {
    "80x24": ((80, 24), ()),
    "40x20": ((40, 20), ()),
    "132x40": ((132, 40), ()),
    "tree": ((80, 24), ("f5", "down", "down")),
    "past": ((80, 24), ("T",)),
    "help": ((80, 24), ("f1",)),
    "filter": ((80, 24), ("f4", "p", "o", "s", "t")),
}


@pytest.mark.parametrize("name", SCREENS)
def test_the_screen_is_as_it_was(name: str) -> None:
    size, keys = SCREENS[name]
    assert as_it_was(f"list {name}", run(Screen(more=40 if name == "132x40" else 0), *keys, size=size).drawn)


def test_without_colour_it_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured = run(Screen(), "T").drawn
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(Screen(), "T").drawn == coloured


def test_what_others_have_named_reaches_no_terminal_as_it_is() -> None:
    screen = run(Screen(notice="\x1b[2J[red]boo"), size=(200, 40))
    text = "\n".join(screen.text)
    assert "[red]evil[/red] \\x1b]0;owned\\x07" in text
    assert "\\x1b[2J[red]boo" in text
    assert all(line.isprintable() for line in screen.text)


@pytest.mark.parametrize("size", [(1, 1), (20, 3), (40, 4), (10, 30), (300, 100)])
def test_any_size_will_do(size: tuple[int, int]) -> None:
    screen = run(Screen(more=200), "down", "end", "pageup", "f5", "home", size=size)
    assert len(screen.text) <= size[1]


def test_the_cursor_goes_with_its_process_and_enter_looks_at_it() -> None:
    screen = run(Screen(), "down", "<", "enter")  # second of USED: 101; then by PID
    assert screen.page.order.by == "pid"
    assert screen.looked_at == [101]
    assert screen.rows() == ["1", "30", "31", "101", "102", "2001"]


def test_a_long_list_is_leafed_through() -> None:
    screen = run(Screen(more=100, order=Order(by="pid")), "pagedown", "pagedown", size=(80, 24))
    assert screen.page.cursor == 2 * screen.page.room
    assert str(5000 + 2 * screen.page.room - 6) in screen.rows()
    assert run(Screen(more=100, order=Order(by="pid")), "end").rows()[-1] == "5099"


def test_a_filter_stays_until_it_is_emptied() -> None:
    screen = run(Screen(), "backslash", *"redis", "enter")
    assert screen.rows() == ["2001"]
    assert screen.text[1] == "filter: redis"
    screen = run(Screen(order=Order(words="redis")), "f4", *(["backspace"] * 5), "enter")
    assert len(screen.rows()) == 6
    assert run(Screen(order=Order(words="redis")), "f4", "x", "escape").rows() == ["2001"]
    # q is a letter there, and does not end it
    assert run(Screen(), "f4", "q", "enter").page.order.words == "q"


def test_one_goes_back_in_time_and_to_what_is_now() -> None:
    earlier = run(Screen(), "T")
    assert earlier.page.when == BEGAN + SECOND
    assert earlier.text[0].startswith("pydamon top  14:13:21 (1 s before)")
    assert "45.0M" in "\n".join(earlier.text)
    assert run(Screen(), "T", "T", "T", "T", "t").page.when == BEGAN + SECOND
    assert run(Screen(), "left_square_bracket").page.when == BEGAN
    assert run(Screen(), "j", *"2s", "enter").page.when == BEGAN
    assert run(Screen(), "T", "l").page.when is None
    wrong = run(Screen(), "j", *"soon", "enter")
    assert wrong.page.when is None
    assert any("soon" in line for line in wrong.text)


def test_paused_it_stays_while_more_is_kept() -> None:
    screen = Screen()

    async def drive() -> None:
        async with screen.app.run_test() as pilot:
            await pilot.press("space")
            screen.past.add(processes(3))
            screen.app.redraw()
            await pilot.pause()
            assert screen.text[0].startswith("pydamon top  14:13:22 (1 s before)")
            await pilot.press("p")
            assert screen.text[0].startswith("pydamon top  14:13:23 ·")

    asyncio.run(drive())


def test_only_what_has_changed_is_drawn() -> None:
    screen = Screen(more=100)

    async def drive() -> tuple[int, int]:
        async with screen.app.run_test() as pilot:
            await pilot.pause()
            before = screen.page.view.drawn
            seen = processes(2, 100)
            seen.processes[2].resident_bytes *= 2
            screen.past.add(seen)
            screen.app.redraw()
            await pilot.pause()
            return screen.page.view.drawn - before, len(screen.text)

    drawn, lines = asyncio.run(drive())
    assert lines == 24
    assert drawn == 1


def test_a_click_chooses_and_sorts_and_a_second_one_looks() -> None:
    screen = Screen()

    async def drive() -> None:
        async with screen.app.run_test() as pilot:
            await pilot.click(offset=(3, 1))
            assert screen.page.order == Order(by="pid")
            await pilot.click(offset=(3, 1))
            assert screen.page.order == Order(by="pid", turned=True)
            await pilot.click(offset=(30, 4), times=2)
            await pilot.pause()

    asyncio.run(drive())
    assert screen.looked_at == [31] or screen.looked_at == [101]


def test_a_record_is_written_where_it_is_said(tmp_path: Path) -> None:
    assert "written: top.damonx" in run(Screen(), "w", "x", "enter").text
    failed = run(Screen(), "w", *(["backspace"] * 9), *"full", "enter")
    assert "full: no space left" in failed.text


def test_it_follows_the_terminal_when_its_size_changes() -> None:
    screen = Screen(more=50)

    async def drive() -> None:
        async with screen.app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await pilot.resize_terminal(40, 12)
            await pilot.pause()
            assert len(screen.text) == 12
            assert max(map(len, screen.text)) <= 40
            await pilot.resize_terminal(120, 40)
            await pilot.pause()
            assert len(screen.text) == 40

    asyncio.run(drive())


def test_an_error_while_it_looks_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(app: TopApp) -> None:
        raise RequestError("cannot be", where="there")

    screen = Screen()
    app = TopApp(lambda app: screen.page, work)
    monkeypatch.setattr(app, "run", lambda: asyncio.run(app.run_async(headless=True)))
    with pytest.raises(RequestError, match="cannot be"):
        run_top(app)
