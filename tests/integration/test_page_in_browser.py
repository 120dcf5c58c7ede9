"""The page of ``pydamon serve`` in a browser: what is drawn, zoomed, hovered, told; names that are markup; access."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.helpers.command import pydamon
from tests.helpers.waiting import wait_until
from tests.integration.browser import chromium, colour_at, need, opened, serving, settle, times
from tests.integration.service_helpers import AN_HOUR
from tests.unit.cli.rich_record import MIB, rich
from tests.unit.records.record_samples import AGGR_NS, START_NS, mapping, metadata, snapshot

from pydamon import what_if as what_if_of
from pydamon.markup import RAMP
from pydamon.records.writer import RecordWriter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

need()

HOT, NEVER = [*RAMP[-1], 255], [*RAMP[0], 255]


@pytest.fixture(name="browser", scope="module")
def browser_fixture() -> Iterator[Browser]:
    """One for all tests."""
    with chromium() as found:
        yield found


@pytest.fixture(name="record", scope="module")
def record_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of `rich`: from below a hot MiB, one hot in every second snapshot, two idle ones."""
    return rich(tmp_path_factory.mktemp("r") / "rich.damon", seconds=60)


@pytest.fixture(name="address", scope="module")
def address_fixture(record: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two recordings that are served."""
    other = rich(tmp_path_factory.mktemp("o") / "other.damon", seconds=20, pid=77)
    with serving(str(record), str(other)) as found:
        yield found


@pytest.fixture(name="page")
def page_fixture(browser: Browser, address: str) -> Iterator[Page]:
    """The page, drawn."""
    with opened(browser, address) as found:
        yield found


def said(page: Page, selector: str) -> str:
    """The text of an element."""
    return " ".join((page.text_content(selector) or "").split())


def test_heat_is_drawn_and_the_token_is_gone_from_the_address(page: Page) -> None:
    assert "token" not in page.url
    assert said(page, "h2") == "program0 --flag (pid 1234)"
    assert said(page, ".recording p").startswith("rich.damon: 1 min, vaddr by bpf")
    for x in (0.5, 0.7, 0.9):
        assert colour_at(page, x, 0.1) == HOT
        assert colour_at(page, x, 0.95) == NEVER


def test_what_is_under_the_pointer_is_told_and_the_curves_follow(page: Page) -> None:
    box = page.locator(".map canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 60)
    wait_until(lambda: "accessed in 100 % of the samples" in said(page, ".under"))
    assert "[heap], 8 KiB from 0x55d0c0a" in said(page, ".under")
    wait_until(lambda: re.search("working set[12]", said(page, ".u-legend")))
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 12)
    wait_until(lambda: "libx.so.1" in said(page, ".under"))
    # Idle since the start, 30 s before: more cannot be known.
    assert "not accessed for at least 30" in said(page, ".under") or "at least 29" in said(page, ".under")


def test_wheel_drag_box_and_keys_move_and_zoom(page: Page) -> None:
    box = page.locator(".map canvas").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    for _ in range(4):
        page.mouse.wheel(0, -300)
    wait_until(lambda: times(page)[1] - times(page)[0] < 11)  # 60 s * 0.638 ** 4: all four were taken
    low, high = times(page)
    assert low < 30 < high
    page.mouse.down()
    page.mouse.move(middle[0] + 100, middle[1], steps=3)
    page.mouse.up()
    assert times(page)[0] == pytest.approx(low - 100 / box["width"] * (high - low), rel=1e-3)
    page.mouse.dblclick(*middle)
    assert times(page) == pytest.approx((0, 60))
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], middle[1], steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert times(page) == pytest.approx((15, 30), abs=0.2)
    page.focus(".map canvas")
    page.keyboard.press("ArrowRight")
    assert times(page)[0] == pytest.approx(16.5, abs=0.2)
    page.keyboard.press("0")
    assert times(page) == pytest.approx((0, 60))


def test_zoomed_far_in_single_snapshots_are_seen(page: Page) -> None:
    """A tenth of a second each: the second MiB is hot in every second one, by a half."""
    page.evaluate("pydamon.scene.show(10, 11)")
    settle(page)
    found = [colour_at(page, (at + 0.5) / 10, 0.6) for at in range(10)]
    assert found[::2] == [NEVER] * 5
    assert NEVER not in found[1::2]
    assert len({tuple(colour) for colour in found[1::2]}) == 1


def test_the_table_tells_what_is_seen(page: Page) -> None:
    wait_until(lambda: page.locator("table.told").count() >= 2)
    rows = [row.split("\t") for row in page.locator("table.told").first.locator("tbody").inner_text().splitlines()]
    assert [row[:3] for row in rows] == [["[heap]", "anonymous", "2 MiB"], ["libx.so.1", "file", "2 MiB"]]
    assert "reclaim" in said(page, "table.told >> nth=1")
    page.evaluate("pydamon.scene.shown[0].map.low = pydamon.scene.shown[0].addresses.cells - 9")
    page.evaluate("pydamon.scene.moved()")
    wait_until(lambda: "[heap]" not in said(page, "table.told"))


def test_cold_memory_goes_by_the_slider(page: Page) -> None:
    """Two MiB are idle since the start, a minute before."""
    wait_until(lambda: "2 MiB not accessed for at least 10 s" in said(page, ".recording"))
    page.focus("#cold")
    page.keyboard.press("End")
    wait_until(lambda: "0 B not accessed for at least 24 h" in said(page, ".recording"))
    assert page.get_attribute("#cold", "aria-valuetext") == "24 h"
    marks = "pydamon.scene.shown[0].map.coldRanges.length"
    wait_until(lambda: page.evaluate(marks) == 0)
    page.keyboard.press("Home")
    wait_until(lambda: page.evaluate(marks) >= 1)


def test_two_recordings_have_one_scale_of_time_and_colours(page: Page) -> None:
    page.select_option("#beside", label="other.damon: program0 --flag (pid 77)")
    wait_until(lambda: page.locator(".map canvas").count() == 2)
    settle(page)
    assert times(page) == pytest.approx((0, 60))
    assert colour_at(page, 0.2, 0.1, canvas=1) == HOT
    assert colour_at(page, 0.5, 0.1, canvas=1)[3] == 0  # it lasted 20 s
    page.evaluate("document.getElementById('top').value = 10")
    page.dispatch_event("#top", "input")
    page.evaluate("pydamon.scene.show(0, 1)")
    settle(page)
    assert colour_at(page, 0.15, 0.6) == colour_at(page, 0.15, 0.6, canvas=1) == HOT


def test_names_that_are_markup_are_texts(browser: Browser, tmp_path: Path) -> None:
    """Of the file, the program, a mapping, a scheme; on the server's page and in the file of it."""
    hostile = "<img src=x onerror=alert(1)><|script><script>alert(2)<|script>"
    about = metadata(7)
    about["targets"][0]["command"] = hostile
    record = tmp_path / f"{hostile}.damon"
    with RecordWriter(record, metadata=about) as writer:
        writer.add_mappings(START_NS, 0, [mapping(0, MIB, f"/{hostile}")])
        for number in range(20):
            writer.add_snapshot(snapshot(number, [(0, MIB, number, 0)]))
        row: dict[str, Any] = {"time_ns": START_NS, "scheme": 0, "name": hostile, "action": "stat", "active": True}
        counted = (
            "nr_tried",
            "sz_tried",
            "nr_applied",
            "sz_applied",
            "sz_ops_filter_passed",
            "qt_exceeds",
            "nr_snapshots",
        )
        writer.add_rows("schemes", [row | dict.fromkeys(counted, 0)], time_ns=START_NS)
    made = tmp_path / "page.html"
    assert pydamon("export", str(record), "--format", "html", "-o", str(made)).returncode == 0
    with serving(str(record)) as address:
        for place in (address, made.as_uri()):
            with opened(browser, place) as page:
                wait_until(lambda: page.locator("table.told").count() >= 2)
                page.hover(".map canvas")
                wait_until(lambda: "onerror" in said(page, ".under"))
                assert page.locator("img").count() == 0
                assert "<img src=x onerror=alert(1)>" in said(page, "h2")
                assert "onerror" in said(page, "table.told >> nth=0")
                assert "onerror" in said(page, "table.told >> nth=1")


def what_if(page: Page) -> str:
    """What the panel says once it is there: it is loaded when it is seen."""
    page.locator(".what-if").scroll_into_view_if_needed()
    wait_until(lambda: page.locator(".what-if canvas").count() == 2)
    return said(page, "section:has(> .what-if) > p")


def what_if_requests(page: Page) -> int:
    """How often the page has asked for it."""
    names: list[str] = page.evaluate("performance.getEntriesByType('resource').map((one) => one.name)")
    return sum("what-if" in name for name in names)


def drawn_in(page: Page, colour: str, canvas: int) -> int:
    """The pixels of a chart of the panel that have the colour of that name in the style."""
    script = """([name, at]) => {
        const words = getComputedStyle(document.documentElement).getPropertyValue(name).trim().slice(1);
        const wanted = [0, 2, 4].map((place) => parseInt(words.slice(place, place + 2), 16));
        const canvas = document.querySelectorAll('.what-if canvas')[at];
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let found = 0;
        for (let pixel = 0; pixel < data.length; pixel += 4) {
            found += wanted.every((value, place) => Math.abs(data[pixel + place] - value) < 3) && data[pixel + 3] > 250;
        }
        return found; }"""
    found: int = page.evaluate(script, [colour, canvas])
    return found


def test_what_if_is_loaded_when_it_is_seen_and_drawn(browser: Browser, tmp_path: Path) -> None:
    """On the server's page and in the file of it: of a minute in which a part is used every 10 s, a part never."""
    workload, record, made = tmp_path / "w.masim", tmp_path / "w.damon", tmp_path / "w.html"
    workload.write_text(
        "#regions\nhot, 32 MiB\nseldom, 64 MiB\nunused, 96 MiB\n\nday\n60000\nhot, 0, 4096, 91553\nseldom, 0, 4096, 2\n"
    )
    how = ["--ops", "sim", "--workload", str(workload), "--sample", "100ms", "--aggr", "1s"]
    assert pydamon("record", *how, "-o", str(record)).returncode == 0
    assert pydamon("export", str(record), "--format", "html", "-o", str(made)).returncode == 0
    told = what_if_of(str(record))
    with serving(str(record)) as address:
        for place in (address, made.as_uri()):
            with opened(browser, place, viewport={"width": 1280, "height": 500}) as page:
                wait_until(lambda: page.locator("section:has(> .what-if)").count() == 1)
                assert page.locator(".what-if canvas").count() == 0
                assert what_if_requests(page) == 0
                assert what_if(page).startswith("For at most 0.2 % of the working set (")
                assert what_if_requests(page) == (place == address)
                assert drawn_in(page, "--cold", 0) > 500
                assert drawn_in(page, "--used", 1) > 500
                assert min(drawn_in(page, "--mark", canvas) for canvas in (0, 1)) > 100
                page.click("text=In numbers")
                rows = page.locator("section:has(> .what-if) table.told tbody tr")
                assert rows.count() == len(told.rows)
                assert rows.first.inner_text().startswith("1 s\t")
                page.focus("#cold")
                page.keyboard.press("ArrowLeft")
                wait_until(lambda: "a minute would come back" in said(page, ".recording"))


def test_one_file_needs_no_server(browser: Browser, record: Path, tmp_path: Path) -> None:
    made = tmp_path / "page.html"
    assert pydamon("export", str(record), "--format", "html", "-o", str(made)).returncode == 0
    with opened(browser, made.as_uri()) as page:
        assert colour_at(page, 0.5, 0.1) == HOT
        assert colour_at(page, 0.5, 0.95) == NEVER
        wait_until(lambda: "2 MiB not accessed for at least 10 s" in said(page, ".recording"))
        wait_until(lambda: "libx.so.1" in said(page, "table.told"))
        page.hover(".map canvas")
        for _ in range(8):
            page.mouse.wheel(0, -300)
        wait_until(lambda: times(page)[1] - times(page)[0] < 2)  # 60 s * 0.638 ** 8
        settle(page)
        wait_until(lambda: "[heap]" in said(page, ".under"))


def test_a_recording_that_grows_is_followed(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "r"
    with RecordWriter(path, metadata=metadata(7)) as writer:
        for number in range(20):
            writer.add_snapshot(snapshot(number, [(0, MIB, 0, number)]))
        writer.flush()
        with serving(str(path)) as address, opened(browser, address) as page:
            assert said(page, ".recording p").endswith("still being recorded")
            assert times(page) == pytest.approx((0, 2))
            for number in range(20, 100):
                writer.add_snapshot(snapshot(number, [(0, MIB, 20, 0)]))
            writer.flush()
            wait_until(lambda: times(page)[1] == pytest.approx(100 * AGGR_NS / 1e9))
            settle(page)
            assert colour_at(page, 0.1, 0.5) == NEVER
            wait_until(lambda: colour_at(page, 0.9, 0.5) == HOT)


LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True},
}


@pytest.mark.parametrize("look", LOOKS)
def test_anybody_can_use_it(browser: Browser, address: str, look: str) -> None:
    """axe-core finds nothing serious; nothing is wider than a phone."""
    axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    script = Path(axe.__file__).with_name("axe.min.js").read_text()
    with opened(browser, address, **LOOKS[look]) as page:
        wait_until(lambda: page.locator("table.told").count() >= 2)
        what_if(page)
        page.click("text=In numbers")
        page.evaluate(script)
        found = page.evaluate("axe.run()")
        serious = [rule for rule in found["violations"] if rule["impact"] in ("serious", "critical")]
        assert [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in serious] == []
        assert len(found["passes"]) > 20
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_kdamond_in_the_background_is_shown_with_its_status(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulated one, as any user can run."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (own := tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(own))  # others may serve, too
    how = ["--ops", "sim", "--workload", AN_HOUR]
    for name, more in (("web", ["-o", "web.damon"]), ("mute", [])):
        done = pydamon("start", "--name", name, *how, *more)
        assert done.returncode == 0, done.stderr
    try:
        with serving("web") as address, opened(browser, address) as page:
            wait_until(lambda: "web.damon" in said(page, ".recording p"))
            wait_until(lambda: "sim" in said(page, "pre"))
        with serving("mute") as address, opened(browser, address) as page:
            wait_until(lambda: "what this kdamond keeps in memory is shown" in said(page, ".warning"))
            seconds = times(page)[1]
            wait_until(lambda: times(page)[1] > seconds + 2)  # it is followed
            wait_until(lambda: page.locator("table.told tr").count() > 1)
            wait_until(lambda: "sim" in said(page, "pre"))
            assert list(own.glob("pydamon-serve-*"))
        assert not list(own.glob("pydamon-serve-*"))
    finally:
        for name in ("web", "mute"):
            pydamon("stop", name)
