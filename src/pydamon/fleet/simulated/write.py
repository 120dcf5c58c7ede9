"""Writing a simulated fleet: a process per CPU, a file or more per date and bucket, and truth.json beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.dataset.files import MOST_MINUTE
from pydamon.dataset.schema import AGES_S, MINUTES, REGIONS, bucket
from pydamon.errors import RequestError
from pydamon.fleet.files import made_folder, minutes_schema, write_all, write_text
from pydamon.fleet.pool import each
from pydamon.fleet.simulated import mixes, regions
from pydamon.fleet.simulated.hosts import Fleet, Hosts, Sums
from pydamon.plain import json_text

TRUTH = "truth.json"


@dataclass(frozen=True)
class Written:
    """What was written."""

    rows: int
    files: int
    bytes: int


def simulate(root: Path, fleet: Fleet, *, pieces: int = 1, jobs: int | None = None) -> Written:
    """Write the fleet into an empty (or new) folder; ``pieces`` files for each date and bucket, as if not compacted.

    Raises RequestError if the folder holds anything, or the time is none that rows can have.
    """
    end = fleet.first + fleet.minutes * mixes.MINUTE_S
    if fleet.first < 0 or end > MOST_MINUTE:
        raise RequestError("is too early or too late: minutes must lie between the years 1970 and 2242", where="until")
    made_folder(root)
    if any(root.iterdir()):
        raise RequestError("is not empty; choose a new folder", where=str(root))
    tasks = [
        (fleet, root, date, first, count, number, hosts, pieces)
        for date, first, count in _dates(fleet)
        for number, hosts in sorted(fleet.by_bucket().items())
    ]
    for _, _, date, *_, number, _, _ in tasks:
        made_folder(root, MINUTES, f"date={date}", f"bucket={number:02}")
    truth, rows, files, size = Sums.nothing(), 0, 0, 0
    for sums, its_rows, its_files, its_bytes in each(_write, tasks, jobs):
        truth.add(sums)
        rows, files, size = rows + its_rows, files + its_files, size + its_bytes
    for date, first, count in _dates(fleet):
        for host in regions.sampled(fleet):
            size += _write_regions(fleet, root, date, _minutes(first, count), host)
            files += 1
    write_text(root / TRUTH, json_text(told(fleet, truth), indent=2) + "\n")
    return Written(rows, files, size)


def _dates(fleet: Fleet) -> Iterator[tuple[str, int, int]]:
    """(date, first minute, how many) of each day that the fleet's minutes reach into."""
    at, end = fleet.first, fleet.first + fleet.minutes * mixes.MINUTE_S
    while at < end:
        until = min((at // mixes.DAY_S + 1) * mixes.DAY_S, end)
        yield datetime.fromtimestamp(at, UTC).date().isoformat(), at, (until - at) // mixes.MINUTE_S
        at = until


def _write(
    fleet: Fleet, root: Path, date: str, first: int, count: int, number: int, hosts: list[int], pieces: int
) -> tuple[Sums, int, int, int]:
    """The files of one date and bucket: (truth, rows, files, bytes)."""
    folder = root / MINUTES / f"date={date}" / f"bucket={number:02}"
    truth, rows, files, size = Sums.nothing(), 0, 0, 0
    for part in np.array_split(_minutes(first, count), min(pieces, count)):
        make = Hosts(fleet, part)
        batches = (batch for host in hosts for batch in make.batches(host, truth))
        name, its_rows = write_all(folder, minutes_schema(dictionaries=True), batches)
        rows, files, size = rows + its_rows, files + 1, size + (folder / name).stat().st_size
    return truth, rows, files, size


def _minutes(first: int, count: int) -> NDArray[np.int64]:
    return first + mixes.MINUTE_S * np.arange(count, dtype=np.int64)


def _write_regions(fleet: Fleet, root: Path, date: str, minutes: NDArray[np.int64], host: int) -> int:
    """The regions of a host on a date; returns the file's size."""
    folder = made_folder(root, REGIONS, f"date={date}", f"bucket={bucket(fleet.name(host)):02}")
    name, _ = write_all(folder, regions.schema(), [regions.batch(fleet, host, minutes)])
    return (folder / name).stat().st_size


def told(fleet: Fleet, truth: Sums) -> dict[str, Any]:
    """The truth as plain values: bytes are means over the time of what the whole fleet had."""
    facts, minutes = fleet.of_hosts, fleet.minutes
    services = {
        one.name: {
            "resident_bytes": float(truth.resident[at] / minutes),
            "cold_bytes": dict(zip(map(str, AGES_S), (truth.cold[at] / minutes).tolist(), strict=True)),
            "returned_bytes_per_minute": dict(
                zip(map(str, AGES_S), (truth.returned[at] / minutes).tolist(), strict=True)
            ),
        }
        for at, one in enumerate(mixes.SERVICES)
    }
    return {
        "seed": fleet.seed, "hosts": fleet.hosts, "cgroups": fleet.cgroups, "minutes": minutes, "first": fleet.first,
        "rows": fleet.hosts * fleet.cgroups * minutes,
        "services": services,
        "rollout": {
            "label": "kernel", "value": mixes.KERNEL_NEW, "at": fleet.cut, "service": mixes.ROLLOUT_SERVICE,
            "hosts": int(facts.treated.sum()), "share_of_size": mixes.ROLLOUT_EXTRA,
            "bytes_per_host": _rollout_effect(fleet),
        },
        "outliers": {
            "service": mixes.OUTLIER_SERVICE,
            "hosts": [fleet.name(int(host)) for host in np.flatnonzero(facts.hoards)],
        },
    }  # fmt: skip


def _rollout_effect(fleet: Fleet) -> float:
    """By how much resident (and cold) memory of the service grows on a host that gets the rollout, on average."""
    make = Hosts(fleet, np.array([fleet.first], np.int64))
    mine = [one for one in range(fleet.cgroups) if mixes.SERVICES[fleet.service(one)].name == mixes.ROLLOUT_SERVICE]
    treated = np.flatnonzero(fleet.of_hosts.treated)
    if not mine or not len(treated):
        return 0.0
    sizes = [make.sizes(int(host), np.array(mine)).sum() for host in treated]
    return float(np.mean(sizes)) * mixes.ROLLOUT_EXTRA
