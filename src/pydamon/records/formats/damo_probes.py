"""What probes have hit, in records of damo: counts beside each region, and what they are about in ``FILE.kdamonds``."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import RequestError
from pydamon.records.decode import Rows
from pydamon.records.formats.damo_values import DamoRegion, numbers
from pydamon.records.hits import TABLE, ProbedRegions
from pydamon.records.side_tables import TABLES
from pydamon.spec.forms.damo_layout import DamoReader
from pydamon.spec.forms.scheme_files import values
from pydamon.spec.model import Spec, read
from pydamon.spec.probes import MAX_PROBES, Probe, describe_probe, validate_probes

_MOST_BYTES = 1 << 22


def text_beside(path: str) -> bytes | None:
    """What damo has put beside its record ``path``, in ``PATH.kdamonds``; None where there is no such file."""
    try:
        fd = os.open(f"{path}.kdamonds", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        return os.read(fd, _MOST_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(fd)


class ProbesTold:
    """What is known of the probes of each context: from the record, else from the file beside it."""

    def __init__(self, path: str, kdamonds: Any) -> None:
        self._path = path
        self._kdamonds = kdamonds
        self._asked = kdamonds is not None
        self._known: dict[tuple[int, int], tuple[Probe, ...]] = {}

    def of(self, kdamond: int, context: int) -> tuple[Probe, ...]:
        """The probes of a context by its numbers; none where they are not told, or in a way that is not understood."""
        place = kdamond, context
        if place not in self._known:
            self._known[place] = self._read(kdamond, context)
        return self._known[place]

    def _read(self, kdamond: int, context: int) -> tuple[Probe, ...]:
        try:
            if not self._asked:
                self._asked = True
                text = text_beside(self._path)
                self._kdamonds = None if text is None else values(text)
            told = self._kdamonds[kdamond]["contexts"][context]["probes"]
            # Only them: what else the context says need not be known here.
            layout = DamoReader(lambda _line: None).spec({"kdamonds": [{"contexts": [{"probes": told}]}]})
            probes = read(layout, Spec).kdamonds[0].contexts[0].probes
            validate_probes(probes, ops="vaddr", window=1)  # the file may have been written by anybody
        except (RequestError, TypeError, LookupError):
            return ()
        return probes


def hits_of(regions: Sequence[DamoRegion]) -> NDArray[np.uint64] | None:
    """The hits of the probes, shape (probes, n); None where there are none.

    Raises ValueError if they are no numbers, or of another number of probes from region to region.
    """
    told = [region.probe_hits for region in regions]
    if not any(told):
        return None
    count = len(told[0]) if isinstance(told[0], list) else 0
    if not 0 < count <= MAX_PROBES or not all(isinstance(each, list) and len(each) == count for each in told):
        raise ValueError("not as many hits for each region")
    flat = [value if isinstance(value, int | float | str) else None for each in told for value in each or ()]
    found, good = numbers(flat)
    if not good.all():
        raise ValueError("hits that are no numbers")
    return found.reshape(len(regions), count).T


def probed(rows: Rows, hits: NDArray[np.uint64], probes: Sequence[Probe]) -> ProbedRegions:
    """The hits of the regions of one snapshot. Raises ValueError if they cannot be those of such a snapshot."""
    _, target, start_ns, end_ns, sample_us, aggr_us = rows.index[0].tolist()
    samples = max(aggr_us // max(sample_us, 1), 1)
    disjoint = (rows.start < rows.end).all() and (rows.end[:-1] <= rows.start[1:]).all()
    if not disjoint or (hits > samples).any() or hits.size > TABLES[TABLE].most_rows:
        raise ValueError("more hits than samples, regions that overlap, or too many for a table")
    known = len(probes) == len(hits)
    names = tuple(map(describe_probe, probes)) if known else tuple(f"probe {number}" for number in range(len(hits)))
    return ProbedRegions(
        time_ns=end_ns,
        duration_ns=end_ns - start_ns,
        target=target,
        attributes=names,
        weights=tuple(probe.weight for probe in probes) if known else (0,) * len(hits),
        start=rows.start,
        end=rows.end,
        nr_accesses=rows.nr_accesses,
        age=rows.age,
        samples=np.full(len(rows.start), samples, np.uint32),
        hits=hits.astype(np.uint32),
    )
