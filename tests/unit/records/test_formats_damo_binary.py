"""damo's binary records: read as the same recording's JSON is, also when they are cut or damaged."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from tests.unit.records.format_samples import (
    Made,
    damo_object,
    damo_record,
    expected,
    put,
    read,
    read_with_warnings,
    some,
)

from pydamon.errors import PydamonError
from pydamon.records.joined import open_record


def binary(made: list[Made], version: int = 2) -> bytes:
    """As damo wrote it until 2023: see `records.formats.damo_binary`."""
    parts = [b"damon_recfmt_ver", struct.pack("<I", version)]
    for target, end_ns, regions in made:
        parts.append(struct.pack("<QQI", end_ns // 10**9, end_ns % 10**9, 1))
        parts.append(struct.pack("<iI" if version == 1 else "<QI", target, len(regions)))
        parts += [struct.pack("<QQI", *region[:3]) for region in regions]
    return b"".join(parts)


@pytest.mark.parametrize("version", [1, 2])
def test_a_binary_record_is_read(tmp_path: Path, version: int) -> None:
    made = some(40, target=4711)
    path = put(tmp_path / "r", binary(made, version))
    found = read_with_warnings(path)[0]
    assert found == expected(made, age=False)
    with open_record(str(path)) as reader:
        assert reader.info.target(0).command == "target_id=4711"


def test_one_that_is_cut_short_gives_what_came_before(tmp_path: Path) -> None:
    made = some(40)
    found, warnings = read_with_warnings(put(tmp_path / "r", binary(made)[:-7]))
    assert found == expected(made[:-1], age=False)
    last = len(binary(made[:-1]))
    assert warnings[-1].startswith(f"ends early or is damaged (in the snapshot that begins at byte {last:,})")


def test_another_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(PydamonError, match="binary record of damo, version 3; known are 1 and 2"):
        read(put(tmp_path / "r", binary(some(2), version=3)))


def test_damage_is_an_error_of_one_line_or_left_out(tmp_path: Path) -> None:
    rng = random.Random(1)
    whole = bytearray(binary(some(10)))
    for number in range(200):
        data = whole.copy()
        data[rng.randrange(20, len(data))] ^= 1 << rng.randrange(8)
        try:
            read_with_warnings(put(tmp_path / str(number), bytes(data)))
        except PydamonError as error:
            assert "\n" not in str(error)


def test_intervals_are_taken_from_the_file_that_damo_puts_beside(tmp_path: Path) -> None:
    made = some(4)
    (tmp_path / "r.kdamonds").write_text(
        json.dumps([{"contexts": [{"ops": "vaddr", "intervals": {"sample_us": "2 ms", "aggr_us": "40 ms"}}]}])
    )
    about = damo_object(made)
    del about["intervals"]
    for data in (binary(made), damo_record(about)):
        with open_record(str(put(tmp_path / "r", data))) as reader:
            assert {(s.sample_us, s.aggr_us) for s in reader.snapshots()} == {(2_000, 40_000)}
            assert "(from r.kdamonds)" in reader.warnings()[0]


@pytest.mark.parametrize(
    "told", ["", "[]", "[{}]", "[" * 10_000, '[{"contexts":[{"intervals":{"sample_us":"5 ms"}}]}]']
)
def test_what_is_beside_and_says_nothing_is_passed_over(tmp_path: Path, told: str) -> None:
    made = some(4)
    (tmp_path / "r.kdamonds").write_text(told)
    assert read(put(tmp_path / "r", binary(made))) == expected(made, age=False)


def test_a_target_without_an_id_has_a_name(tmp_path: Path) -> None:
    about = damo_object(some(2)) | {"target_id": None}  # physical memory, in damo
    with open_record(str(put(tmp_path / "r", damo_record(about)))) as reader:
        assert [target.command for target in reader.info.targets] == ["target 0"]


def test_what_passed_filters_may_be_rounded(tmp_path: Path) -> None:
    about = damo_object([(0, 10**9, [(0, 1 << 30, 3, 1), (1 << 30, 2 << 30, 0, 1)])])
    # "143.027 MiB" as in damo's tests/report/damon.data.snapshot.anon
    about["snapshots"][0]["regions"][0]["sz_filter_passed"] = "143.027 MiB"
    with open_record(str(put(tmp_path / "r", damo_record(about)))) as reader:
        (one,) = reader.snapshots()
    assert one.columns["sz_filter_passed"].tolist() == [round(143.027 * (1 << 20)), 0]
