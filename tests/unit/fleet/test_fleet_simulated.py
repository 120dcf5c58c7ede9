"""The simulated fleet: rows that a host could ship, and the truth as it follows from the mixes by another way."""

from __future__ import annotations

import gc
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.fleet import fleet_helpers as helpers

from pydamon.dataset import files
from pydamon.dataset.schema import AGES_S, bucket
from pydamon.errors import RequestError
from pydamon.fleet.files import NewFile, minutes_schema
from pydamon.fleet.simulated import mixes, regions
from pydamon.fleet.simulated.hosts import Fleet
from pydamon.fleet.simulated.write import simulate


def test_each_row_is_one_that_is_believed(tmp_path: Path) -> None:
    helpers.fleet_at(tmp_path / "f")
    count = 0
    for path in (tmp_path / "f" / "minutes").rglob("*.parquet"):
        name = str(path.relative_to(tmp_path / "f"))
        part = files.parse_name(name)
        assert part is not None
        table = files.read(str(path), name)
        checked = files.validate(table)
        assert checked.left_out == {}
        assert {bucket(host) for host in set(table.column("host").to_pylist())} == {part.bucket}
        count += table.num_rows
    assert count == 10 * 5 * 120 == helpers.truth(tmp_path / "f")["rows"]


def test_the_same_seed_gives_the_same_files_whoever_writes_them(tmp_path: Path) -> None:
    helpers.fleet_at(tmp_path / "a", hosts=3)
    helpers.fleet_at(tmp_path / "b", hosts=3)
    helpers.fleet_at(tmp_path / "c", hosts=3, seed=2)
    names = [sorted(path.name for path in (tmp_path / one).rglob("*.parquet")) for one in "abc"]
    assert names[0] == names[1] != names[2]


def test_shares_are_those_of_pages_that_are_played() -> None:
    """A page whose accesses are a Poisson process, followed for long: idle times and returns as the formulas say."""
    part = mixes.Part(1.0, 300.0)
    service = mixes.Service("one", 1, (part,), 0.0, 0)
    draw = np.random.default_rng(5)
    gaps = draw.exponential(part.mean_s, 200_000)
    total = gaps.sum()
    minute = np.array([0], np.int64)
    for at, age in enumerate(AGES_S[:8]):
        cold = np.maximum(gaps - age, 0).sum() / total  # the time in which the page was idle for so long
        back = np.count_nonzero(gaps >= age) / total * 60
        assert mixes.cold_shares(service, minute)[0, at] == pytest.approx(cold, rel=0.05, abs=1e-3)
        assert mixes.returned_shares(service, minute)[0, at] == pytest.approx(back, rel=0.05, abs=1e-3)


def test_the_truth_of_a_service_is_its_mix_times_its_size(tmp_path: Path) -> None:
    """Worked for one host, cgroup and minute: cold after 600 s of the frontend at ten o'clock, beside its size."""
    helpers.fleet_at(tmp_path / "f", hosts=1, cgroups=1, minutes=1, pieces=1)
    told = helpers.truth(tmp_path / "f")["services"]["frontend"]
    load = 1 + 0.6 * math.cos(2 * math.pi * (10 / 24 - 20 / 24))
    share = 0.15 + sum(part * math.exp(-600 * load / mean) for part, mean in ((0.55, 4), (0.2, 90), (0.1, 1500)))
    assert told["cold_bytes"]["600"] == pytest.approx(told["resident_bytes"] * share)


def test_the_rollout_is_on_half_of_the_hosts_from_the_middle_on(tmp_path: Path) -> None:
    helpers.fleet_at(tmp_path / "f")
    told = helpers.truth(tmp_path / "f")["rollout"]
    read = helpers.reread(tmp_path / "f")
    new = read["kernel"] == mixes.KERNEL_NEW
    assert told["hosts"] == len(set(read["host"][new])) == 5
    assert read["minute"][new].min() == told["at"] == helpers.FIRST + 3600


def test_days_are_cut_at_midnight(tmp_path: Path) -> None:
    fleet = Fleet(2, 2, 120, helpers.FIRST + 13 * 3600, 0)
    simulate(tmp_path / "f", fleet, jobs=1)
    assert sorted(path.name for path in (tmp_path / "f" / "minutes").iterdir()) == [
        f"date={files.day(helpers.FIRST)}",
        f"date={files.day(helpers.FIRST + 86400)}",
    ]


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(RequestError, match="is not empty"):
        simulate(tmp_path, Fleet(1, 1, 1, helpers.FIRST, 0), jobs=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_any_tool_reads_the_files(tmp_path: Path) -> None:
    """By Arrow's data set of Hive partitions, which knows nothing of us."""
    helpers.fleet_at(tmp_path / "f", hosts=2)
    found = pq.ParquetDataset(tmp_path / "f" / "minutes").read(columns=["host", "cold_600s", "date"])
    assert found.num_rows == 2 * 5 * 120
    assert isinstance(found, pa.Table)


def test_regions_of_a_few_hosts_are_idle_as_the_mix_says(tmp_path: Path) -> None:
    """Of 8 cgroups of the frontend, 10 regions each a part, at 12 times: idle for 60 s or longer, by size."""
    fleet = Fleet(30, 1, 120, helpers.FIRST, 3)
    assert len(regions.sampled(fleet)) == 20
    minutes = helpers.FIRST + 60 * np.arange(120)
    tables = [pa.Table.from_batches([regions.batch(fleet, host, minutes)]) for host in regions.sampled(fleet)]
    found = pa.concat_tables(tables)
    sizes = (found["end"].to_numpy() - found["start"].to_numpy()).astype(float)
    idle = sizes[found["age_ms"].to_numpy() >= 60_000].sum() / sizes.sum()
    right = mixes.cold_shares(mixes.SERVICES[0], minutes[::10])[:, AGES_S.index(60)].mean()
    assert idle == pytest.approx(right, abs=0.02)  # 2,400 draws of the part that is at about 90 s: 0.2 x 1 %
    assert set(found["minute"].to_pylist()) == set(minutes[::10].tolist())
    used = found["nr_accesses"].to_numpy() > 0
    assert found["age_ms"].to_numpy()[used].mean() < found["age_ms"].to_numpy()[~used].mean()


def test_regions_lie_where_their_host_does(tmp_path: Path) -> None:
    helpers.fleet_at(tmp_path / "f", hosts=2, cgroups=2, minutes=20)
    for path in (tmp_path / "f" / "regions").rglob("*.parquet"):
        part = files.parse_name(str(path.relative_to(tmp_path / "f")))
        assert part is not None
        table = pq.read_table(path, partitioning=None)
        assert [bucket(name) for name in set(table["host"].to_pylist())] == [part.bucket]
    assert len(list((tmp_path / "f" / "regions").rglob("*.parquet"))) == 2


def test_a_file_that_cannot_be_written_is_one_error_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on a full disk: what pyarrow still holds must not be tried again when it is collected."""
    new = NewFile(tmp_path, minutes_schema())
    new.write(pa.RecordBatch.from_pylist([], schema=minutes_schema()))
    new._file.close()
    new.discard()
    del new
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""
