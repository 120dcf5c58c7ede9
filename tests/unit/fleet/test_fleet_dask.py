"""Dask's workers give the answers that DuckDB alone gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.fleet import fleet_helpers as helpers

from pydamon.errors import RequestError
from pydamon.fleet import cluster as dask
from pydamon.fleet.asking import Data
from pydamon.fleet.compact import compact
from pydamon.fleet.engine import Means
from pydamon.fleet.inventory import inventory
from pydamon.fleet.measures import MEASURES
from pydamon.fleet.query import Query
from pydamon.fleet.where import Where

_QUERIES = (
    helpers.ALL,
    Query(("host", "cgroup"), tuple(MEASURES)),
    Query(("host_class",), ("rows", "first", "resident_bs"), Where(service="search"), cut=helpers.FIRST + 3600),
)


@pytest.mark.usefixtures("processes")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_workers_answer_as_one_machine_does(tmp_path: Path) -> None:
    """Of files that nobody has checked, of compacted ones and of roll-ups, with rows that are left out."""
    root = tmp_path / "f"
    helpers.fleet_at(root, hosts=2, minutes=120, pieces=2)
    bad = helpers.changed(helpers.rows("host-a", minutes=20), "resident", 3, -1)
    helpers.ship(root, bad)
    helpers.ship(root, helpers.rows("host-a", minutes=5))
    helpers.put(root, b"nothing", "host-a")
    with dask.client_of(2, None) as client:
        client.wait_for_workers(2)
        address = client.scheduler.address
        assert address.startswith("tcp://127.0.0.1:")
        for compacted in (False, True):
            for raw in (True, False) if compacted else (True,):
                for query in _QUERIES if compacted else _QUERIES[:1]:
                    alone = Data(str(root), raw).ask(query)
                    shared = Data(str(root), raw, cluster=address).ask(query)
                    assert shared.table.to_pylist() == alone.table.to_pylist()
                    assert shared.left_out.rows == alone.left_out.rows
                    assert shared.left_out.nr_files == alone.left_out.nr_files == 1
            if not compacted:
                compact(str(root), jobs=1)
        columns = {table: helpers.ALL.columns(table) for table in ("minutes", "hours")}
        stock = inventory(root, Where(), columns, roll_ups=False)
        assert len(dask._tasks(stock.jobs, 4)) > 1  # there is something to share
        table, _ = dask.ask_client(client, stock.jobs, helpers.ALL, Means(), shared=True)
        assert table.num_rows == 5


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_scheduler_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "_CONNECT_S", 0.5)
    helpers.ship(tmp_path, helpers.rows())
    with pytest.raises(RequestError, match="no scheduler of Dask answers there"):
        Data(str(tmp_path), cluster="tcp://127.0.0.1:9").ask(helpers.ALL)
    with pytest.raises(RequestError, match="no scheduler of Dask answers there"):
        Data(str(tmp_path), cluster="carrier pigeon").ask(helpers.ALL)
