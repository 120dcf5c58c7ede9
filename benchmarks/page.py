"""What the page of ``pydamon serve`` costs: the first paint and the frames while it is panned and zoomed, in Chromium.

Headless, drawn in software: a machine with a graphics card does better. Of a record as `benchmarks reports` makes them;
the server has read it before. Beside it what the browser takes for a page with nothing on it: on a busy machine that is
much of it. Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.reports import REGIONS, add_record_options, record_of

_OPTIONS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
# By the browser's own clock, from when it began to ask until the frame with the heatmap was drawn, or the text.
_HEATMAP = "performance.getEntriesByName('heatmap')[0]?.startTime"
_TEXT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
READY = "globalThis.pydamon?.scene.shown.length > 0 && pydamon.scene.shown.every((one) => one.map.settled)"
VISITS = 9
# Moves the picture at each frame that the browser draws, and says when they were.
_FRAMES = """async ([kind, frames]) => {
    const map = pydamon.scene.shown[0].map, times = [];
    map.zoom(kind === 'zoom' ? 1 : 0.25, 300, 200);
    for (let at = 0; at < frames; at++) {
        if (kind === 'zoom') map.zoom(at % 60 < 30 ? 0.93 : 1 / 0.93, 500, 200);
        else map.pan(at % 100 < 50 ? 0.02 : -0.02, 0);
        times.push(await new Promise(requestAnimationFrame));
    }
    return [times, map.frames.slice(-frames)];
}"""


def _painted(browser: Any, address: str, painted: str = _HEATMAP) -> tuple[float, Any]:
    """(milliseconds from the request to a heatmap that is drawn, the page)."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    while (found := page.evaluate(painted)) is None:
        time.sleep(0.005)
    return found, page


def measure(address: str, frames: int) -> None:
    """Print what the browser says."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_OPTIONS.split())
        found, page = _painted(browser, address)
        while "reading" in (page.text_content("#said") or ""):
            time.sleep(0.1)
        page.close()
        empty = address.replace("/?", "/page/page.css?")
        visits = {"the page": list[float](), "an empty one": list[float]()}
        for _ in range(VISITS):
            found, page = _painted(browser, empty, _TEXT)
            visits["an empty one"].append(found)
            page.close()
            found, page = _painted(browser, address)
            visits["the page"].append(found)
            page.close()
        for what, times in visits.items():
            best, median, most = min(times), statistics.median(times), max(times)
            aim = "  (aim 500)" if what == "the page" else ""
            print(f"first paint, {what:12} {median:5.0f} ms ({best:.0f} to {most:.0f}){aim}")
        found, page = _painted(browser, address)
        while not page.evaluate(READY):
            time.sleep(0.1)
        for kind in ("pan", "zoom"):
            times, drawing = page.evaluate(_FRAMES, [kind, frames])
            steps = np.diff(np.array(times))
            late = np.percentile(steps, 99)
            print(
                f"{kind:5} {1000 / steps.mean():5.1f} frames/s (aim 30), 99 % within {late:5.1f} ms; "
                f"drawing takes {np.median(drawing):5.1f} ms, 99 % {np.percentile(drawing, 99):5.1f} ms"
            )
        browser.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks page", description=__doc__.splitlines()[0])
    add_record_options(parser)
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    if shutil.which("chromium") is None:
        print("\n== page: needs Chromium (apt-get install chromium)")
        return
    with record_of(options) as path:
        about = path if options.record else f"{options.snapshots * REGIONS / 1e6:.1f} M rows"
        print(f"\n== the page of a record of {about}; load {os.getloadavg()[0]:.0f}")
        command = [sys.executable, "-m", "pydamon", "serve", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            try:
                measure(server.stdout.readline().strip(), options.frames)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
