"""Regions of a few hosts of a simulated fleet: each cgroup, every ten minutes, with the columns of records.

A cgroup is a target; a part of its service's mix is ten regions that lie side by side, and so is what is never used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pydamon.dataset.schema import VERSION, VERSION_KEY
from pydamon.fleet.simulated import mixes
from pydamon.fleet.simulated.hosts import Fleet, Hosts

if TYPE_CHECKING:
    import pyarrow as pa

MOST_HOSTS = 20
EVERY_MINUTES = 10
MONITOR = "system"
_REGIONS = 10  # of a part
_SAMPLE_US, _SAMPLES = 100_000, 20
_NEVER_S = 30 * 86400.0  # idle for about as long as the host is up
_BASE, _PAGE_BITS = 0x5000_0000_0000, 12
_OPTIONAL = ("resident", "age_ms")


def sampled(fleet: Fleet) -> list[int]:
    """The hosts that tell regions: at most twenty, evenly among all."""
    count = min(MOST_HOSTS, fleet.hosts)
    return [at * fleet.hosts // count for at in range(count)]


def schema() -> pa.Schema:
    """The columns: labels, then those of exported records."""
    import pyarrow as pa

    from pydamon.records.schema import region_fields

    labels = [pa.field(name, pa.string(), nullable=False) for name in ("host", "monitor", "cgroup")]
    fields = [*labels, pa.field("minute", pa.int64(), nullable=False), *region_fields(_OPTIONAL)]
    return pa.schema(fields, metadata={VERSION_KEY: str(VERSION).encode()})


def batch(fleet: Fleet, host: int, minutes: NDArray[np.int64]) -> pa.RecordBatch:
    """The regions of a host at every tenth of these minutes, by minute, target and address."""
    import pyarrow as pa

    at = minutes[::EVERY_MINUTES]
    cgroups = np.arange(fleet.cgroups)
    sizes = Hosts(fleet, at[:1]).sizes(host, cgroups)
    shares, means = _parts(cgroups % len(mixes.SERVICES))  # (cgroups, regions)
    loads = np.stack([mixes.load(one, at) for one in mixes.SERVICES], axis=1)[:, cgroups % len(mixes.SERVICES)]
    mean_s = np.broadcast_to(means, (len(at), *means.shape)) / loads[:, :, None]  # (minutes, cgroups, regions)
    draw = np.random.default_rng([fleet.seed, 4, host, int(minutes[0])])
    hits = draw.binomial(_SAMPLES, -np.expm1(-_SAMPLE_US / 1e6 / mean_s))
    idle_ms = (draw.exponential(mean_s) * 1000).astype(np.uint64)

    pages = np.maximum((shares * sizes[:, None]).astype(np.int64) >> _PAGE_BITS, 1)
    ends = _BASE + (np.cumsum(pages, axis=1) << _PAGE_BITS)
    starts = ends - (pages << _PAGE_BITS)
    shape = mean_s.shape
    rows = int(np.prod(shape))

    def each(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.broadcast_to(values, shape).reshape(-1)

    begin_ns = each(at[:, None, None] * 10**9)
    aggr_us = _SAMPLE_US * _SAMPLES
    told = {
        "host": [fleet.name(host)] * rows,
        "monitor": [MONITOR] * rows,
        "cgroup": np.array([fleet.cgroup(int(one)) for one in cgroups], object)[each(cgroups[None, :, None])],
        "minute": each(at[:, None, None]),
        "target": each(cgroups[None, :, None]),
        "start_ns": begin_ns,
        "end_ns": begin_ns + aggr_us * 1000,
        "sample_us": np.full(rows, _SAMPLE_US),
        "aggr_us": np.full(rows, aggr_us),
        "start": each(starts[None]),
        "end": each(ends[None]),
        "nr_accesses": hits.reshape(-1),
        "age": idle_ms.reshape(-1) // (aggr_us // 1000),
        "resident": each((pages << _PAGE_BITS)[None]),
        "age_ms": idle_ms.reshape(-1),
    }
    columns = schema()
    return pa.RecordBatch.from_arrays([pa.array(told[one.name], one.type) for one in columns], schema=columns)


def _parts(services: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(share of the size, mean time between accesses in s) of each region of each cgroup; (cgroups, regions)."""
    most = max(len(one.parts) for one in mixes.SERVICES) + 1
    shares, means = np.zeros((2, len(mixes.SERVICES), most))
    for number, one in enumerate(mixes.SERVICES):
        parts = [*one.parts, mixes.Part(1 - sum(part.share for part in one.parts), _NEVER_S)]
        parts += [mixes.Part(0.0, _NEVER_S)] * (most - len(parts))
        shares[number], means[number] = zip(*parts, strict=True)
    found = [np.repeat(values, _REGIONS, axis=1)[services] for values in (shares / _REGIONS, means)]
    return found[0], found[1]
