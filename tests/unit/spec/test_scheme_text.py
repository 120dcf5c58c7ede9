"""Schemes as lines: damo's one-line form and the numbers of the kernel's debugfs file."""

from __future__ import annotations

import pytest

from pydamon.errors import RequestError
from pydamon.spec.forms.scheme_files import load
from pydamon.spec.forms.scheme_short import write_short

# The examples that damo gave with its one-line form, from 0.0.1 to 3.4.3, with the action that each comment names.
DAMO_EXAMPLES = """
# format is:
# <min/max size> <min/max frequency (0-100)> <min/max age> <action>
min    max      80      max     100ms   max willneed
min     max     10      20      200ms   1h  cold
min     max     0       10      60s     max pageout   # trailing
2M      max     90      100     100ms   max hugepage
2M      max     0       25      100ms   max nohugepage
"""


def short(text: str) -> list[str]:
    return [write_short(scheme) for scheme in load(text).schemes]


def test_a_bare_frequency_in_damos_one_line_form_is_in_percent() -> None:
    # damo 0.0.1 computes int(float(text) * max_nr_accesses / 100); later ones keep the percentage
    assert short(DAMO_EXAMPLES) == [
        "willneed rate>=80% age>=100ms",
        "cold rate=10%..20% age=200ms..1h",
        "pageout rate=0%..10% age>=1min",
        "hugepage size>=2M rate=90%..100% age>=100ms",
        "nohugepage size>=2M rate=0%..25% age>=100ms",
    ]


def test_damos_longer_one_line_forms_have_quotas_weights_and_watermarks() -> None:
    # the order of the fields as damo 1.0.9 reads lines of 9, 12, 17 and 18 words
    assert short("min max 0 0 1s max pageout 128M 1s") == ["pageout rate=0% age>=1s quota=128M/1s"]
    assert short("min max 0 0 1s max pageout 128M 1s 0 3 7") == ["pageout rate=0% age>=1s quota=128M/1s weights=0:3:7"]
    marks = "free_mem_rate 5s 600 500 200"
    rest = "weights=0:3:7 watermarks=free:60%:50%:20%/5s"
    assert short(f"min max 0 0 1s max pageout 128M 1s 0 3 7 {marks}") == [
        f"pageout rate=0% age>=1s quota=128M/1s {rest}"
    ]
    assert short(f"min max 0 0 1s max pageout 10ms 128M 1s 0 3 7 {marks}") == [
        f"pageout rate=0% age>=1s quota=10ms+128M/1s {rest}"
    ]
    assert short("min max 0 0 1s max stat 0 max") == ["stat rate=0% age>=1s"]


def test_a_bare_age_in_the_one_line_form_is_in_microseconds_and_said_to_be() -> None:
    loaded = load("min max 0 0 5000 max stat")
    assert write_short(loaded.schemes[0]) == "stat rate=0% age>=5ms"
    assert loaded.warnings == ("line 1: the age 5000 has no unit and is read as microseconds, as damo does",)


def test_debugfs_numbers_are_bytes_samples_and_aggregations() -> None:
    # the example of the kernel's documentation of debugfs (5.16): sizes of 4 to 8 KiB, 0 to 5 accesses, 10 to 20
    # aggregations, page out
    assert short("4096 8192 0 5 10 20 2") == ["pageout size=4K..8K rate<=5samples age=10aggrs..20aggrs"]


@pytest.mark.parametrize(
    ("number", "action"), list(enumerate(["willneed", "cold", "pageout", "hugepage", "nohugepage", "stat"]))
)
def test_debugfs_numbers_of_actions(number: int, action: str) -> None:
    assert short(f"0 18446744073709551615 0 4294967295 0 4294967295 {number}") == [action]


@pytest.mark.parametrize("statistics", ["", " 4 8192", " 4 8192 3 4096 1"])
def test_what_kernels_printed_behind_a_debugfs_scheme_is_left_out(statistics: str) -> None:
    # 18 numbers were written; 5.16 printed two statistics behind them, 5.17 five (mm/damon/dbgfs.c of these kernels)
    line = "4096 8192 0 5 10 20 2 10 1048576 1000 0 100 50 1 600000 500 300 200"
    expected = "quota=10ms+1M/1s weights=0:100:50 watermarks=free:50%:30%:20%/600ms"
    assert short(line + statistics) == [f"pageout size=4K..8K rate<=5samples age=10aggrs..20aggrs {expected}"]


def test_nine_numbers_may_be_two_things_which_is_said() -> None:
    with pytest.raises(RequestError, match=r"9 were those of 5\.15 with two statistics"):
        load("4096 8192 0 5 10 20 2 0 0")


@pytest.mark.parametrize("text", ["pageout filter=!anon", "schemes:\n- pageout filter=!anon\n"])
def test_a_filter_that_looks_like_its_opposite_is_remarked_on(text: str) -> None:
    (warning,) = load(text).warnings
    assert "filter=!anon leaves out what is not anon; to leave out what is, write filter=anon" in warning
    assert load(text.replace("!anon", "reject:!anon")).warnings == load(text.replace("!", "")).warnings == ()


def test_several_debugfs_schemes_may_stand_on_one_line() -> None:
    loaded = load("0 4294967295 5 4294967295 0 4294967295 3 2097152 4294967295 0 0 7 4294967295 4")
    assert [write_short(scheme) for scheme in loaded.schemes] == [
        "hugepage rate>=5samples",
        "nohugepage size>=2M rate=0samples age>=7aggrs",
    ]
    assert loaded.paths == ("line 1", "line 1")
    assert "4294967295 as the largest size is read as no limit" in loaded.warnings[0]


def test_later_debugfs_schemes_have_quotas_and_watermarks_and_show_statistics() -> None:
    # Linux 5.16: quota in ms, bytes and reset interval in ms, three weights, metric, interval in us, high, mid, low;
    # reading the file gave five statistics more
    line = "4096 8192 0 5 10 20 2 10 134217728 1000 0 3 7 1 5000000 500 400 200"
    expected = [
        "pageout size=4K..8K rate<=5samples age=10aggrs..20aggrs quota=10ms+128M/1s weights=0:3:7 "
        "watermarks=free:50%:40%:20%/5s"
    ]
    assert short(line) == expected
    assert short(line + " 12 49152 3 12288 0") == expected


def test_forms_may_be_mixed_line_by_line() -> None:
    loaded = load("# three\nstat age>=1s\n\n0 max 0 0 1s max cold\n4096 8192 0 5 10 20 2\n")
    assert (loaded.form, loaded.paths) == ("lines", ("line 2", "line 4", "line 5"))
    assert [scheme.action for scheme in loaded.schemes] == ["stat", "cold", "pageout"]


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("stat\npagout age>=1s", "line 2", "did you mean pageout?"),
        ("min max 0 0 1s max pagout", "line 1", "did you mean pageout?"),
        ("min max 0 0 1s max", "line 1", "has 6 words; it must have 7"),
        ("min max 0 120 1s max stat", "line 1", "more than 100%"),
        ("min max 0 0 1s max stat 1 1s 0 0 0 full 1s 3 2 1", "line 1", "'full' is no metric"),
        ("1 2 3", "line 1", "has 3 numbers; a scheme has 7"),
        ("1 2 3 4 5 6 9", "line 1", "0 willneed, 1 cold"),
        ("99999999999999999999 2 3 4 5 6 1", "line 1", "64 bits"),
        ("0 " * 126, "line 1", "has 126 numbers"),
        ("8192 4096 0 5 10 20 2", "line 1: access_pattern.sz_bytes.min", "above the maximum"),
        ("stat\n" * 300, None, "has 300 schemes; the most is 256"),
    ],
)
def test_errors_say_the_line(text: str, where: str | None, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        load(text)
    assert caught.value.where == where
    assert message in caught.value.message
