"""Headless Chromium, where this machine has it: for tests of the page, which look at what a person would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request

CHROMIUM = os.environ.get("PYDAMON_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


def need() -> None:
    """Skip where there is no browser, or nothing to drive it with."""
    pytest.importorskip("playwright", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt-get install chromium), or its path in PYDAMON_CHROMIUM")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that is closed in the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_OPTIONS.split())
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """``pydamon serve ARGS``: its address with the token. It ends with status 0 when told to."""
    command = [sys.executable, "-m", "pydamon", "serve", *arguments]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address, server.communicate()[1]
        yield address
    finally:
        server.terminate()
        _, err = server.communicate(timeout=120)
    assert (server.returncode, "Traceback" in err) == (0, False), err


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """A page that has drawn all that it shows; it must load nothing from elsewhere, and say no error."""
    wrong: list[str] = []
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
    try:
        page = context.new_page()
        _watch(page, address.partition("?")[0], wrong)
        page.goto(address)
        page.wait_for_selector(".map canvas", timeout=120_000)
        settle(page)
        yield page
        assert not wrong, wrong
    finally:
        context.close()


def _watch(page: Page, place: str, wrong: list[str]) -> None:
    """Collect what must not be: errors, dialogs, and requests that go elsewhere."""

    def dialog(one: Dialog) -> None:
        wrong.append(f"dialog: {one.message}")
        one.dismiss()

    def request(one: Request) -> None:
        if not one.url.startswith((place, "data:")):
            wrong.append(one.url)

    def console(one: ConsoleMessage) -> None:
        if one.type == "error":
            wrong.append(f"{one.text} {one.location}")

    page.on("dialog", dialog)
    page.on("request", request)
    page.on("console", console)
    page.on("pageerror", lambda error: wrong.append(str(error)))


def settle(page: Page) -> None:
    """Wait until every tile that is wanted is drawn. (Playwright's way to wait needs eval, which the page forbids.)"""
    from tests.helpers.waiting import wait_until

    settled = "pydamon.scene.shown.length > 0 && pydamon.scene.shown.every((one) => one.map.settled)"
    wait_until(lambda: page.evaluate(settled), every_s=0.05)


def colour_at(page: Page, x: float, y: float, canvas: int = 0) -> list[int]:
    """Red, green, blue and opacity of the heatmap at a share of its width, and of its height from below."""
    script = """([x, y, at]) => {
        const canvas = document.querySelectorAll('.map canvas')[at], height = canvas.height - 20 * devicePixelRatio;
        const place = [Math.floor(x * canvas.width), Math.floor((1 - y) * height)];
        return [...canvas.getContext('2d').getImageData(...place, 1, 1).data]; }"""
    found: list[int] = page.evaluate(script, [x, y, canvas])
    return found


def times(page: Page) -> tuple[float, float]:
    """The time that is shown, in seconds."""
    low, high = page.evaluate("[pydamon.scene.from, pydamon.scene.to]")
    return low, high
