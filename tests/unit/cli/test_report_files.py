"""``pydamon report files``: files, each once for all targets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.records.record_samples import START_NS, metadata, snapshot

from pydamon.linux.process import Mapping
from pydamon.records.writer import RecordWriter

MIB = 1 << 20
AT = (0x7F00_0000_0000, 0x5500_0000_0000)
NAME = "/usr/lib/lib\x1b[2Jx.so"
Capsys = pytest.CaptureFixture[str]

SHOWN = """\
files of 2 targets: what is shared counts once; hot: accessed by any, cold: by none
file            users   mapped      hot     warm     cold  unknown  each summed  private
lib\\x1b[2Jx.so      2  8.0 MiB  2.0 MiB  4.0 MiB  2.0 MiB      0 B     14.0 MiB      0 B
data                1  2.0 MiB      0 B      0 B  2.0 MiB      0 B      2.0 MiB      0 B
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Two processes share 6 of 8 MiB of a library; the second has a file to itself. Regions are 20 s old where idle."""
    with RecordWriter(tmp_path / "r", metadata=metadata(11, 12)) as writer:
        library = [Mapping(AT[0], AT[0] + 8 * MIB, "r-xp", 0, 5, NAME)]
        writer.add_mappings(START_NS, 0, library)
        second = Mapping(AT[1], AT[1] + 6 * MIB, "r-xp", 2 * MIB, 5, NAME)
        data = Mapping(AT[1] + 6 * MIB, AT[1] + 8 * MIB, "r--s", 0, 6, "/data")
        writer.add_mappings(START_NS, 1, [second, data])
        writer.add_snapshot(snapshot(0, [(AT[0], AT[0] + 2 * MIB, 20, 0), (AT[0] + 2 * MIB, AT[0] + 8 * MIB, 0, 200)]))
        rows = [(AT[1], AT[1] + 4 * MIB, 0, 20), (AT[1] + 4 * MIB, AT[1] + 8 * MIB, 0, 200)]
        writer.add_snapshot(snapshot(0, rows, target=1))
    return str(tmp_path / "r")


def test_each_file_once(path: str, capsys: Capsys) -> None:
    status, out, err = report(capsys, "files", "-i", path)
    assert (status, out, err) == (0, SHOWN, "")


def test_json_says_who_they_are_of(path: str, capsys: Capsys) -> None:
    status, out, _ = report(capsys, "files", path, "--json")
    first, second = json.loads(out)["files"]
    assert status == 0
    assert (first["name"], first["inode"], first["targets"]) == ("/usr/lib/lib\\x1b[2Jx.so", 5, [0, 1])
    assert (first["hot_bytes"], first["warm_bytes"], first["cold_bytes"]) == (2 * MIB, 4 * MIB, 2 * MIB)
    assert (second["targets"], second["summed_bytes"]) == ([1], 2 * MIB)


def test_of_one_target_it_is_what_that_one_has(path: str, capsys: Capsys) -> None:
    _, out, _ = report(capsys, "files", path, "--json", "--target", "0")
    (only,) = json.loads(out)["files"]
    assert (only["targets"], only["hot_bytes"], only["cold_bytes"]) == ([0], 2 * MIB, 6 * MIB)


def test_a_record_without_mappings_says_so(tmp_path: Path, capsys: Capsys) -> None:
    with RecordWriter(tmp_path / "r", metadata=metadata(11)) as writer:
        writer.add_snapshot(snapshot(0, [(AT[0], AT[0] + MIB, 1, 0)]))
    status, out, _ = report(capsys, "files", str(tmp_path / "r"))
    assert (status, out) == (0, "no mapped file is known: the record has no mappings, or none of files\n")
