"""What the writer puts into a file, when, and what it does where it cannot."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc
from tests.unit.records.record_samples import START_NS, as_tuple, mapping, metadata, snapshot, write

from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError, RequestError
from pydamon.records.reader import RecordReader
from pydamon.records.schema import BATCH_ROWS, MAX_BATCH_ROWS
from pydamon.records.writer import RecordWriter, check_output

ROOT = Path(__file__).parents[3]
REGIONS = [(0x1000, 0x3000, 20, 7), (0x3000, 0x9000, 0, 2)]


def test_any_arrow_reader_sees_the_region_table(tmp_path: Path) -> None:
    path = write(tmp_path / "r", [snapshot(0, REGIONS)], maps=[mapping(0x1000, 0x9000, "[heap]")])
    with path.open("rb") as file:
        table = ipc.open_stream(file).read_all()
    assert table.to_pylist() == [
        {
            "target": 0,
            "start_ns": START_NS,
            "end_ns": START_NS + 100_000_000,
            "sample_us": 5000,
            "aggr_us": 100_000,
            "start": start,
            "end": end,
            "nr_accesses": nr_accesses,
            "age": age,
            "resident": None,
            "unknown": None,
            "age_ms": None,
        }
        for start, end, nr_accesses, age in REGIONS
    ]
    assert b'"ops":"vaddr"' in table.schema.metadata[b"pydamon"]


def test_arrays_may_change_after_they_were_added(tmp_path: Path) -> None:
    one = snapshot(0, REGIONS)
    before = as_tuple(one)
    with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer:
        writer.add_snapshot(one)
        one.start[:] = 0
        one.nr_accesses[:] = 0
    with RecordReader(tmp_path / "r") as reader:
        assert [as_tuple(s) for s in reader.snapshots()] == [before]


def test_what_was_flushed_is_readable_while_the_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r"
    writer = RecordWriter(path, metadata=metadata(1))
    for number in range(35):
        writer.add_snapshot(snapshot(number, REGIONS))
    # Flushed with those that ended 1, 2 and 3 s after the first one did.
    with RecordReader(path) as reader:
        assert len(list(reader.snapshots())) == 31
        assert reader.truncated
        assert reader.left_out_bytes == 0
    writer.close()
    with RecordReader(path) as reader:
        assert len(list(reader.snapshots())) == 35
        assert not reader.truncated


def test_ticks_flush_once_a_second(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "r", metadata=metadata(1))
    writer.tick(0)
    writer.add_mappings(0, 0, [mapping(0x1000, 0x2000, "")])
    size = writer.bytes_written
    writer.tick(999_999_999)
    assert writer.bytes_written == size
    writer.tick(1_000_000_000)
    assert writer.bytes_written > size


def test_many_rows_are_flushed_at_once(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "r", metadata=metadata(1))
    size = writer.bytes_written
    regions = [(4096 * i, 4096 * (i + 1), 0, 0) for i in range(BATCH_ROWS // 4)]
    for number in range(4):
        assert writer.bytes_written == size
        writer.add_snapshot(snapshot(number, regions, aggr_ns=20_000))
    assert writer.bytes_written > size


def test_a_snapshot_larger_than_a_batch_is_one_snapshot(tmp_path: Path) -> None:
    count = MAX_BATCH_ROWS + 5
    large = snapshot(1, [(0x1000, 0x2000, 1, 1)])
    places = np.arange(count, dtype=np.uint64) * 4096
    ones = np.ones(count, dtype=np.uint32)
    large = type(large)(0, large.start_ns, large.end_ns, 5000, 100_000, places, places + np.uint64(4096), ones, ones)
    path = write(tmp_path / "r", [snapshot(0, REGIONS), large, snapshot(2, REGIONS)])
    with RecordReader(path) as reader:
        assert [len(s.start) for s in reader.snapshots()] == [2, count, 2]
        assert as_tuple(reader.last_snapshots()[0]) == as_tuple(snapshot(2, REGIONS))


def test_mappings_are_written_only_when_they_change(tmp_path: Path) -> None:
    first, second = [mapping(0x1000, 0x2000, "[heap]")], [mapping(0x1000, 0x4000, "[heap]")]
    with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer:
        for time_ns, mappings in ((10, first), (20, first), (30, []), (40, second), (50, second)):
            writer.add_mappings(time_ns, 0, mappings)
    with RecordReader(tmp_path / "r") as reader:
        assert reader.mapping_times(0) == [10, 40]
        assert [reader.mappings_at(0, t) for t in (0, 10, 39, 40, 99)] == [first, first, first, second, second]
        assert reader.mappings_at(1, 10) == []


def test_side_tables_come_back(tmp_path: Path) -> None:
    looked_up = {"refreshes": 1, "total_ns": 5, "pages": 1}
    with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer:
        writer.add_rows("reverse_map", [{"time_ns": time_ns, **looked_up} for time_ns in (1, 2)], time_ns=2)
        writer.flush()
        writer.add_opaque("events", pa.table({"text": ["exec"]}))
    with RecordReader(tmp_path / "r") as reader:
        assert [(e.name, e.time_ns) for e in reader.tables()] == [("reverse_map", 2), ("events", None)]
        (piece,) = reader.table("reverse_map")
        assert piece.to_pylist() == [{"time_ns": time_ns, **looked_up} for time_ns in (1, 2)]
        assert [t.to_pylist() for t in reader.table("events")] == [[{"text": "exec"}]]


def test_rows_that_come_each_second_wait_for_each_other(tmp_path: Path) -> None:
    """For five seconds; what is flushed, or closed, has all of them, each once and in order."""
    path = tmp_path / "r"
    footprint = {"target": 0, "virtual_bytes": 3, "resident_bytes": 2, "swap_bytes": 1}
    writer = RecordWriter(path, metadata=metadata(1))

    def second(number: int) -> None:
        now_ns = START_NS + number * 1_000_000_000
        writer.add_snapshot(snapshot(10 * number, REGIONS))
        writer.add_rows("cost", [COST | {"time_ns": now_ns}], time_ns=now_ns)
        writer.add_rows("footprint", [footprint | {"time_ns": now_ns}], time_ns=now_ns)
        writer.tick(now_ns)

    def found() -> dict[str, list[list[int]]]:
        with RecordReader(path) as reader:
            return {
                name: [
                    [(row["time_ns"] - START_NS) // 10**9 for row in piece.to_pylist()] for piece in reader.table(name)
                ]
                for name in ("cost", "footprint")
            }

    for number in range(5):
        second(number)
        assert found() == {"cost": [], "footprint": []}
    second(5)
    pieces = [[0, 1, 2, 3, 4, 5]]
    assert found() == {"cost": pieces, "footprint": pieces}
    second(6)
    writer.flush()
    pieces.append([6])
    assert found() == {"cost": pieces, "footprint": pieces}
    second(7)
    second(8)
    writer.close()
    pieces.append([7, 8])
    assert found() == {"cost": pieces, "footprint": pieces}
    with RecordReader(path) as reader:
        assert len(list(reader.snapshots())) == 9


def test_a_record_costs_few_bytes_per_region(tmp_path: Path) -> None:
    """500 regions with random bounds that mostly stay, random accesses and growing ages: the target is 6 bytes."""
    random = np.random.default_rng(1)
    pages = np.sort(random.choice(1 << 20, 501, replace=False)).astype(np.uint64)
    rows = 0
    with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer:
        for number in range(400):
            moved = random.integers(1, 500, 40)
            pages[moved] = (pages[moved - 1] + pages[moved + 1]) // np.uint64(2)
            bounds = np.unique(pages) * np.uint64(4096)
            count = len(bounds) - 1
            like = snapshot(number, [])
            writer.add_snapshot(
                type(like)(
                    *(0, like.start_ns, like.end_ns, 5000, 100_000),
                    *(bounds[:-1], bounds[1:]),
                    random.binomial(20, 0.3, count).astype(np.uint32),
                    random.integers(0, 200, count, dtype=np.uint32),
                )
            )
            rows += count
    assert os.path.getsize(tmp_path / "r") / rows < 6


class TestExistingFiles:
    def test_a_record_is_replaced(self, tmp_path: Path) -> None:
        path = write(tmp_path / "r", [snapshot(n, REGIONS) for n in range(50)])
        path.chmod(0o644)
        write(path, [snapshot(7, REGIONS)])
        with RecordReader(path) as reader:
            assert [as_tuple(s) for s in reader.snapshots()] == [as_tuple(snapshot(7, REGIONS))]
        assert path.stat().st_mode & 0o777 == 0o600

    def test_an_empty_file_is_used(self, tmp_path: Path) -> None:
        path = tmp_path / "r"
        path.touch()
        write(path, [snapshot(0, REGIONS)])
        assert path.stat().st_size > 0

    @pytest.mark.parametrize("kind", ["text", "arrow"])
    def test_anything_else_is_left_alone(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "precious"
        if kind == "text":
            path.write_text("precious\n")
        else:
            with ipc.new_stream(str(path), pa.schema([("a", pa.int8())])):
                pass
        content = path.read_bytes()
        for attempt in (check_output, lambda p: RecordWriter(p, metadata=metadata(1))):
            with pytest.raises(RequestError) as caught:
                attempt(str(path))
            assert str(caught.value) == (f"output: {path} exists and is not a pydamon record; choose another name")
        assert path.read_bytes() == content

    def test_a_file_that_is_being_recorded_to_is_left_alone(self, tmp_path: Path) -> None:
        with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer:
            with pytest.raises(RequestError, match="another pydamon is recording to"):
                RecordWriter(tmp_path / "r", metadata=metadata(1))
            writer.add_snapshot(snapshot(0, REGIONS))
        with RecordReader(tmp_path / "r") as reader:
            assert len(list(reader.snapshots())) == 1

    def test_a_link_to_nothing_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(RequestError, match="is a symbolic link to nothing"):
            RecordWriter(tmp_path / "link", metadata=metadata(1))
        assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "Is a directory"),
        ("missing/r", "there is no directory"),
        ("file/r", "Not a directory"),
    ],
)
def test_places_that_cannot_be_written_are_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / name)
    with pytest.raises(RequestError, match=f"^output: .*{reason}"):
        check_output(path)
    with pytest.raises(RequestError, match=r"^output: "):
        RecordWriter(path, metadata=metadata(1))


def test_checking_changes_nothing(tmp_path: Path) -> None:
    check_output(str(tmp_path / "r"))
    assert list(tmp_path.iterdir()) == []
    path = write(tmp_path / "r", [snapshot(0, REGIONS)])
    content = path.read_bytes()
    check_output(str(path))
    assert path.read_bytes() == content


def test_a_new_record_is_private(tmp_path: Path) -> None:
    assert write(tmp_path / "r", []).stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_under_sudo_the_record_belongs_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "12345")
    monkeypatch.setenv("SUDO_GID", "23456")
    status = write(tmp_path / "r", []).stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)


def test_discarding_removes_only_what_was_created(tmp_path: Path) -> None:
    new = RecordWriter(tmp_path / "new", metadata=metadata(1))
    new.discard()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").touch()
    old = RecordWriter(tmp_path / "old", metadata=metadata(1))
    old.discard()
    assert (tmp_path / "old").exists()


@contextmanager
def file_limit() -> Iterator[None]:
    """Files of at most 4000 bytes; Python ignores SIGXFSZ, so that write() fails with EFBIG.

    Only around the writes: the limit would meet pytest's own output, too, where that goes to a file.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_at_the_limit_of_the_file_size_all_flushed_snapshots_stay(tmp_path: Path) -> None:
    path = tmp_path / "r"
    writer = RecordWriter(path, metadata=metadata(1))
    flushed: list[int] = []

    def record() -> None:
        for number in range(1000):
            writer.add_snapshot(snapshot(number, REGIONS))
            writer.flush()
            flushed.append(number)

    with pytest.raises(PydamonError) as caught, file_limit():
        record()
    assert flushed
    size = path.stat().st_size
    assert str(caught.value) == (
        f"{path}: cannot write to the record: the limit of the file size is reached; its first {size} bytes are kept"
    )
    assert caught.value.exit_status == 1
    writer.close()
    with RecordReader(path) as reader:
        assert len(list(reader.snapshots())) == len(flushed)
        assert reader.truncated
        assert reader.left_out_bytes == 0


def test_a_full_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(PydamonError, match=r"^/dev/full: cannot write to the record: the disk is full"):
        RecordWriter("/dev/full", metadata=metadata(1))


@pytest.mark.usefixtures("processes")
def test_what_was_flushed_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "r"
    program = (
        "import os, signal, sys\n"
        "from tests.unit.records.record_samples import metadata, snapshot\n"
        "from pydamon.records.writer import RecordWriter\n"
        "writer = RecordWriter(sys.argv[1], metadata=metadata(1))\n"
        "for number in range(25):\n"
        "    writer.add_snapshot(snapshot(number, [(0x1000, 0x2000, 1, 1)]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False, cwd=ROOT)
    assert done.returncode == -9
    with RecordReader(path) as reader:
        # Flushed with those that ended 1 and 2 s after the first one did.
        assert len(list(reader.snapshots())) == 21
        assert reader.truncated


@pytest.mark.parametrize("seed", range(6))
def test_a_snapshot_is_in_the_file_a_second_after_its_end(tmp_path: Path, seed: int) -> None:
    """The first one at once; however long aggregations take, up to 10 s, while one is at most twice as long as before.

    What counts is the worst moment: just before the next tick, which is when a kill costs most.
    """
    random = np.random.default_rng(seed)
    path = tmp_path / "r"
    now_ns, lasting_ns = START_NS, int(random.choice([5_000_000, 100_000_000, 400_000_000, 900_000_000]))
    ends: list[int] = []
    with RecordWriter(path, metadata=metadata(1)) as writer:
        for _ in range(60):
            lasting_ns = min(int(lasting_ns * random.uniform(0.5, 2)), 10**10)
            in_file = _snapshots_in(path)
            late = [end for end in ends[in_file:] if now_ns + lasting_ns - end > 10**9]
            assert not late, (now_ns, late)
            now_ns += lasting_ns
            for target in range(3):
                writer.add_snapshot(_lasting(target, now_ns - lasting_ns, now_ns))
                ends.append(now_ns)
            writer.add_rows("cost", [COST | {"time_ns": now_ns}], time_ns=now_ns)
            writer.tick(now_ns)
            if len(ends) == 3:
                assert _snapshots_in(path) == 3
    assert _snapshots_in(path) == len(ends)


def test_short_aggregations_are_not_written_one_by_one(tmp_path: Path) -> None:
    """Of 100 ms each: a message for eight of them or more, the first ones aside."""
    with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer:
        sizes = set()
        for number in range(200):
            writer.add_snapshot(snapshot(number, REGIONS))
            writer.tick(START_NS + (number + 1) * 10**8)
            sizes.add(writer.bytes_written)
    assert len(sizes) <= 200 // 8 + 20  # of the first two seconds


COST = {"cpu_ns": 1, "checks": 1, "check_ns": 1, "clears": 1, "clear_ns": 1, "disturb_ns": 1}


def _lasting(target: int, start_ns: int, end_ns: int) -> Snapshot:
    like = snapshot(0, REGIONS, target=target)
    return like.replace(start_ns=start_ns, end_ns=end_ns)


def _snapshots_in(path: Path) -> int:
    with RecordReader(path) as reader:
        return reader.rows // len(REGIONS)


def test_an_error_elsewhere_does_not_lose_what_was_recorded(tmp_path: Path) -> None:
    def record() -> None:
        with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer:
            writer.add_snapshot(snapshot(0, REGIONS))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record()
    with RecordReader(tmp_path / "r") as reader:
        assert len(list(reader.snapshots())) == 1
        assert not reader.truncated
