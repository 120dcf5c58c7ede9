"""The page over HTTP: who may ask, what is answered, and what bad requests get."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.waiting import wait_until
from tests.unit.cli.rich_record import HEAP, MIB, rich
from tests.unit.records.record_samples import AGGR_NS, START_NS, mapping, metadata, snapshot, write

from pydamon.cli import main
from pydamon.records.batch import RegionBatch
from pydamon.records.rotating import RotatingWriter, parts_of
from pydamon.records.writer import RecordWriter
from pydamon.web.files import ALL, CHARTS, STYLE
from pydamon.web.recording import Recording

pytest.importorskip("starlette", reason="needs starlette")
pytest.importorskip("httpx", reason="needs httpx")

from tests.unit.web.asgi_client import TOKEN, Client, known

SECOND = 10**9


@pytest.fixture(name="recording", scope="module")
def recording_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """Thirty seconds of `rich`."""
    with Recording(str(rich(tmp_path_factory.mktemp("r") / "rich.damon", seconds=30)), follow=False) as found:
        found.read_now()
        yield found


@pytest.fixture(name="client")
def client_fixture(recording: Recording) -> Client:
    """A client that shows the token."""
    return known(recording)


class TestWhoMayAsk:
    def test_the_printed_address_gives_a_cookie_and_takes_the_token_out_of_it(self, recording: Recording) -> None:
        client = Client([recording])
        first = client.get(f"/?token={TOKEN}")
        assert (first.status_code, first.headers["location"]) == (303, "./")
        cookie = first.headers["set-cookie"]
        assert cookie == f"pydamon-80={TOKEN}; HttpOnly; SameSite=Strict; Path=/"
        page = client.get("/")
        assert page.status_code == 200
        assert client.get("/api/recordings").json()["recordings"][0]["name"] == "rich.damon"

    @pytest.mark.parametrize("path", ["/", "/api/recordings", "/page/all.js", "/none", "/api/0/0/tile/0/0/0/0"])
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": f"Bearer {TOKEN}x"},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": "Bearer "},
            {"cookie": f"pydamon-80={TOKEN[:-1]}"},
            {"cookie": f"pydamon-81={TOKEN}"},
            {"cookie": "pydamon-80"},
            {"cookie": "a\x01b;;;=;"},
        ],
    )
    def test_without_the_token_nothing_is_said(self, recording: Recording, path: str, headers: dict[str, str]) -> None:
        answer = Client([recording]).get(path, headers=headers)
        assert (answer.status_code, answer.text.count("\n")) == (401, 1)
        assert "set-cookie" not in answer.headers

    @pytest.mark.parametrize("query", ["token=", "token=wrong", "token=%ff%fe", "token", f"x={TOKEN}&token=1"])
    def test_a_wrong_token_gives_no_cookie(self, recording: Recording, query: str) -> None:
        answer = Client([recording]).get(f"/?{query}")
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers

    @pytest.mark.parametrize(
        "host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:80", "10.1.2.3", "page.example"]
    )
    def test_addresses_and_given_names_are_served(self, recording: Recording, host: str) -> None:
        client = Client([recording], names=("page.example",))
        assert client.get("/", headers={"host": host, "authorization": f"Bearer {TOKEN}"}).status_code == 200

    @pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "a b"])
    def test_a_name_that_was_rebound_to_us_is_not(self, recording: Recording, host: str) -> None:
        answer = Client([recording]).get(f"/?token={TOKEN}", headers={"host": host})
        assert answer.status_code == 421

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
    def test_it_only_reads(self, client: Client, method: str) -> None:
        for path in ("/", "/api/recordings", f"/?token={TOKEN}"):
            assert client.request(method, path).status_code == 405

    def test_every_answer_says_what_may_run_and_that_it_is_not_to_be_kept(self, recording: Recording) -> None:
        for headers in ({}, {"authorization": f"Bearer {TOKEN}"}):
            for path in ("/", "/none", "/api/recordings", "/api/0/99", "/page/page.css"):
                answer = Client([recording]).get(path, headers=headers)
                policy = answer.headers["content-security-policy"]
                assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
                assert "unsafe" not in policy
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert answer.headers["cache-control"] == "no-store"
                assert "access-control-allow-origin" not in answer.headers


class TestAnswers:
    def test_the_page_loads_nothing_from_elsewhere(self, client: Client) -> None:
        page = client.get("/").text
        loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
        own = ["data:,", "page/all.js", "page/page.css", *(f"page/{name}" for name in CHARTS)]
        assert sorted(one for one in loaded if not one.startswith("api/0/0/plane/")) == own
        for name in (ALL, *CHARTS, STYLE):
            answer = client.get(f"/page/{name}")
            assert answer.status_code == 200
            kind = "text/css" if name.endswith("css") else "text/javascript"
            assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
            if not name.startswith("vendor/"):
                assert not re.search(
                    r"https?://|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", answer.text
                )

    def test_a_recording_in_numbers(self, client: Client) -> None:
        (one,) = client.get("/api/recordings").json()["recordings"]
        assert (one["span_ns"], one["rows"], one["progress"], one["error"]) == (30 * SECOND, 900, 1, None)
        assert one["targets"] == [{"target": 0, "title": "program0 --flag (pid 1234)", "bytes": 4 * MIB}]
        told = client.get("/api/0/0").json()
        assert told["mappings"] == [
            [hex(HEAP), hex(HEAP + 2 * MIB), "[heap]"],
            [hex(HEAP + 2 * MIB), hex(HEAP + 4 * MIB), "libx.so.1"],
        ]
        assert told["pieces"][0]["start"] == hex(HEAP)
        assert told["pieces"][-1]["end"] == hex(HEAP + 4 * MIB)

    def test_each_width_of_a_window_has_a_picture_that_is_asked_for_ahead(self, client: Client) -> None:
        page = client.get("/").text
        links = re.findall(r'href="api/0/0/plane/(\d+)" media="\(min-width: (\d+)px\) and \(max-width: (\d+)px\)', page)
        found = sorted((int(low), int(high), int(level)) for level, low, high in links)
        assert found[0][0] < 40
        assert all(before[1] + 1 == after[0] for before, after in pairwise(found))
        told = client.get("/api/0/0").json()
        for low, high, level in found:
            assert len(client.get(f"/api/0/0/plane/{level}").content) == told["cells"] * -(-told["columns"] >> level)
            for width in (low - 32, high - 32):  # as `resolution` of heatmap.js
                wanted = min(
                    math.floor(math.log2(told["end_ns"] / width / told["column_ns"]) + 1e-9), told["levels"] - 1
                )
                assert level == (0 if -3 < wanted < 0 else wanted)

    def test_what_is_asked_for_first_stands_in_the_page(self, client: Client) -> None:
        (told,) = re.findall(r'<script type="application/json" id="first">(.*)</script>', client.get("/").text)
        first = json.loads(told)
        assert first == client.get("/api/recordings").json() | {
            "shown": [0, 0],
            "told": client.get("/api/0/0").json(),
        }

    def test_a_plane_is_its_tiles(self, client: Client) -> None:
        """Those of the level by which the whole recording is drawn, in one answer."""
        told = client.get("/api/0/0").json()
        for level in range(told["levels"]):
            cells = np.frombuffer(client.get(f"/api/0/0/plane/{level}").content, np.uint8).reshape(-1, told["cells"])
            assert len(cells) == told["columns"] >> level
            tile = np.frombuffer(client.get(f"/api/0/0/tile/{level}/0/0/0").content, np.uint8).reshape(256, 256)
            assert (tile[: len(cells), : told["cells"]] == cells[:256, :256]).all()
            assert (cells[0, :100] == 255).all()

    def test_a_tile_is_the_heat(self, client: Client) -> None:
        """The lowest MiB is always hot; the finest level first, then one that is worked out of the snapshots."""
        told = client.get("/api/0/0").json()
        for level, shrink in ((0, 0), (told["levels"] - 1, 0), (-3, 0), (-4, -1)):
            answer = client.get(f"/api/0/0/tile/{level}/{shrink}/0/0")
            tile = np.frombuffer(answer.content, np.uint8).reshape(256, 256)
            assert (tile[:100, 0] == 255).all()
        # In the second MiB every second snapshot is hot by a half: of the first two here, the second.
        piece, width = told["pieces"][0], told["column_ns"] >> 3
        cell = 5 * MIB // 4 // piece["width"]
        tile = np.frombuffer(client.get(f"/api/0/0/tile/-3/0/0/{cell // 256}").content, np.uint8).reshape(256, 256)
        assert set(tile[: AGGR_NS // width, cell % 256].tolist()) == {1}
        assert set(tile[AGGR_NS // width + 1 : 2 * AGGR_NS // width, cell % 256].tolist()) == {181}

    def test_the_regions_of_a_time(self, client: Client) -> None:
        for when, number in ((0, 0), (SECOND + 1, 10), (29 * SECOND, 290), (10**15, 299)):
            found = client.get(f"/api/0/0/at?ns={when}").json()
            assert found["start_ns"] == number * AGGR_NS
            first, _, last = found["regions"]
            assert first == [hex(HEAP), hex(HEAP + MIB), 1.0, -1.0, MIB]
            assert last[3:] == [number / 10, 2 * MIB]

    def test_a_window_by_mapping(self, client: Client) -> None:
        """Cut to the hot MiB and the one below libx; after 10 s what is idle is cold."""
        query = f"from={20 * SECOND}&to={30 * SECOND}&low={HEAP}&high={HEAP + 3 * MIB}"
        found = client.get(f"/api/0/0/window?{query}").json()
        by_name = {row["name"]: row for row in found["mappings"]}
        assert by_name["libx.so.1"] == {
            "name": "libx.so.1", "kind": "file", "hot": 0, "warm": 0, "cold": MIB, "unknown": 0,
        }  # fmt: skip
        assert by_name["[heap]"]["hot"] + by_name["[heap]"]["warm"] == 2 * MIB
        assert MIB <= by_name["[heap]"]["hot"] <= 2 * MIB

    def test_recordings_have_no_metrics(self, client: Client) -> None:
        answer = client.get("/metrics")
        assert (answer.status_code, answer.text.count("\n")) == (404, 1)
        assert "kdamond in the background" in answer.text

    def test_schemes(self, client: Client) -> None:
        (one,) = client.get("/api/0/schemes").json()["schemes"]
        assert (one["name"], one["action"], one["applied_bytes"]) == ("reclaim", "pageout", 30 * MIB)

    def test_uplot_is_what_its_readme_says(self) -> None:
        import pydamon.web.files

        place = Path(pydamon.web.files.__file__).parent / "page/vendor"
        said = dict(re.findall(r"([0-9a-f]{64})  (\S+)", (place / "README.md").read_text()))
        found = {hashlib.sha256((place / name).read_bytes()).hexdigest(): name for name in said.values()}
        assert found == said
        assert "MIT" in (place / "uPlot.LICENSE").read_text()


class TestBadRequests:
    @pytest.mark.parametrize(
        "path",
        [
            "/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2f..%2f__init__.py", "/page//etc/passwd",
            "/page/vendor/../../app.py", "/page/%00", "/page/page.html", "/etc/passwd", "/api", "/api/",
            "/api/1/0", "/api/0/7", "/api/99999999/schemes", "/api/0/0/tile/0/0/0", "/api/0/0/tile/63/0/0/0",
            "/api/0/0/plane/63", "/api/0/0/plane", "/api/0/0/tile/0/0/99999999/0",
            "/api/0/0/tile/-64/0/0/0", "/api/0/0/tile/-2/-60/0/0",
            "/api/0/0/tile/-2/0/0/0", "/api/0/0/tile/-20/0/1099511627776/0", "/api/0/0/tile/0/64/0/0",
        ],
    )  # fmt: skip
    def test_what_is_not_there(self, client: Client, path: str) -> None:
        answer = client.get(path)
        assert answer.status_code == 404, answer.text
        assert len(answer.text) < 100

    @pytest.mark.parametrize(
        "path",
        [
            "/api/-1/0", "/api/x/0", "/api/0/x", "/api/0/-1", f"/api/0/{'9' * 5000}", "/api/0/1e3", "/api/٣/0",
            "/api/0/0/at", "/api/0/0/at?ns=", "/api/0/0/at?ns=-1", f"/api/0/0/at?ns={'9' * 4000}", "/api/0/0/at?ns=nan",
            "/api/0/0/window", "/api/0/0/window?from=5&to=5", "/api/0/0/window?from=9&to=2",
            f"/api/0/0/window?from=0&to=9&high={2**64}", "/api/0/0/window?from=0&to=9&low=7&high=7",
            "/api/0/0/plane/-1", "/api/0/0/plane/x", "/api/0/0/tile/999/0/0/0", "/api/0/0/tile/0/0/-1/0",
            f"/api/0/0/tile/0/0/{2**63}/0",
        ],
    )  # fmt: skip
    def test_what_cannot_be_meant(self, client: Client, path: str) -> None:
        answer = client.get(path)
        assert (answer.status_code, answer.text.count("\n")) == (400, 1), answer.text

    def test_a_window_or_time_without_snapshots(self, client: Client, tmp_path: Path) -> None:
        assert client.get(f"/api/0/0/window?from={10**15}&to={10**16}").status_code == 404
        late = [snapshot(number, [(0, 4096, 1, 0)]) for number in (0, 50)]
        with Recording(str(write(tmp_path / "r", late)), follow=False) as found:
            found.read_now()
            gap = known(found)
            assert gap.get(f"/api/0/0/window?from={SECOND}&to={2 * SECOND}").status_code == 404
            assert gap.get(f"/api/0/0/at?ns={SECOND}").json()["start_ns"] == 0


def reaches(recording: Recording, number: int) -> bool:
    """Whether so many aggregations were read."""
    return bool(recording.summary()["span_ns"] >= number * AGGR_NS)


class TestRecordings:
    def test_hostile_names_are_texts_of_json(self, tmp_path: Path) -> None:
        hostile = "<img src=x onerror=alert(1)>\x1b[31m\u202e"
        about = metadata(7)
        about["targets"][0]["command"] = hostile
        with RecordWriter(tmp_path / "r", metadata=about) as writer:
            writer.add_mappings(START_NS, 0, [mapping(0, 4096, f"/{hostile}")])
            writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
        with Recording(str(tmp_path / "r"), follow=False) as found:
            found.read_now()
            client = known(found)
            answers = [client.get(path) for path in ("/api/recordings", "/api/0/0", "/api/0/0/window?from=0&to=999")]
            page = client.get("/").text
        assert "onerror" in page
        assert "<img" not in page
        for answer in answers:
            assert answer.headers["content-type"] == "application/json"
            assert "\\\\x1b" in answer.text
            assert not re.search("[\x1b\u202e]", answer.text)
            assert "onerror" in json.dumps(answer.json())

    def test_one_in_parts_is_followed_over_the_rotation(self, tmp_path: Path) -> None:
        """Also where old parts are removed meanwhile: what was read of them stays."""
        writer = RotatingWriter(str(tmp_path / "r[1].damon"), metadata=metadata(7), max_ns=SECOND, keep=2)
        with writer:
            writer.add_snapshot(snapshot(0, [(0, 8 * 4096, 20, 0)]))
            writer.tick(START_NS + AGGR_NS)
            found = Recording(parts_of(str(tmp_path / "r[1].damon")))
            found.start()
            try:
                wait_until(lambda: found.version >= 1)
                for number in range(1, 50):
                    writer.add_snapshot(snapshot(number, [(0, 8 * 4096, 20, 0)]))
                    writer.tick(START_NS + (number + 1) * AGGR_NS)
                    if number % 12 == 0:
                        wait_until(partial(reaches, found, number - 10))
                    assert found.growing
                wait_until(lambda: found.summary()["span_ns"] >= 49 * AGGR_NS)
                assert len(list(tmp_path.iterdir())) == 2
                tile = found.tile(0, 0, 0, 0, 0)
                column = found.target(0)["column_ns"]
                assert (tile[: 49 * AGGR_NS // column, 0] == 255).all()
            finally:
                found.close()

    def test_one_that_grows_is_followed(self, tmp_path: Path) -> None:
        """Also where time becomes much longer, and memory moves; it ends as if it was read at once."""
        path = tmp_path / "r"
        with RecordWriter(path, metadata=metadata(7)) as writer:
            writer.add_snapshot(snapshot(0, [(0, 8 * 4096, 5, 0)]))
            writer.flush()
            found = Recording(str(path))
            found.start()
            try:
                wait_until(lambda: found.version >= 1)
                assert (found.summary()["span_ns"], found.growing) == (AGGR_NS, True)
                for number in range(1, 300):
                    writer.add_snapshot(snapshot(number, [(0, 8 * 4096, number % 20, 0)]))
                writer.flush()
                wait_until(lambda: found.summary()["span_ns"] == 300 * AGGR_NS)
                for number in range(300, 320):
                    writer.add_snapshot(snapshot(number, [(1 << 40, (1 << 40) + (1 << 20), 20, 0)]))
                writer.flush()
                wait_until(lambda: len(found.target(0)["pieces"]) > 1)
                writer.close()
                wait_until(lambda: not found.growing)
                with Recording(str(path), follow=False) as again:
                    again.read_now()
                    assert again.target(0)["curves"]["memory"][-1] == found.target(0)["curves"]["memory"][-1] == 1 << 20
                    assert again.summary()["span_ns"] == found.summary()["span_ns"] == 320 * AGGR_NS
            finally:
                found.close()

    def test_it_may_be_asked_while_it_grows(self, tmp_path: Path) -> None:
        """By others than the thread that reads it: curves of a column that has just begun are whole, too."""
        with Recording(str(rich(tmp_path / "r", seconds=2)), follow=False) as found:
            found.read_now()
            drawn = found.drawn[0]
            asked = threading.Event()

            def grow() -> None:
                for number in itertools.count(30):
                    drawn.add(RegionBatch.of([snapshot(number, [(HEAP, HEAP + MIB, 5, 0)])]))
                    if number > 1_000 and asked.is_set():
                        return

            growing = threading.Thread(target=grow)
            growing.start()
            try:
                for _ in range(20):
                    curves = found.target(0)["curves"]
                    assert len(curves["time_s"]) == len(curves["least"])
                    found.tile(0, 0, 0, 0, 0)
                    assert growing.is_alive()
            finally:
                asked.set()
                growing.join()

    def test_one_that_is_removed_stays_on_the_page(self, tmp_path: Path) -> None:
        path = tmp_path / "r"
        with RecordWriter(path, metadata=metadata(7)) as writer:
            writer.add_snapshot(snapshot(0, [(0, 4096, 5, 0)]))
            writer.flush()
            found = Recording(str(path))
            found.start()
            try:
                wait_until(lambda: found.version >= 1)
                os.unlink(path)
                wait_until(lambda: not found.growing)
                assert found.at(0, 0)["regions"] == [["0x0", "0x1000", 0.25, -1.0, 4096]]
            finally:
                found.close()

    def test_damage_is_said(self, tmp_path: Path) -> None:
        data = rich(tmp_path / "r", seconds=5).read_bytes()
        (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
        with Recording(str(tmp_path / "cut"), follow=False) as found:
            found.read_now()
            assert 0 < found.summary()["span_ns"] < 5 * SECOND
            assert len(found.summary()["warnings"]) == 1
        (tmp_path / "bad").write_bytes(b"nothing of the kind" * 99)
        assert main(["serve", str(tmp_path / "bad")]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.damon"], "none.damon: there is no such file; name a record with -i FILE"),
        (
            ["r", "--listen", "8080"],
            "--listen: '8080' must be an address and a port, e.g. 127.0.0.1:8080 or [::1]:8080",
        ),
        (["r", "--listen", "example.org:80"], "--listen: 'example.org:80' must be an address and a port"),
        (["r", "--listen", "127.0.0.1:65536"], "--listen: '127.0.0.1:65536' must be an address and a port"),
        (
            ["r", "--listen", "192.0.2.1:80"],
            "--listen: cannot listen at 192.0.2.1 port 80: Cannot assign requested address",
        ),
        (["r", "--token-file", "none"], "--token-file: none: No such file or directory"),
        (["r", "--token-file", "short"], "--token-file: short: its first line must be 16 to 256 letters"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("r"), [snapshot(0, [(0, 4096, 1, 0)])])
    Path("short").write_text("secret\n")
    assert main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"pydamon: {message}")
