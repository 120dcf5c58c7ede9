"""A record that is replaced is kept as ``.old``, one generation of it; ``--force`` keeps none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.helpers.transcript import typed
from tests.unit.records.record_samples import metadata, snapshot, write

from pydamon.records.reader import RecordReader
from pydamon.records.writer import RecordWriter

NOBODY = 65534
SIM = "record --ops sim --workload stairs --duration 1s"
KEPT = "pydamon: the record that was in r is kept as r.old\n"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(path: str, snapshots: int) -> bytes:
    """A record of so many snapshots; returns its bytes."""
    write(Path(path), [snapshot(number, [(0, 8192, 3, 0)]) for number in range(snapshots)])
    return Path(path).read_bytes()


def test_a_recording_keeps_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    first = put("r", 1)
    done = typed(capsys, f"{SIM} -o r")
    assert done.status == 0
    assert done.err.startswith(KEPT + "pydamon: the time is over after 1 s: 10 snapshots, ")
    assert Path("r.old").read_bytes() == first
    second = Path("r").read_bytes()
    assert typed(capsys, f"{SIM} --seed 3 -o r").err.startswith(KEPT)
    assert Path("r.old").read_bytes() == second
    assert sorted(os.listdir()) == ["r", "r.old"]


def test_the_first_one_says_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(capsys, f"{SIM} -o r").err.startswith("pydamon: the time is over after 1 s")
    assert os.listdir() == ["r"]


def test_force_keeps_none(capsys: pytest.CaptureFixture[str]) -> None:
    put("r", 1)
    done = typed(capsys, f"{SIM} --force -o r")
    assert (done.status, "kept" in done.err) == (0, False)
    assert os.listdir() == ["r"]


def test_one_without_snapshots_is_no_reason_to_give_up_what_was_kept(capsys: pytest.CaptureFixture[str]) -> None:
    first = put("r.old", 2)
    put("r", 0)
    assert "kept" not in typed(capsys, f"{SIM} -o r").err
    assert Path("r.old").read_bytes() == first


def test_each_part_of_a_series(capsys: pytest.CaptureFixture[str]) -> None:
    first = put("r.0001.damon", 1)
    line = f"{SIM} --rotate 1h -o r.damon"
    assert "in r.0001.damon is kept as r.0001.damon.old" in typed(capsys, line).err
    assert Path("r.0001.damon.old").read_bytes() == first


@pytest.mark.parametrize(
    "line", ["record cut -i of -o r", "record merge of -o r", "record aggregate -i of --factor 2 -o r", "import t -o r"]
)
def test_what_makes_records_of_others(capsys: pytest.CaptureFixture[str], line: str) -> None:
    put("of", 4)
    first = put("r", 1)
    if "import" in line:
        assert typed(capsys, "export of --format csv -o t").status == 0
    done = typed(capsys, line)
    size = os.stat("r").st_size
    assert done.status == 0
    assert done.err.endswith(f"wrote r, {size:,} bytes; what was there is kept as r.old\n")
    assert Path("r.old").read_bytes() == first
    os.unlink("r.old")
    done = typed(capsys, f"{line} --force")
    assert (done.status, done.err.endswith(f"wrote r, {size:,} bytes\n")) == (0, True)
    assert not os.path.exists("r.old")


@pytest.mark.parametrize(
    "make", [os.mkdir, os.mkfifo, lambda path: os.symlink("of", path), lambda p: Path(p).write_text("x")]
)
def test_what_is_no_kept_record_stays(capsys: pytest.CaptureFixture[str], make: object) -> None:
    """And nothing is recorded: said before anything is done."""
    first, other = put("r", 1), put("of", 2)
    assert callable(make)
    make("r.old")
    done = typed(capsys, f"{SIM} -o r")
    assert done.status == 2
    assert done.err.startswith("pydamon: -o: what is in r cannot be kept: r.old ")
    assert done.err.endswith("; choose another name\n")
    assert (Path("r").read_bytes(), Path("of").read_bytes()) == (first, other)
    assert typed(capsys, f"{SIM} --force -o r").status == 0


@root_only
def test_nor_what_another_user_has_planted(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkdir("shared")
    os.chmod("shared", 0o1777)
    put("shared/r", 1)
    planted = put("shared/r.old", 2)
    os.chown("shared/r.old", NOBODY, NOBODY)
    done = typed(capsys, f"{SIM} -o shared/r")
    assert (done.status, f"of user {NOBODY} in a folder where others may write" in done.err) == (2, True)
    assert Path("shared/r.old").read_bytes() == planted


def test_a_link_of_ones_own_is_followed_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The kept file stands beside the record, not beside the link."""
    os.mkdir("far")
    first = put("far/r", 1)
    os.symlink("far/r", "here")
    done = typed(capsys, f"{SIM} -o here")
    assert f"is kept as {os.path.realpath('far')}/r.old\n" in done.err
    assert Path("far/r.old").read_bytes() == first
    assert os.path.islink("here")


def test_without_hard_links_it_is_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_args: object, **_options: object) -> None:
        raise PermissionError

    first = put("r", 1)
    monkeypatch.setattr("pydamon.linux.old_files.os.link", none)
    with RecordWriter("r", metadata=metadata(), keep_old=True) as writer:
        assert writer.kept == "r.old"
    assert Path("r.old").read_bytes() == first
    with RecordReader("r") as reader:
        assert reader.time_range() is None


def test_a_record_in_the_making_is_not_taken_for_an_old_one(capsys: pytest.CaptureFixture[str]) -> None:
    put("r", 1)
    with RecordWriter("r.old", metadata=metadata()):
        done = typed(capsys, f"{SIM} -o r")
    assert (done.status, "another pydamon is recording to r.old" in done.err) == (2, True)
