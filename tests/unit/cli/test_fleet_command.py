"""``pydamon fleet`` from the command line: text, JSON, pictures, what is said beside them, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tests.unit.fleet import fleet_helpers as helpers

from pydamon.cli import fleet as verbs
from pydamon.cli import main
from pydamon.dataset import files
from pydamon.fleet.measures import LABEL_NAMES
from pydamon.fleet.questions import differences

Capsys = pytest.CaptureFixture[str]
QUESTIONS = {
    "cold": [], "savings": ["--goal", "0.3%/min"], "wss": ["--window", "600"], "candidates": ["--top", "2"],
    "rightsize": [], "cost": [], "outliers": ["--z", "1.5"], "compare": ["--rollout", "kernel=6.18.2"],
}  # fmt: skip


@pytest.fixture(name="root", scope="module")
def root_fixture(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("fleet") / "f"
    arguments = ["--hosts", "12", "--cgroups", "5", "--days", "0.0833333", "--until", "2026-11-26T12:00", "--seed", "3"]
    assert main(["fleet", "simulate", str(root), *arguments, "--jobs", "1"]) == 0
    assert main(["fleet", "compact", str(root), "--jobs", "1"]) == 0
    return str(root)


@pytest.mark.parametrize("verb", QUESTIONS)
def test_a_question_as_text_and_for_programs(root: str, verb: str, capsys: Capsys) -> None:
    assert main(["fleet", verb, root, *QUESTIONS[verb]]) == 0
    text = capsys.readouterr()
    assert text.err.splitlines()[-1].startswith("pydamon: read ")
    assert " files (roll-ups) in " in text.err
    assert main(["fleet", verb, root, *QUESTIONS[verb], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"]
    assert told["read"]["bytes_scanned"] > 0
    assert told["read"]["left_out_rows"] == {}
    names = {row.get("service") or row.get("host_class") for row in told["rows"]}
    assert all(name in text.out for name in names if verb not in ("candidates", "outliers"))


@pytest.mark.parametrize("verb", QUESTIONS)
def test_a_question_as_a_picture(root: str, verb: str, tmp_path: Path, capsys: Capsys) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "a.svg"
    assert main(["fleet", verb, root, *QUESTIONS[verb], "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert path.read_text().startswith("<?xml")


def test_what_is_left_out_and_what_was_read_is_said(tmp_path: Path, capsys: Capsys) -> None:
    helpers.ship(tmp_path, helpers.changed(helpers.rows(), "resident", 3, -1))
    helpers.put(tmp_path, b"nothing", "host-a")
    assert main(["fleet", "cold", str(tmp_path)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any("is no whole file of Parquet" in line for line in lines)
    assert (
        "pydamon: left out 10 rows: resident is out of range (1), service is too long or not printable (9)" not in lines
    )
    assert any(line.startswith("pydamon: left out 1 row: resident is out of range (1)") for line in lines)
    assert lines[-1].startswith("pydamon: read ")
    assert "1 file (minutes)" in lines[-1]


def test_minutes_and_roll_ups_print_the_same(root: str, capsys: Capsys) -> None:
    assert main(["fleet", "savings", root]) == 0
    rolled = capsys.readouterr()
    assert main(["fleet", "savings", root, "--raw"]) == 0
    raw = capsys.readouterr()
    assert raw.out == rolled.out
    assert "(minutes)" in raw.err


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["cold", "/nowhere"], "is no data set of a fleet: it has no folder minutes", 2),
        (["cold", "ROOT", "--from", "yesterday"], "is no time; write it like 2026-11-27", 2),
        (["cold", "ROOT", "--from", "2026-11-27", "--to", "2026-11-26"], "--from: is not before --to", 2),
        (["cold", "ROOT", "--memory", "1MiB"], "is not 64 MiB or more", 2),
        (["cold", "ROOT", "-o", "a.gif"], "pictures are .png, .svg or .html", 2),
        (["cold", "ROOT", "--workers", "2", "--cluster", "tcp://127.0.0.1:1"], "goes without --workers", 2),
        (["cold", "ROOT", "--service", "none"], "no row is as it was asked for", 1),
        (["savings", "ROOT", "--goal", "0%"], "must be above 0%", 2),
        (["compare", "ROOT", "--rollout", "kernel"], "names no value", 2),
        (["compare", "ROOT", "--rollout", "colour=red"], "is no label that a rollout changes", 2),
        (["compact", "ROOT", "--keep", "soon"], "is no number of days", 2),
        (["simulate", "ROOT"], "is not empty", 2),
        (["simulate", "ROOT", "--until", "1970-01-01T12:00"], "--until: is too early or too late", 2),
        (["simulate", "ROOT", "--until", "9999-01-01"], "--until: is too early or too late", 2),
        (["cold", "ROOT", "--class", "\udcff"], "xff' is no label", 2),
        (
            ["compare", "ROOT", "--rollout", "kernel=6.18.2", "--outcome", "psi_some_us", "-o", "a.svg"],
            "nothing to draw",
            1,
        ),
    ],
)
def test_what_is_refused(root: str, arguments: list[str], words: str, status: int, capsys: Capsys) -> None:
    assert main(["fleet", *(root if word == "ROOT" else word for word in arguments)]) == status
    lines = capsys.readouterr().err.splitlines()
    assert words in lines[-1]
    assert len(lines) == 1


@pytest.fixture(name="young", scope="module")
def young_fixture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a host that knows no idle times yet."""
    root = tmp_path_factory.mktemp("young")
    helpers.ship(root, helpers.rows().drop_columns([name for name in helpers.rows().column_names if "0s" in name]))
    return str(root)


@pytest.mark.parametrize("verb", ["cold", "savings", "wss", "candidates", "rightsize", "cost", "outliers"])
def test_what_is_not_known_yet_is_said_in_each_form(young: str, verb: str, tmp_path: Path, capsys: Capsys) -> None:
    assert main(["fleet", verb, young]) == 0
    text = capsys.readouterr().out
    assert "?" in text if verb in ("cold", "savings") else text.endswith("none\n") or verb == "cost"
    assert main(["fleet", verb, young, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == {"cold": 1, "savings": 1, "cost": 2}.get(verb, 0)
    if verb == "savings":
        assert (rows[0]["working_set_bytes"], rows[0]["saved_bytes"]) == (None, None)
    picture = tmp_path / "a.svg"
    assert main(["fleet", verb, young, "-o", str(picture)]) == (0 if rows else 1)
    assert picture.exists() == bool(rows)
    assert rows or capsys.readouterr().err.startswith("pydamon: -o: there is nothing to draw")


def test_hosts_of_which_nothing_is_known_are_counted(tmp_path: Path, capsys: Capsys) -> None:
    helpers.ship(tmp_path, helpers.rows("host-a", used_3600s=1 << 20))
    helpers.ship(tmp_path, helpers.rows("host-b", service="new"))
    assert main(["fleet", "wss", str(tmp_path)]) == 0
    assert "left out 1 hosts of which nobody knows it yet" in capsys.readouterr().err
    assert main(["fleet", "rightsize", str(tmp_path)]) == 0
    assert "left out 1 services of which nobody knows" in capsys.readouterr().err


def test_compacting_again_and_as_json(root: str, capsys: Capsys) -> None:
    assert main(["fleet", "compact", root]) == 0
    assert capsys.readouterr().out == "nothing new to compact\n"
    assert main(["fleet", "compact", root, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["partitions"], told["left_out_rows"], told["nr_left_out_files"]) == (0, {}, 0)


def test_what_was_done_is_said_and_nothing_else(tmp_path: Path, capsys: Capsys) -> None:
    """An old date of two files: put together, and then only deleted."""
    old = int(time.time()) // 86400 * 86400 - 40 * 86400
    for minutes in (5, 6):
        helpers.ship(tmp_path, helpers.rows(minutes=minutes, first=old + minutes * 600), day=files.day(old))
    helpers.put(tmp_path, b"nothing", "host-a", day=files.day(old))
    assert main(["fleet", "compact", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(
        "2 files of 1 partitions became 1; 11 rows, and roll-ups of their hours ("
    )
    assert main(["fleet", "compact", str(tmp_path), "--keep", "30d"]) == 0
    assert capsys.readouterr().out.startswith("deleted what was too old, of 1 dates (")


def test_words_of_the_options_are_those_of_the_library() -> None:
    """They stand in two places, so that help imports no library."""
    assert set(verbs.LABELS) == set(LABEL_NAMES)
    assert set(verbs.OUTCOMES) == set(differences.OUTCOMES)
