"""Names of address ranges."""

from __future__ import annotations

import pytest
from tests.unit.records.record_samples import mapping

from pydamon.analysis.names import MappingNames, short_list
from pydamon.linux.mapping_names import mapping_name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", "libc.so.6"),
        ("/tmp/a b (deleted)", "a b (deleted)"),
        ("/", "/"),
        ("[heap]", "[heap]"),
        ("[anon:arena/1]", "[anon:arena/1]"),
        ("anon_inode:[perf_event]", "anon_inode:[perf_event]"),
        ("", "anon"),
    ],
)
def test_short_names(name: str, short: str) -> None:
    assert mapping_name(mapping(0, 4096, name)) == short


def test_the_largest_overlap_comes_first() -> None:
    names = MappingNames(
        [mapping(0x5000, 0x8000, "[heap]"), mapping(0x1000, 0x2000, "/bin/x"), mapping(0x2000, 0x5000, "/bin/x")]
    )
    assert names.of(0, 0x10000) == ["x", "[heap]"]
    assert names.of(0x4000, 0x9000) == ["[heap]", "x"]
    assert names.of(0x1FFF, 0x2001) == ["x"]
    assert names.of(0x8000, 0xA000) == []
    assert names.of(0, 0x1000) == []


def test_mappings_of_several_times_may_overlap() -> None:
    names = MappingNames(
        [mapping(0x1000, 0x9000, "[heap]"), mapping(0x1000, 0x2000, "[heap]"), mapping(0x3000, 0x4000, "")]
    )
    assert names.of(0x8000, 0x9000) == ["[heap]"]
    assert names.of(0x3000, 0x4000) == ["[heap]", "anon"]


def test_no_mappings_have_no_names() -> None:
    assert not MappingNames([])
    assert MappingNames([]).of(0, 1) == []


def test_long_lists_are_cut() -> None:
    assert [short_list(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c", "d"])] == [
        "",
        "a",
        "a, b",
        "a, b +2",
    ]
