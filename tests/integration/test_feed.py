"""Kdamonds in the background as `serve` follows them: without a record, and one that rotates; and their metrics."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.helpers.command import only_line, pydamon
from tests.helpers.waiting import GENEROUS_S, wait_until
from tests.integration.service_helpers import runtime_fixture  # noqa: F401 - a fixture

from pydamon.errors import PydamonError
from pydamon.records.joined import open_record
from pydamon.records.rotating import parts_of
from pydamon.service.client import Client
from pydamon.web.feed import Feed
from pydamon.web.recording import Recording

pytest.importorskip("starlette", reason="needs starlette")

TOKEN = "0123456789abcdef-token"
pytestmark = pytest.mark.usefixtures("runtime")


# An hour: the machine may be busy.
LASTING = "#regions\nheap, 4194304\n\nplay\n3600000\nheap, 1, 4096, 1\n"


def start(name: str, *more: str) -> None:
    (workload := Path(os.environ["XDG_RUNTIME_DIR"], "lasting")).write_text(LASTING)
    done = pydamon("start", "--ops", "sim", "--workload", str(workload), "--name", name, *more)
    assert done.returncode == 0, done.stderr


def test_what_it_knows_of_before_and_what_comes_is_in_the_record_that_is_kept(tmp_path: Path) -> None:
    start("mute")
    wait_until(lambda: (Client("mute").live()[1] or (0, 0))[1] > 3 * 10**9)
    feed = Feed(Client("mute"))
    try:
        with Recording(feed.path, note="as it is") as recording:
            recording.start()
            wait_until(lambda: recording.version > 0)
            first_ns = recording.summary()["span_ns"]
            assert first_ns > 2 * 10**9  # of before it was asked
            wait_until(lambda: recording.summary()["span_ns"] > first_ns + 2 * 10**9)
            assert recording.summary()["warnings"] == ["as it is"]
            assert "workload" in recording.summary()["targets"][0]["title"]
            Client("mute").stop()
            wait_until(lambda: not recording.growing)
        with open_record(feed.path) as reader:
            times = [snapshot.end_ns for snapshot in reader.snapshots()]
            assert times == sorted(set(times))
    finally:
        feed.close()
    assert not Path(feed.path).parent.exists()
    with pytest.raises(PydamonError, match="no kdamond of that name"):
        Client("mute")


@contextmanager
def serving(tmp_path: Path, *names: str) -> Iterator[str]:
    """The address of a page of these."""
    (tmp_path / "token").write_text(TOKEN)
    command = [sys.executable, "-m", "pydamon", "serve", *names, "--token-file", str(tmp_path / "token")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().partition("/?token")[0]
    finally:
        server.terminate()
        server.communicate(timeout=GENEROUS_S)


def test_nothing_is_left_by_one_that_is_told_to_end_before_it_serves(tmp_path: Path) -> None:
    start("mute")
    wait_until(lambda: Client("mute").live()[0] is not None)
    (kept := tmp_path / "kept").mkdir()
    command = [sys.executable, "-m", "pydamon", "serve", "mute"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(kept)})
    wait_until(lambda: any(kept.glob("pydamon-serve-*")), every_s=0.0005)
    server.terminate()
    server.communicate(timeout=GENEROUS_S)
    assert server.returncode in (0, 130)
    assert not list(kept.glob("pydamon-serve-*"))
    Client("mute").stop()


def got(url: str, **headers: str) -> bytes:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=GENEROUS_S) as answer:
        found: bytes = answer.read()
    return found


def test_metrics_of_what_is_served_are_beside_the_page_for_who_has_the_token(tmp_path: Path) -> None:
    start("one")
    start("two", "-o", str(tmp_path / "two.damon"))
    for name in ("one", "two"):
        wait_until(lambda name=name: Client(name).live()[0] is not None)  # type: ignore[misc]
    with serving(tmp_path, "one", "two") as address:
        text = ""

        def told() -> set[str]:
            """Who is in it: one that is slow to answer is left out."""
            nonlocal text
            text = got(f"{address}/metrics", Authorization=f"Bearer {TOKEN}").decode()
            families = text_string_to_metric_families(text)
            resident = (family.samples for family in families if family.name == "pydamon_resident_bytes")
            return {sample.labels["kdamond"] for samples in resident for sample in samples}

        wait_until(lambda: told() == {"one", "two"})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            got(f"{address}/metrics")
        packed = got(f"{address}/metrics", Authorization=f"Bearer {TOKEN}", **{"Accept-Encoding": "gzip"})
        assert packed[:2] == b"\x1f\x8b"
        if shutil.which("promtool") is not None:
            done = subprocess.run(
                ["promtool", "check", "metrics"], input=text.encode(), capture_output=True, timeout=GENEROUS_S
            )
            assert (done.returncode, done.stdout) == (0, b"")
    for name in ("one", "two"):
        Client(name).stop()


def test_the_parts_of_a_record_that_rotates_are_followed(tmp_path: Path) -> None:
    """By the kdamond's name: there is no file of the name that it was told."""
    path = tmp_path / "parts.damon"
    start("turns", "-o", str(path), "--rotate", "2s")
    wait_until(lambda: len(list(tmp_path.glob("parts.*.damon"))) >= 2)
    assert not path.exists()
    with Recording(parts_of(str(path))) as recording:
        recording.start()
        wait_until(lambda: recording.version > 0)
        there = len(list(tmp_path.glob("parts.*.damon")))
        wait_until(lambda: len(list(tmp_path.glob("parts.*.damon"))) >= there + 2)
        wait_until(lambda: recording.summary()["span_ns"] > (there + 1) * 2 * 10**9)
        assert recording.summary()["error"] is None
    with serving(tmp_path, "turns") as address:
        assert b"parts." in got(f"{address}/api/recordings", Authorization=f"Bearer {TOKEN}")
    Client("turns").stop()


def test_one_that_is_not_there_is_said_so() -> None:
    done = pydamon("serve", "nobody")
    assert done.returncode == 2
    assert "nobody" in only_line(done)
