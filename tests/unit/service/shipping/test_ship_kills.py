"""A shipper that is killed at random points, with a store that fails: every minute is there once in the end."""

import os
from pathlib import Path

import pytest
from benchmarks.ship_kills import FIRST, HOST, check, columns, run_apart

from pydamon.dataset.stores import open_store
from pydamon.service.shipping.batches import Packer, Told, encode
from pydamon.service.shipping.journal import Record

pytestmark = pytest.mark.usefixtures("processes")
LONG = bool(os.environ.get("PYDAMON_LONG"))


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_by_kills_and_outages(tmp_path: Path) -> None:
    kills = 200 if LONG else 30
    outcome = run_apart(tmp_path / "life", kills)
    assert outcome.kills == kills
    assert outcome.outages >= kills // 4


@pytest.mark.parametrize("wrong", ["missing", "twice", "left"])
def test_the_check_sees_what_is_wrong(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "seen.json").touch()
    store = open_store(str(tmp_path / "fleet"), make=True)

    def put(*minutes: int) -> None:
        records = [Record(at, encode(Told(host=HOST, columns=columns(at, 2)))) for at in minutes]
        for packed in Packer()(records):
            store.put(f"minutes/date={packed.date}/bucket=00/{len(minutes)}.parquet", packed.data)

    put(FIRST, FIRST + 60)
    check(tmp_path, 2, 2)
    if wrong == "twice":
        put(FIRST)
    elif wrong == "left":
        (tmp_path / "spool" / "out").touch()
    with pytest.raises(AssertionError, match={"left": "left in"}.get(wrong, wrong)):
        check(tmp_path, 3 if wrong == "missing" else 2, 2)
