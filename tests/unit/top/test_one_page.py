"""The screen of one process: what it shows, and what its keys do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.unit.top.drawn import as_it_was, text_of
from tests.unit.top.seen_one import METADATA, SECOND, note, store

from pydamon.records.joined import open_record
from pydamon.top.app import TopApp
from pydamon.top.one_page import OnePage
from pydamon.top.scenes import OfHistory
from pydamon.top.spans import plain
from pydamon.top.writing import write_history
from pydamon.views.live import live
from pydamon.views.recorded import Recorded


class Screen:
    """An app over a store that is filled by hand."""

    def __init__(self, seconds: int = 90, *targets: int, schemes: int = 1, notice: str = "") -> None:
        self.store = store(seconds, *(targets or (0,)), schemes=schemes)
        self.backs = 0
        self.page = OnePage(OfHistory(self.store), back=self._back, write=self._write, notice=lambda: notice)
        self.app = TopApp(lambda app: self.page)
        self.drawn = ""  # all of the screen, when the last key had been pressed

    def _back(self) -> None:
        self.backs += 1

    def _write(self, path: str) -> str:
        return write_history(path, METADATA, self.store)

    @property
    def text(self) -> list[str]:
        return [plain(line) for line in self.page.view.lines]


def run(screen: Screen, *keys: str, size: tuple[int, int] = (80, 24)) -> Screen:
    async def press() -> None:
        async with screen.app.run_test(size=size) as pilot:
            await pilot.pause()
            await pilot.press(*keys)
            await pilot.pause()
            screen.drawn = text_of(screen.app)

    asyncio.run(press())
    return screen


SCREENS = {
    "80x24": ((80, 24), ()),
    "40x20": ((40, 20), ()),
    "past": ((80, 24), ("T", "T")),
    "132x40": ((132, 40), ("f6",)),
}


@pytest.mark.parametrize("name", SCREENS)
def test_the_screen_is_as_it_was(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size, keys = SCREENS[name]
    monkeypatch.setattr("pydamon.top.one_page._CURVE_S", 60)  # all points are looked up at once
    assert as_it_was(f"one {name}", run(Screen(), *keys, size=size).drawn)


def test_what_others_have_named_reaches_no_terminal_as_it_is() -> None:
    screen = run(Screen(notice="boo"), size=(132, 40))
    text = "\n".join(screen.text)
    assert "4000 /usr/bin/redis-server \\x1b[31m[red]*:6379" in screen.text[0]
    assert "lib[b]evil\\x1b]0;x\\x07.so" in text
    assert all(line.isprintable() for line in screen.text)


@pytest.mark.parametrize("size", [(1, 1), (20, 3), (40, 6), (10, 30), (300, 100)])
def test_any_size_will_do(size: tuple[int, int]) -> None:
    screen = run(Screen(schemes=9), "down", "end", "tab", "T", size=size)
    assert len(screen.text) <= size[1]


def test_nothing_is_there_at_first() -> None:
    screen = run(Screen(0, notice="no such process"))
    assert screen.text[0] == "looking ..."
    assert screen.text[1] == "no such process"
    run(Screen(0), "T", "t", "l", "space", "tab", "j", *"3s", "enter")


def test_one_goes_back_in_time_from_step_to_step() -> None:
    assert run(Screen(), "T", "T").page.when == 88 * SECOND
    assert "(2 s before)" in run(Screen(), "T", "T").text[0]
    assert run(Screen(), "left_square_bracket", "t").page.when == 81 * SECOND
    assert run(Screen(), "j", *"30s", "enter").page.when == 60 * SECOND
    assert run(Screen(), "j", *"14:14:30", "enter").page.when == 70 * SECOND
    assert run(Screen(), "T", "l").page.when is None


def test_tab_goes_to_the_next_target_and_round() -> None:
    assert run(Screen(30, 0, 1, 2), "tab").page.target == 1
    assert run(Screen(30, 0, 1, 2), "shift+tab").page.target == 2
    assert run(Screen(30, 0, 1, 2), "tab", "tab", "tab").page.target == 0


def test_a_target_that_has_ended_is_said_to_have() -> None:
    screen = Screen(30, 0, 1)

    async def drive() -> None:
        async with screen.app.run_test() as pilot:
            await pilot.pause()
            for second in range(31, 33):
                note(screen.store, second, 1)
            screen.app.redraw()
            await pilot.pause()
            assert screen.text[1] == "target 0 has ended"
            await pilot.press("tab")
            assert screen.text[0].startswith("4001 ")

    asyncio.run(drive())


def test_escape_goes_back_but_from_a_prompt_only_out_of_it() -> None:
    assert run(Screen(), "escape").backs == 1
    assert run(Screen(), "j", "5", "escape").backs == 0


def test_schemes_are_counted_where_there_are_many() -> None:
    screen = run(Screen(schemes=9))
    assert sum(line.startswith("scheme ") for line in screen.text) == 3
    assert "and 6 more schemes" in screen.text


def test_what_is_written_is_what_was_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.damon"
    screen = run(Screen(), "w", *(["backspace"] * 9), *str(path), "enter", size=(200, 24))
    assert f"{path}: 90 snapshots of 89 s" in screen.text
    with open_record(str(path)) as reader:
        recorded = Recorded(reader)
        for second in (1, 45, 90):
            kept, read = screen.store.at(second * SECOND), recorded.at(second * SECOND)
            assert kept is not None
            assert read is not None
            before, after = live(kept), live(read)
            assert after.time_ns == before.time_ns
            assert after.targets[0].used == before.targets[0].used
            assert after.targets[0].mappings == before.targets[0].mappings
            assert after.schemes == before.schemes
            assert after.cost == before.cost


def test_nothing_is_written_where_there_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.damon"
    screen = run(Screen(0), "w", *(["backspace"] * 9), *str(path), "enter", size=(200, 24))
    assert any("there is nothing to write yet" in line for line in screen.text)
    assert not path.exists()
