"""Files of other tools that are cut off, at any place, or damaged: one line that says so, or what came before it."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.records.format_samples import (
    Read,
    damo_object,
    damo_record,
    expected,
    put,
    read,
    read_with_warnings,
    some,
    trace_text,
)
from tests.unit.records.test_formats_damo_binary import binary

from pydamon.errors import PydamonError, RequestError
from pydamon.records.formats.export import export
from pydamon.records.joined import open_record

SNAPSHOTS = 30
_PLACES = [1, 2, 3, 7, 12, 16, 19, 23, *(n / 16 for n in range(1, 16)), -9, -5, -4, -2, -1]


def _made() -> list[tuple[int, int, list[tuple[int, int, int, int]]]]:
    return [(target, end_ns, list(regions)) for target, end_ns, regions in some(SNAPSHOTS)]


def _flat(kind: str) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        source, output = put(folder / "source", trace_text(_made())), folder / "out"
        with open_record(str(source)) as reader, output.open("wb") as file:
            export(reader, file, kind)
        return output.read_bytes()

    return make


# By name: how it is made, and whether any file that is cut can be known to be.
FORMATS: dict[str, tuple[Callable[[Path], bytes], bool]] = {
    "damo, packed": (lambda _: damo_record(damo_object(_made())), True),
    "damo, JSON": (lambda _: damo_record(damo_object(_made()), packed=False), True),
    "damo in gzip": (lambda _: gzip.compress(damo_record(damo_object(_made()), packed=False)), True),
    "damo, binary 1": (lambda _: binary(some(SNAPSHOTS), 1), False),
    "damo, binary 2": (lambda _: binary(some(SNAPSHOTS)), False),
    "trace in gzip": (lambda _: gzip.compress(trace_text(_made()).encode()), True),
    "trace in xz": (lambda _: lzma.compress(trace_text(_made()).encode()), True),
    "trace": (lambda _: trace_text(_made()).encode(), False),
    "csv": (_flat("csv"), False),
    "csv in gzip": (lambda folder: gzip.compress(_flat("csv")(folder)), True),
    "jsonl": (_flat("jsonl"), False),
    "parquet": (_flat("parquet"), True),
}
# What tells that something is missing, if it can be known.
_SAID = ("cut off after", "damaged", "truncated", "ends early", "is not a pydamon record", "Parquet")


def _near(found: Read, whole: Read) -> bool:
    """Whether what was found is the beginning of it; the last snapshot of flat rows may lack regions, and of a trace
    with a single snapshot nobody knows when it began."""
    if not found:
        return False
    regions = [one[3] for one in found]
    expected_regions = [one[3] for one in whole]
    return regions[:-1] == expected_regions[: len(regions) - 1] and len(regions) <= len(whole)


@pytest.mark.parametrize("name", FORMATS)
def test_cut_at_any_place_gives_what_came_before_or_one_line(tmp_path: Path, name: str) -> None:
    make, known = FORMATS[name]
    data = make(tmp_path)
    whole = read(put(tmp_path / "whole", data))
    assert len(whole) == SNAPSHOTS
    for place in _PLACES:
        size = int(len(data) * place) if isinstance(place, float) else place if place > 0 else len(data) + place
        try:
            found, warnings = read_with_warnings(put(tmp_path / "r", data[:size]))
        except PydamonError as error:
            lines = [str(error)]
        else:
            lines = warnings
            assert _near(found, whole), size
        assert not any("\n" in line for line in lines)
        if known:
            assert any(word in line for line in lines for word in _SAID), (size, lines)


@pytest.mark.parametrize("size", [2, 3, 10, 50, 100, 200, 300])
def test_a_small_packed_record_that_is_cut_says_where(tmp_path: Path, size: int) -> None:
    data = damo_record(damo_object(some(3)))
    assert size < len(data)
    with pytest.raises(RequestError, match=f"zlib data is cut off after {size} bytes"):
        read(put(tmp_path / "r", data[:size]))


def test_a_packed_record_that_is_damaged_gives_what_came_before(tmp_path: Path) -> None:
    made = some(200)
    data = bytearray(damo_record(damo_object(made)))
    at = len(data) // 2
    data[at : at + 64] = bytes(range(64, 128))
    found, warnings = read_with_warnings(put(tmp_path / "r", bytes(data)))
    # Up to where the bytes mean nothing: they may mean something wrong before.
    assert 50 < len(found) <= len(made)
    assert found[:50] == expected(made)[:50]
    (line,) = [line for line in warnings if "ends early" in line]
    place = int(line.split("at byte ")[1].split(")")[0].replace(",", ""))
    assert "its zlib data is damaged" in line
    assert at <= place <= len(data)


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, lzma.compress])
@pytest.mark.parametrize("rest", [b"hello world", bytes(100), b"\xff" * 3000])
def test_what_is_packed_and_no_recording(tmp_path: Path, pack: Callable[[bytes], bytes], rest: bytes) -> None:
    packed = pack(rest)
    with pytest.raises(RequestError, match="is not a pydamon record, and of no format"):
        read(put(tmp_path / "r", packed))
    with pytest.raises(RequestError, match="is truncated or damaged"):
        read(put(tmp_path / "r", packed[:-6]))
