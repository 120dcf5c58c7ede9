"""Cache occupancy and bandwidth in a record, from a tree as the kernel lays it out; own groups only on request."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from tests.helpers.again import for_longer
from tests.unit.cli.report_helpers import report
from tests.unit.linux.test_resctrl import Tree

from pydamon.cli import main, recording
from pydamon.errors import MachineError
from pydamon.linux import resctrl
from pydamon.records.reader import RecordReader
from pydamon.records.side_tables import TABLES
from pydamon.run import found, recorder, run

OPTIONS = ["--primitive", "smaps", "--sample", "5ms", "--aggr", "20ms", "--force", "--duration", "600ms"]


@pytest.fixture
def sleeper(processes: None) -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: int) -> Tree:
    """The machine has this tree mounted; what is noted once a second is noted twenty times."""
    (tmp_path / "machine").mkdir()
    made = Tree(tmp_path / "machine")
    made.process(sleeper, "res:/\nmon:a\n")
    made.group("mon_groups/a", {0: (4096, 10_000, 7_000), 1: ("Unavailable", 64, 64)}, [sleeper])
    monkeypatch.setattr(resctrl, "probe", lambda *_: made.mount)
    monkeypatch.setattr(found, "SECOND_NS", 50_000_000)
    monkeypatch.setattr(recorder, "mounts", lambda kind: [made.mount])
    make = resctrl.Resctrl
    monkeypatch.setattr(resctrl, "Resctrl", lambda: make(made.mount, made.proc))
    return made


def test_what_the_processor_counts_is_in_the_record(
    tree: Tree, sleeper: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run.damon"
    before = sorted(tree.mount.rglob("*"))
    pieces: list[pa.Table] = []

    def record(duration: str) -> None:
        assert main(["record", "-o", str(out), *OPTIONS, "--duration", duration, str(sleeper)]) == 0
        with RecordReader(out) as reader:
            pieces[:] = reader.table("resctrl")

    for_longer(record, lambda: pieces, 0.6)
    assert sorted(tree.mount.rglob("*")) == before  # looked at only
    assert pieces[0].schema == TABLES["resctrl"].schema
    first = pieces[0].to_pylist()
    assert [(r["target"], r["group"], r["domain"], r["llc_occupancy_bytes"]) for r in first] == [
        (0, "mon_groups/a", 0, 4096),
        (0, "mon_groups/a", 1, None),
    ]
    capsys.readouterr()
    status, text, _ = report(capsys, "bandwidth", "-i", out)
    assert status == 0
    assert "domain 0 (measured by resctrl): 4.0 KiB of cache, 0 B/s" in text
    status, text, _ = report(capsys, "bandwidth", "-i", out, "--json")
    assert json.loads(text)["resctrl"][0]["llc_occupancy_bytes"] == 4096
    status, text, _ = report(capsys, "info", "-i", out)
    assert "table resctrl: " in text


def test_a_group_that_others_share_is_said_once(
    tree: Tree, sleeper: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.group("mon_groups/a", {}, [sleeper, 5, 6])
    assert main(["record", "-o", str(tmp_path / "x"), *OPTIONS, str(sleeper)]) == 0
    assert capsys.readouterr().err.count("is in the group mon_groups/a with 2 threads of others") == 1


class TestOwnGroup:
    def test_is_made_for_the_recording_and_removed(
        self, tree: Tree, sleeper: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[str]] = []

        class Run(run.Run):
            def run(self) -> None:
                groups = [path for path in (tree.mount / "mon_groups").iterdir() if path.name.startswith("pydamon-")]
                seen.append([(path / "tasks").read_text() for path in groups])
                super().run()

        # Directories that behave like the kernel's: made with their files, removed with them.
        mkdir, rmdir = Path.mkdir, os.rmdir

        def make(path: Path, *args: object, **kwargs: object) -> None:
            mkdir(path, *args, **kwargs)  # type: ignore[arg-type]
            if path.parent.name == "mon_groups":
                (path / "tasks").touch()

        def remove(path: Path) -> None:
            (path / "tasks").unlink(missing_ok=True)
            rmdir(path)

        monkeypatch.setattr(Path, "mkdir", make)
        monkeypatch.setattr(os, "rmdir", remove)
        monkeypatch.setattr(recording, "Run", Run)
        assert main(["record", "-o", str(tmp_path / "x"), *OPTIONS, "--resctrl", str(sleeper)]) == 0
        assert seen == [[f"{sleeper}\n"]]
        assert [path.name for path in (tree.mount / "mon_groups").iterdir()] == ["a"]

    def test_no_free_group_is_one_line_and_no_record(
        self,
        tree: Tree,
        sleeper: int,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def full(path: Path, *_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "mkdir", full)
        assert main(["record", "-o", str(tmp_path / "x"), *OPTIONS, "--resctrl", str(sleeper)]) == 3
        assert "there is no free monitoring group" in capsys.readouterr().err
        assert not (tmp_path / "x").exists()


def test_without_resctrl_a_request_for_it_is_refused_in_one_line(
    sleeper: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(MachineError):
        resctrl.probe()
        pytest.skip("this machine has resctrl")
    assert main(["record", "-o", str(tmp_path / "x"), *OPTIONS, "--resctrl", str(sleeper)]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "resctrl: " in said
    assert not (tmp_path / "x").exists()
    assert main(["record", "-o", str(tmp_path / "x"), "--cgroup", "a", "--resctrl"]) == 2
    assert "--resctrl: goes with processes" in capsys.readouterr().err


def test_threads_that_a_process_has_come_along(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their numbers are 41, 42 and, once 42 was moved, 43, which 42 has started before.
    task = tree.proc / "41" / "task"
    for thread in (41, 42):
        (task / str(thread)).mkdir(parents=True)
    written: list[bytes] = []

    def write(fd: int, data: bytes) -> int:
        written.append(data)
        if data == b"42\n":
            (task / "43").mkdir()
        if data == b"43\n":
            raise ProcessLookupError(3, "No such process")
        return len(data)

    mkdir = Path.mkdir

    def make(path: Path, *args: object, **kwargs: object) -> None:
        mkdir(path, *args, **kwargs)  # type: ignore[arg-type]
        (path / "tasks").touch()

    monkeypatch.setattr(resctrl, "group_of", lambda pid, mount: tree.mount)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        patch.setattr(Path, "mkdir", make)
        resctrl.OwnGroup(41, tree.mount, tree.proc)
    assert written == [b"41\n", b"42\n", b"43\n"]
