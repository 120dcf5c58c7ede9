"""The what-if on the page: the numbers of the library, one pass that is kept, anew when there is more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.rich_record import rich
from tests.unit.cli.what_if_helpers import recorded, sweep
from tests.unit.records.record_samples import snapshot, write

import pydamon
from pydamon.analysis.whatif.limits import for_share
from pydamon.web import recording as module
from pydamon.web.recording import Recording

pytest.importorskip("starlette", reason="needs starlette")
pytest.importorskip("httpx", reason="needs httpx")

from tests.unit.web.asgi_client import known


def read(path: Path) -> Recording:
    """The recording, read."""
    found = Recording(str(path), follow=False)
    found.read_now()
    return found


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of the library from now on."""
    asked: list[Any] = []

    def what_if(record: Any, *, target: int | None = None) -> Any:
        asked.append(target)
        return pydamon.what_if(record, target=target)

    monkeypatch.setattr(module, "what_if", what_if)
    return asked


def test_it_has_the_numbers_of_the_library(tmp_path: Path) -> None:
    path = recorded(tmp_path, sweep(300))
    with read(path) as one:
        told = known(one).get("/api/0/0/what-if").json()
    found = pydamon.what_if(str(path), target=0)
    assert len(found.rows) > 10
    assert found.panel_pages > 0
    assert told["age_s"] == [row.age_s for row in found.rows]
    for key, name in (("saved", "saved"), ("back", "refaults"), ("least", "low"), ("most", "high")):
        assert told[key] == [round(getattr(row, name)) for row in found.rows]
    lowest = for_share(found, told["goal"])
    assert lowest.row is not None
    assert told["age_s"][told["lowest"]["at"]] == lowest.row.age_s
    assert told["lowest"]["few"] == lowest.few
    assert (told["goal"], told["panel_pages"], told["acted"]) == (0.002, found.panel_pages, [])


def test_without_a_panel_there_is_no_upper_end_and_what_acted_is_named(tmp_path: Path) -> None:
    with read(rich(tmp_path / "r", seconds=30)) as one:
        told = known(one).get("/api/0/0/what-if").json()
    assert (told["panel_pages"], told["acted"]) == (0, ["pageout"])
    assert set(told["most"]) == {None}


def test_one_that_is_too_short_says_nothing(tmp_path: Path) -> None:
    write(tmp_path / "r", [snapshot(0, [(0, 4096, 1, 0)])])
    with read(tmp_path / "r") as one:
        told = known(one).get("/api/0/0/what-if").json()
    assert (told["age_s"], told["lowest"]) == ([], None)


@pytest.mark.parametrize("path", ["/api/1/0/what-if", "/api/0/7/what-if"])
def test_what_is_not_there(tmp_path: Path, path: str) -> None:
    with read(rich(tmp_path / "r")) as one:
        answer = known(one).get(path)
    assert (answer.status_code, answer.text.count("\n")) == (404, 1)


def test_each_target_takes_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = [snapshot(n, [(0, 4096 << t, 1, 0)], target=t) for n in range(30) for t in (0, 1)]
    write(tmp_path / "r", snapshots, pids=(1, 2))
    asked = counted(monkeypatch)
    with read(tmp_path / "r") as one:
        client = known(one)
        told = [client.get(f"/api/0/{target}/what-if").json() for target in (0, 1, 0, 1)]
    assert asked == [0, 1]
    assert told[:2] == told[2:]
    assert [one["resident"] for one in told] == [4096, 8192, 4096, 8192]


def test_one_that_grows_is_not_read_at_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = counted(monkeypatch)
    with read(rich(tmp_path / "r", seconds=5)) as one:
        one.growing = True
        first = one.what_if(0)
        one.version += 1
        assert one.what_if(0) is first
        monkeypatch.setattr(module, "_FRESH_S", 0.0)
        monkeypatch.setattr(module, "_FRESH", 0)
        one.version += 1
        assert one.what_if(0) is first  # as it was said then
        one.growing = False
        assert one.what_if(0) is not first
        one.growing = True
        one.version += 1
        one.what_if(0)
    assert len(asked) == 3
