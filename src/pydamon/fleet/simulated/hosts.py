"""The hosts of a simulated fleet, minute by minute: Arrow batches with known noise, and the truth without it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydamon.dataset.schema import AGES_S, WINDOWS_S, bucket
from pydamon.fleet.simulated import mixes

if TYPE_CHECKING:
    import pyarrow as pa

_PAGE_BITS = 12
_ROWS = 80_000  # of a batch, about: a host of 50 cgroups on a day
# Standard deviations. Between hosts and cgroups they are part of the truth; from minute to minute they are noise.
_HOSTS, _CGROUPS = 0.05, 0.2
_RESIDENT_NOISE, _COLD_NOISE, _RETURNED_NOISE = 0.01, 0.02, 0.1
_CUT = 4.0  # standard deviations at which noise ends, on both sides alike
_MONITOR_US, _MONITOR_BYTES = 900, 600_000
_RECLAIMED, _REFAULTED = 2e-5, 0.02  # of memory idle for an hour, a minute, on large hosts; and of that what comes back


@dataclass(frozen=True)
class Fleet:
    """What is simulated: ``cgroups`` on each of ``hosts``, ``minutes`` from ``first`` (seconds since 1970) on."""

    hosts: int
    cgroups: int
    minutes: int
    first: int
    seed: int

    @property
    def cut(self) -> int:
        """When the rollout happens: in the middle, at a full hour if there is more than one."""
        half = self.first + self.minutes // 2 * mixes.MINUTE_S
        hour = half // 3600 * 3600
        return hour if hour > self.first else half

    @cached_property
    def of_hosts(self) -> HostFacts:
        """What is drawn for hosts, from the seed alone."""
        draw = np.random.default_rng([self.seed, 1])
        shares = np.cumsum([one.share for one in mixes.CLASSES])
        kind = np.searchsorted(shares, (np.arange(self.hosts) + 0.5) / self.hosts)
        kind = draw.permutation(np.minimum(kind, len(mixes.CLASSES) - 1))
        factor = np.exp(draw.normal(0, _HOSTS, self.hosts))
        treated = np.zeros(self.hosts, bool)
        treated[draw.permutation(self.hosts)[: self.hosts // 2]] = True
        hoards = np.zeros(self.hosts, bool)
        hoards[draw.permutation(self.hosts)[: max(round(self.hosts * mixes.OUTLIER_SHARE), 1)]] = True
        return HostFacts(kind, factor, treated, hoards)

    def name(self, host: int) -> str:
        return f"host-{host:05}"

    def by_bucket(self) -> dict[int, list[int]]:
        """The hosts of each bucket of the data set, sorted by name."""
        found: dict[int, list[int]] = {}
        for host in sorted(range(self.hosts), key=self.name):
            found.setdefault(bucket(self.name(host)), []).append(host)
        return found

    def service(self, cgroup: int) -> int:
        return cgroup % len(mixes.SERVICES)

    def cgroup(self, number: int) -> str:
        """The path of a cgroup."""
        return f"/{mixes.SERVICES[self.service(number)].name}.slice/{number // len(mixes.SERVICES):03}"


class HostFacts(NamedTuple):
    """Of each host: its class, how much larger its memory is, whether it gets the rollout, whether a service hoards."""

    kind: NDArray[np.int64]
    factor: NDArray[np.float64]
    treated: NDArray[np.bool_]
    hoards: NDArray[np.bool_]


class Sums(NamedTuple):
    """The truth, summed over rows, of each service: bytes × minutes; (services,) and (services, ages)."""

    resident: NDArray[np.float64]
    cold: NDArray[np.float64]
    returned: NDArray[np.float64]

    @classmethod
    def nothing(cls) -> Sums:
        services = len(mixes.SERVICES)
        return cls(np.zeros(services), np.zeros((services, len(AGES_S))), np.zeros((services, len(AGES_S))))

    def add(self, other: Sums) -> None:
        for mine, theirs in zip(self, other, strict=True):
            mine += theirs


class Hosts:
    """Makes the rows of one stretch of minutes: what follows from the mixes is computed once."""

    def __init__(self, fleet: Fleet, minutes: NDArray[np.int64]) -> None:
        self._fleet, self._minutes = fleet, minutes
        of = [(mixes.cold_shares(one, minutes), mixes.returned_shares(one, minutes)) for one in mixes.SERVICES]
        # (services, ages, minutes), contiguous in minutes: each is used a column at a time
        self._cold = np.stack([cold.T for cold, _ in of])
        self._returned = np.stack([returned.T for _, returned in of])
        self._cold_sum, self._returned_sum = self._cold.sum(axis=2), self._returned.sum(axis=2)
        self._cold32 = self._cold.astype(np.float32)
        self._spread32 = (_COLD_NOISE * self._cold * (1 - self._cold)).astype(np.float32)
        self._returned32 = self._returned.astype(np.float32)

    def batches(self, host: int, truth: Sums) -> Iterator[pa.RecordBatch]:
        """The rows of a host, sorted by cgroup and minute; adds what they would be without noise to ``truth``."""
        size = max(_ROWS // len(self._minutes), 1)
        names = sorted(range(self._fleet.cgroups), key=self._fleet.cgroup)
        for at in range(0, len(names), size):
            yield self._batch(host, np.array(names[at : at + size]), truth)

    def _batch(self, host: int, cgroups: NDArray[np.int64], truth: Sums) -> pa.RecordBatch:
        fleet, minutes = self._fleet, self._minutes
        draw = np.random.default_rng([fleet.seed, 2, host, int(minutes[0]), int(cgroups[0])])
        service = cgroups % len(mixes.SERVICES)
        size = self.sizes(host, cgroups)  # bytes, (cgroups,)
        extra = self._extra(host, service)  # share of size, (cgroups, minutes)
        self._tell(truth, service, size, extra)

        shape = (len(cgroups), len(minutes))
        wobble, colder, more = (draw.standard_normal(shape, np.float32).clip(-_CUT, _CUT) for _ in range(3))
        pages = (size / (1 << _PAGE_BITS)).astype(np.float32)[:, None] * (1 + np.float32(_RESIDENT_NOISE) * wobble)
        grown = extra.astype(np.float32)
        told: dict[str, NDArray[np.int64]] = {"resident": _bytes(pages * (1 + grown))}
        for at, age in enumerate(AGES_S):
            share = self._cold32[service, at] + colder * self._spread32[service, at] + grown
            before = told["resident"] if at == 0 else told[f"cold_{AGES_S[at - 1]}s"]
            # Single precision may be a page off where shares are next to equal.
            told[f"cold_{age}s"] = np.minimum(_bytes(pages * share), before)
        pages *= 1 + np.float32(_RETURNED_NOISE) * more
        for at, age in enumerate(AGES_S):
            back = _bytes(pages * self._returned32[service, at])
            told[f"returned_{age}s"] = back if at == 0 else np.minimum(back, told[f"returned_{AGES_S[at - 1]}s"])
        for window in WINDOWS_S:
            used = told["resident"] - told[f"cold_{window}s"]
            told[f"used_{window}s"] = used
            told[f"used_{window}s_low"] = used - (used >> 5)
            told[f"used_{window}s_high"] = np.minimum(used + (used >> 5), told["resident"])
        self._effects(told, host, colder)
        return self._arrow(host, cgroups, told)

    def sizes(self, host: int, cgroups: NDArray[np.int64]) -> NDArray[np.float64]:
        """What each cgroup has, in bytes, without what grows on it."""
        facts = self._fleet.of_hosts
        times = mixes.CLASSES[facts.kind[host]].times * facts.factor[host]
        draw = np.random.default_rng([self._fleet.seed, 3, host])
        own = np.exp(draw.normal(0, _CGROUPS, self._fleet.cgroups))[cgroups]
        plain = np.array([one.size for one in mixes.SERVICES], np.float64)[cgroups % len(mixes.SERVICES)]
        size: NDArray[np.float64] = plain * times * own
        return size

    def _extra(self, host: int, service: NDArray[np.int64]) -> NDArray[np.float64]:
        """What is never used beyond the mix, as a share of the size; (cgroups, minutes)."""
        facts, names = self._fleet.of_hosts, [one.name for one in mixes.SERVICES]
        found = np.zeros((len(service), len(self._minutes)))
        if facts.treated[host]:
            after = self._minutes >= self._fleet.cut
            found += mixes.ROLLOUT_EXTRA * np.outer(service == names.index(mixes.ROLLOUT_SERVICE), after)
        if facts.hoards[host]:
            found += mixes.OUTLIER_EXTRA * (service == names.index(mixes.OUTLIER_SERVICE))[:, None]
        return found

    def _tell(
        self, truth: Sums, service: NDArray[np.int64], size: NDArray[np.float64], extra: NDArray[np.float64]
    ) -> None:
        grown = extra.sum(axis=1) * size
        np.add.at(truth.resident, service, size * len(self._minutes) + grown)
        np.add.at(truth.cold, service, self._cold_sum[service] * size[:, None] + grown[:, None])
        np.add.at(truth.returned, service, self._returned_sum[service] * size[:, None])

    def _effects(self, told: dict[str, NDArray[np.int64]], host: int, noise: NDArray[np.float32]) -> None:
        """What monitoring costs, what schemes do on large hosts, how long tasks wait."""
        quiet = np.zeros(noise.shape, np.int64)
        some = np.maximum(noise, 0) * 200
        told["psi_some_us"], told["psi_full_us"] = some.astype(np.int64), (some / 4).astype(np.int64)
        acts = mixes.CLASSES[self._fleet.of_hosts.kind[host]].name == "large"
        taken = _bytes(told["cold_3600s"] * (_RECLAIMED / (1 << _PAGE_BITS))) if acts else quiet
        told["reclaimed"] = taken
        told["refaulted"] = (taken * _REFAULTED).astype(np.int64) >> _PAGE_BITS << _PAGE_BITS
        told |= {"promoted": quiet, "demoted": quiet, "collapsed": quiet}
        told["monitor_cpu_us"] = (_MONITOR_US * (1 + 0.1 * noise)).astype(np.int64)
        told["monitor_bytes"] = quiet + _MONITOR_BYTES

    def _arrow(self, host: int, cgroups: NDArray[np.int64], told: dict[str, NDArray[np.int64]]) -> pa.RecordBatch:
        import pyarrow as pa

        from pydamon import __version__
        from pydamon.fleet.files import minutes_schema

        fleet, facts, minutes = self._fleet, self._fleet.of_hosts, self._minutes
        rows = len(cgroups) * len(minutes)
        kind = mixes.CLASSES[facts.kind[host]]
        names = [mixes.SERVICES[fleet.service(int(one))].name for one in cgroups]
        treated = bool(facts.treated[host])
        kernels = np.where((minutes >= fleet.cut) & treated, 1, 0).astype(np.int8)
        each = np.repeat(np.arange(len(cgroups), dtype=np.int32), len(minutes))

        def dictionary(codes: NDArray[np.int32] | NDArray[np.int8], words: list[str]) -> pa.Array:
            return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words, pa.string()))

        same = np.zeros(rows, np.int8)
        columns = {
            "host": dictionary(same, [fleet.name(host)]),
            "host_class": dictionary(same, [kind.name]),
            "cgroup": dictionary(each, [fleet.cgroup(int(one)) for one in cgroups]),
            "pod": dictionary(
                each, [f"{name}/{name}-{host:05}-{one}" for name, one in zip(names, cgroups, strict=True)]
            ),
            "service": dictionary(each, names),
            "kernel": dictionary(np.tile(kernels, len(cgroups)), [mixes.KERNEL_OLD, mixes.KERNEL_NEW]),
            "version": dictionary(same, [__version__]),
            "minute": pa.array(np.tile(minutes, len(cgroups))),
            "seconds": pa.array(np.full(rows, 60, np.int64)),
        }
        plain = [mixes.SERVICES[fleet.service(int(one))].size * kind.times for one in cgroups]
        for name, times in (("limit_bytes", 4), ("request_bytes", 1.5)):
            columns[name] = pa.array(np.repeat([int(size * times) >> 20 << 20 for size in plain], len(minutes)))
        schema = minutes_schema(dictionaries=True)
        columns |= {name: pa.array(values.reshape(-1)) for name, values in told.items()}
        return pa.RecordBatch.from_arrays([columns[field.name] for field in schema], schema=schema)


def _bytes(pages: NDArray[np.float32]) -> NDArray[np.int64]:
    """Whole pages, in bytes."""
    found = pages.astype(np.int64)
    found <<= _PAGE_BITS
    return found
