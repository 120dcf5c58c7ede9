"""What a record, a snapshot and a heatmap show of themselves in a notebook."""

from __future__ import annotations

import base64
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from tests.unit.records.record_samples import mapping, metadata, snapshot, write

from pydamon.analysis.heatmap import HeatAccumulator
from pydamon.markup import RAMP, heat_colours, html_table, png
from pydamon.records.batch import RegionBatch
from pydamon.records.joined import open_record
from pydamon.records.writer import RecordWriter


def test_a_record(tmp_path: Path) -> None:
    about = metadata(1234)
    about["targets"][0]["command"] = "<script>alert(1)</script>"
    with RecordWriter(tmp_path / "r", metadata=about) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
    with open_record(str(tmp_path / "r")) as reader:
        shown = reader._repr_html_()
    assert "<script>" not in shown
    for text in ("100 ms", "vaddr by bpf", "&lt;script&gt;alert(1)&lt;/script&gt; (pid 1234)", "complete"):
        assert text in shown


def test_parts_and_a_record_of_nothing(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"r{number}", [snapshot(number, [(0, 4096, 1, 0)])])
    with open_record(str(tmp_path / "r?")) as reader:
        assert "200 ms" in reader._repr_html_()
    write(tmp_path / "empty", [])
    with open_record(str(tmp_path / "empty")) as reader:
        assert "no snapshot" in reader._repr_html_()


def test_a_snapshot() -> None:
    shown = snapshot(0, [(0x1000, 0x3000, 5, 7)])._repr_html_()
    assert "Snapshot of target 0: 100 ms, 1 regions" in shown
    for text in ("0x1000-0x3000", "8.0 KiB", "5/20", "700 ms"):
        assert text in shown
    many = snapshot(0, [(n, n + 1, 0, 0) for n in range(300)])._repr_html_()
    assert "and 250 more" in many
    assert many.count("<tr>") == 52


def _pixels(shown: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The picture in a page, decoded as the format says."""
    found = re.search(r"base64,([^\"]+)", shown)
    assert found
    data = base64.b64decode(found[1])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at, parts = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        parts[kind] = body
        at += 12 + length
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (depth, colour) == (8, 2)
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
    return lines[:, 1:].reshape(height, width, 3)


def test_a_heatmap_is_a_picture_with_high_addresses_above() -> None:
    """Two cells of addresses, the upper one hot in the second half of the time; a third was not monitored."""
    accumulator = HeatAccumulator(
        np.array([5_000_000_000, 5_100_000_000, 5_200_000_000]), np.array([0, 4096, 8192, 12288], np.uint64)
    )
    for number in range(2):
        regions = [(0, 4096, 0, 0), (4096, 8192, 20 * number, 0)]
        accumulator.add(RegionBatch.of([snapshot(number, regions)]))
    shown = accumulator.heatmap(3)._repr_html_()
    assert "target 3: 0x0-0x3000 over 200 ms; 0 to 100 % of samples found access" in shown
    pixels = _pixels(shown)
    assert pixels.shape == (3, 2, 3)
    assert tuple(pixels[1, 1]) == RAMP[-1]
    assert tuple(pixels[1, 0]) == tuple(pixels[2, 0]) == RAMP[0]
    assert len({tuple(pixel) for pixel in pixels[0].tolist()} | {RAMP[0]}) == 2


def test_colours_are_those_of_the_ramp() -> None:
    found = heat_colours(np.array([[0.0, 0.5, 1.0]]), 1.0)
    assert [tuple(pixel) for pixel in found[0].tolist()] == [RAMP[0], RAMP[8], RAMP[16]]


def test_grey_pictures_are_one_byte_a_pixel() -> None:
    data = png(np.array([[0, 255]], np.uint8))
    assert struct.unpack(">IIBBBBB", data[16:29]) == (2, 1, 8, 0, 0, 0, 0)


def test_all_texts_are_escaped() -> None:
    assert "<b>&lt;x&gt;</b>" in html_table("<x>", ["a"], [["<y>"]])
    assert "&lt;y&gt;" in html_table("<x>", [], [["<y>"]])


@pytest.mark.usefixtures("processes")
def test_none_of_it_is_imported_before_it_is_shown() -> None:
    code = "import sys, pydamon.records.joined, pydamon.analysis.heatmap; sys.exit('pydamon.markup' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_prompt_shows_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "r", [snapshot(0, [(0, 4096, 1, 0)])])
    with open_record(str(path)) as record:
        assert repr(record) == f"<record {path}: vaddr by bpf, 1 target>"
        assert len(repr(record.info)) < 500
        (first,) = record.snapshots()
        assert repr(first) == "<Snapshot of target 0: 1 region, 100 ms>"


def test_a_record_names_what_was_mapped(tmp_path: Path) -> None:
    maps = [mapping(0x1000, 0x9000, "/usr/lib/libfoo.so"), mapping(0x9000, 0xA000, "/dev/zero (deleted)")]
    path = write(tmp_path / "r", [snapshot(0, [(0x1000, 0x9000, 1, 0), (0x9000, 0xA000, 0, 0)])], maps=maps)
    with open_record(str(path)) as record:
        shown = record._repr_html_()
    assert "libfoo.so" in shown
    assert "shared anonymous memory" in shown
