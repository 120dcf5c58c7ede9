"""Where text comes from: packed files, pipes, recordings that a tool prints."""

from __future__ import annotations

import gzip
import lzma
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.records.format_samples import expected, put, read, read_with_warnings, some, trace_text

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.records.formats.input_file import InputFile

MADE = some(50)
TEXT = trace_text(MADE).encode()
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "xz": lzma.compress}


@pytest.mark.parametrize("packing", PACKERS)
def test_packed_text_is_found_by_its_content(tmp_path: Path, packing: str) -> None:
    path = put(tmp_path / "t.txt", PACKERS[packing](TEXT))
    assert read(path) == expected(MADE)
    with InputFile(str(path)) as source:
        assert source.packing == packing


@pytest.mark.parametrize("packing", PACKERS)
def test_several_packed_streams_in_a_row(tmp_path: Path, packing: str) -> None:
    pack = PACKERS[packing]
    half = len(trace_text(MADE[:20]))
    assert read(put(tmp_path / "t", pack(TEXT[:half]) + pack(b"") + pack(TEXT[half:]))) == expected(MADE)


@pytest.mark.parametrize("packing", PACKERS)
def test_cut_packed_text_gives_what_came_before(tmp_path: Path, packing: str) -> None:
    data = PACKERS[packing](TEXT)
    found, warnings = read_with_warnings(put(tmp_path / "t", data[:-30]))
    assert found == expected(MADE)[: len(found)]
    cut = f"its {packing} data is cut off after {len(data) - 30:,} bytes"
    assert warnings[-1] == f"ends early ({cut}); this is what came before"


def test_bytes_behind_packed_text_do_not_matter(tmp_path: Path) -> None:
    found, warnings = read_with_warnings(put(tmp_path / "t", gzip.compress(TEXT) + b"\0" * 512))
    assert found == expected(MADE)
    assert not any("early" in line for line in warnings)


def test_packed_garbage(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is truncated or damaged: its gzip data is damaged at byte 3"):
        read(put(tmp_path / "t", b"\x1f\x8b" + b"x" * 100))


@pytest.mark.parametrize("packing", PACKERS)
def test_a_bomb_is_a_line_without_end(tmp_path: Path, packing: str) -> None:
    data = PACKERS[packing](TEXT + b"\0" * 20_000_000)
    assert len(data) < 40_000
    assert read(put(tmp_path / "t", data)) == expected(MADE)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(TEXT))
    writer.start()
    assert read(tmp_path / "pipe") == expected(MADE)
    writer.join()


def fake(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name on the path."""
    folder.mkdir(exist_ok=True)
    put(folder / name, f"#!/bin/sh\n{script}\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("tool", "magic", "arguments"),
    [("perf", b"PERFILE2", "script --force -i"), ("trace-cmd", b"\x17\x08\x44tracing", "report -i")],
)
@pytest.mark.usefixtures("processes")
def test_recordings_are_printed_by_their_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, magic: bytes, arguments: str
) -> None:
    put(tmp_path / "text", TEXT)
    script = f'[ "${{*% *}}" = "{arguments}" ] || exit 9\nhead -c 8 "$(echo $* | sed "s/.* //")" >/dev/null || exit 8\n'
    fake(tmp_path / "bin", tool, f"{script}cat {tmp_path}/text", monkeypatch)
    assert read(put(tmp_path / "data", magic + b"\0" * 100)) == expected(MADE)


def test_a_tool_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="is a recording of perf, which is not installed"):
        read(put(tmp_path / "data", b"PERFILE2" + b"\0" * 100))


@pytest.mark.usefixtures("processes")
def test_a_tool_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path / "bin", "perf", "echo some; echo 'incompatible file format' >&2; exit 255", monkeypatch)
    path = put(tmp_path / "data", b"PERFILE2" + b"\0" * 100)
    with pytest.raises(PydamonError):
        read(path)
    fake(tmp_path / "bin", "perf", "echo 'incompatible\tfile format' >&2; exit 255", monkeypatch)
    with pytest.raises(PydamonError, match="perf script failed: incompatible file format"):
        read(path)


@pytest.mark.usefixtures("processes")
def test_a_tool_that_stops_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "text", TEXT)
    fake(tmp_path / "bin", "perf", f"cat {tmp_path}/text; exit 1", monkeypatch)
    found, warnings = read_with_warnings(put(tmp_path / "data", b"PERFILE2" + b"\0" * 100))
    assert found == expected(MADE)
    assert warnings[-1] == "ends early (perf script failed); this is what came before"


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "o such file"), (tmp_path, "is a directory")):
        with pytest.raises(RequestError, match=said):
            InputFile(str(path)).close()
        with pytest.raises(RequestError, match=said):
            read(path)
