"""The workload format: what is read, what is written, and what each mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydamon.errors import RequestError
from pydamon.workload import builtin, model
from pydamon.workload.model import Access, Phase, Workload, WorkloadRegion

SAMPLE = """\
#regions
a, 10000000
b, 64, none
c, 1 GiB, /tmp/data.bin

# phases

# with a comment of its own, as masim's files have them
initial phase
10000
a, 0, 4096, 1
# in between
c, 1, 64,50, ro


second, with a comma
5s
  b, 0, 1 KiB, 0, wo
b, 0, 8, 3, rw
"""


def test_reads_masim_format_and_units() -> None:
    assert model.parse(SAMPLE, source="x") == Workload(
        regions=(
            WorkloadRegion("a", 10_000_000),
            WorkloadRegion("b", 64),
            WorkloadRegion("c", 1 << 30, "/tmp/data.bin"),
        ),
        phases=(
            Phase("initial phase", 10_000, (Access(0, False, 4096, 1, "wo"), Access(2, True, 64, 50, "ro"))),
            Phase("second, with a comma", 5_000, (Access(1, False, 1024, 0, "wo"), Access(1, False, 8, 3, "rw"))),
        ),
    )


def test_windows_line_ends_and_byte_order_mark_are_fine() -> None:
    data = b"\xef\xbb\xbf" + SAMPLE.replace("\n", "\r\n").encode()
    assert model.parse_bytes(data, source="x") == model.parse(SAMPLE, source="x")


GOOD = ["a, 4096", "b, 8192", "", "one", "1000", "a, 0, 4096, 1", "b, 0, 4096, 1"]


@pytest.mark.parametrize(
    ("line", "text", "where", "message"),
    [
        (7, "z, 0, 4096, 1", "7", "unknown region 'z'; the regions are a, b"),
        (7, "b, 2, 4096, 1", "7", "'2' for random; it is 1 (random) or 0 (sequential)"),
        (7, "b, 0, many, 1", "7", "the stride: 'many' is not a size; write it like 4096, 4K or 2MiB"),
        (7, "b, 0, 0, 1", "7", "a stride of 0 bytes; it must be 1 to 8796093022208"),
        (7, "b, 0, 4096, -1", "7", "the probability '-1' must be a whole number (it is relative to the others)"),
        (7, "b, 0, 4096, 0.5", "7", "the probability '0.5' must be a whole number (it is relative to the others)"),
        (7, "b, 0, 4096, 2147483648", "7", "a probability of 2147483648; it must be 0 to 2147483647"),
        (7, "b, 0, 4096, 1, r", "7", "unknown access mode 'r'; it is ro, wo or rw"),
        (
            7,
            "b, 0, 4096",
            "7",
            "a field is missing in 'b, 0, 4096'; the form is 'region, random 0/1, stride, probability[, ro|wo|rw]'",
        ),
        (7, "b, 0, , 1", "7", "field 3 of 'b, 0, , 1' is empty"),
        (7, "b, 0, 4096, 1, ro, x", "7", "too many fields"),
        (7, "b, 0, 4096, 1\x07", "7", "control characters; a workload is a plain text file"),
        (5, "soon", "5", "the second line of a phase is its milliseconds, like 5000 or 5s; found 'soon'"),
        (5, "0", "5", "a duration of 0 ms; it must be 1 to 4294967295"),
        (5, "1.5 us", "5", "the second line of a phase is its milliseconds"),
        (5, "1500 us", "5", "the duration '1500 us' is not a whole number of milliseconds"),
        (2, "a, 5", "2", "a second region named 'a'; the names must differ"),
        (2, "b", "2", "a field is missing in 'b'; the form is 'name, bytes[, init file]'"),
        (2, "b, 0", "2", "region 'b' has a size of 0 bytes; it must be 1 to 8796093022208"),
        (2, "b, 9 TiB", "2", "region 'b' has a size of 9895604649984 bytes"),
        (2, "b, 5 XB", "2", "the size: '5 XB': there is no unit of size 'xb'"),
        (2, f"b, {'9' * 5000}", "2", "the size: '999"),
        (2, "b, 8 TiB", "", "the regions sum up to 8796093026304 bytes; the most is 8796093022208"),
    ],
)
def test_a_mistake_is_named_with_its_line(line: int, text: str, where: str, message: str) -> None:
    lines = [*GOOD]
    lines[line - 1] = text
    with pytest.raises(RequestError) as caught:
        model.parse("\n".join(lines), source="pattern.cfg")
    assert caught.value.where == (f"pattern.cfg:{where}" if where else "pattern.cfg")
    assert caught.value.message.startswith(message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("", "f", "empty"),
        ("# only\n\n# comments\n", "f", "empty"),
        ("a, 4096\n", "f", "no phases"),
        ("a, 4096\n\none\n1000\n", "f:4", "phase 'one' is too short"),
        ("a, 4096\n\none\n", "f:3", "phase 'one' is too short"),
        (" , 4096\n", "f:1", "field 1"),
    ],
)
def test_incomplete_files(text: str, where: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        model.parse(text, source="f")
    assert caught.value.where == where
    assert caught.value.message.startswith(message)


def test_binary_and_huge_files(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"a, 4096\n\n\xff\xfe\x00")
    with pytest.raises(RequestError, match=r"w:3: not UTF-8 text"):
        model.read(str(path))
    path.write_bytes(b"#" * (model.MAX_FILE_BYTES + 1))
    with pytest.raises(RequestError, match="larger than 1048576 bytes"):
        model.read(str(path))
    with pytest.raises(RequestError, match="Is a directory"):
        model.read(str(tmp_path))
    with pytest.raises(RequestError, match="zero byte"):
        model.read("a\0b")


@pytest.mark.parametrize(
    "make",
    [
        lambda: WorkloadRegion("a,b", 1),
        lambda: WorkloadRegion(" a", 1),
        lambda: WorkloadRegion("#a", 1),
        lambda: WorkloadRegion("", 1),
        lambda: WorkloadRegion("a\nb", 1),
        lambda: WorkloadRegion("a" * 256, 1),
        lambda: WorkloadRegion("\ud800", 1),
        lambda: WorkloadRegion("a", 1, "none"),
        lambda: Workload((), ()),
        lambda: Workload((WorkloadRegion("a", 1), WorkloadRegion("a", 1)), (Phase("p", 1, (Access(0, False, 1, 1),)),)),
        lambda: Workload((WorkloadRegion("a", 1),), (Phase("p", 1, (Access(1, False, 1, 1),)),)),
    ],
)
def test_impossible_values_are_refused(make: object) -> None:
    with pytest.raises(RequestError):
        make()  # type: ignore[operator]


names = (
    st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters=","), min_size=1, max_size=12)
    .map(str.strip)
    .filter(lambda name: bool(name) and not name.startswith("#"))
)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    region_names = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    files = st.none() | names.filter(lambda name: name != "none")
    sizes = st.integers(1, 1 << 40)
    regions = tuple(WorkloadRegion(name, draw(sizes), draw(files)) for name in region_names)
    access = st.builds(
        Access,
        region=st.integers(0, len(regions) - 1),
        random=st.booleans(),
        stride_bytes=st.integers(1, 1 << 20),
        probability=st.integers(1, 1000),
        mode=st.sampled_from(model.MODES),
    )
    phase = st.builds(
        Phase,
        name=names,
        duration_ms=st.integers(1, model.MAX_DURATION_MS),
        accesses=st.lists(access, min_size=1, max_size=4).map(tuple),
    )
    return Workload(regions, draw(st.lists(phase, min_size=1, max_size=4).map(tuple)))


@given(workloads())
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back(workload: Workload) -> None:
    text = workload.to_text()
    assert model.parse(text, source="x") == workload
    assert model.parse_bytes(text.encode(), source="x") == workload


@given(st.text() | st.text("ab0159,. #\n\t-KiMs"))
@settings(max_examples=200, deadline=None)
def test_no_text_raises_anything_else(text: str) -> None:
    try:
        model.parse(text, source="x")
    except RequestError as error:
        assert "\n" not in str(error)


@given(st.binary())
@settings(max_examples=100, deadline=None)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        model.parse_bytes(data, source="x")
    except RequestError as error:
        assert error.where


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_damage_to_a_good_file_raises_anything_else(data: st.DataObject) -> None:
    lines = SAMPLE.split("\n")
    index = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(0, len(lines[index])))
    lines[index] = (
        lines[index][:at] + data.draw(st.text(max_size=5)) + lines[index][at + data.draw(st.integers(0, 3)) :]
    )
    try:
        model.parse("\n".join(lines), source="x")
    except RequestError as error:
        assert error.where is not None
        assert error.where.startswith("x")


def test_builtin_workloads() -> None:
    stairs = builtin.load("stairs")
    assert [region.size_bytes for region in stairs.regions] == [10_485_760] * 10
    assert [phase.duration_ms for phase in stairs.phases] == [1000] + [5000] * 10
    assert {access.region for access in stairs.phases[0].accesses} == set(range(10))
    assert [[access.region for access in phase.accesses] for phase in stairs.phases[1:]] == [[i] for i in range(10)]

    zigzag = builtin.load("zigzag")
    assert [region.size_bytes for region in zigzag.regions] == [104_857_600] * 2
    assert [phase.accesses[0].region for phase in zigzag.phases[1:]] == [0, 1] * 5

    hotspots = builtin.load("hotspots")
    assert hotspots.total_bytes == 1 << 30
    assert sorted(hotspots.regions[a.region].size_bytes >> 20 for a in hotspots.phases[1].accesses) == [
        4,
        8,
        16,
        20,
        32,
    ]

    assert [access.random for access in builtin.load("random").phases[1].accesses] == [True]


def test_load_by_path_and_unknown_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.cfg"
    path.write_text(SAMPLE)
    assert builtin.load(str(path)) == model.parse(SAMPLE, source="x")
    with pytest.raises(RequestError, match=r"'stair': neither a built-in workload \(stairs, zigzag, .*path"):
        builtin.load("stair")
    for nonsense in ("", "a\0b"):
        with pytest.raises(RequestError):
            builtin.load(nonsense)


def test_a_phase_of_probabilities_of_0_is_a_pause() -> None:
    # masim plays it so: "quiet: 0 accesses/msec, 1000 msecs run"
    workload = model.parse("a, 4096\n\none\n1000\na, 0, 1, 1\n\nquiet\n1000\na, 0, 1, 0\n", source="f")
    assert [phase.total_probability for phase in workload.phases] == [1, 0]
