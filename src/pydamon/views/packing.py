"""Moments as few bytes, and back again: about a third of what they take as arrays.

Whole numbers are written as narrow as they are, and regions by their sizes, since most begin where the one before ends.
All targets' are packed together: a call per target and column would take ten times as long. What is the same in many
moments (who finds them, what was mapped) is not packed: whoever keeps them knows it. Only what this process itself has
packed may be unpacked.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.panel import latest
from pydamon.core.columns import PER_SNAPSHOT
from pydamon.core.panel import Look, Once
from pydamon.core.snapshot import Snapshot
from pydamon.run.found import Origin
from pydamon.views.moments import Known, Mapped, Moment

Array = NDArray[Any]
_Narrow = tuple[str, tuple[int, ...], int, int, str, bytes]
_Rows = list[tuple[Any, ...]]
_BESIDE = ("target", "pid", "command", "place", "first_look_ns", "footprint")  # of `Known`: packed as they are
_HEAD = tuple(column.name for column in PER_SNAPSHOT)
_BINS, _ONCE_BINS = ("idle", "unseen", "ended"), ("idle", "unseen")
_LOOK = tuple(name for name in Look.__struct_fields__ if name not in (*_BINS, "once", "woken", "returned"))
_ONCE = tuple(name for name in Once.__struct_fields__ if name not in _ONCE_BINS)


def packed(moment: Moment, key_of: Callable[[Known], int]) -> bytes:
    """The moment; ``key_of`` gives a number for what a target has mapped. Of looks the one stays that is in time."""
    beside = attrgetter(*_BESIDE)
    held = list(moment.targets.values())
    looks = [latest(known.looks) for known in held]
    rows = [(key_of(known), len(seen), beside(known)) for known, seen in zip(held, looks, strict=True)]
    head = (moment.time_ns, moment.schemes, moment.cost, moment.began_ns)
    snapshots = [known.snapshot for known in held]
    what = (head, rows, _packed_looks([look for seen in looks for look in seen]), _packed_snapshots(snapshots))
    return pickle.dumps(what, pickle.HIGHEST_PROTOCOL)


def unpacked(data: bytes, origin: Origin, mapped: Callable[[int], Mapped]) -> Moment:
    """What was packed; ``mapped`` gives what a number stands for."""
    (time_ns, schemes, cost, began_ns), rows, packed_looks, packed_snapshots = pickle.loads(data)
    looks, targets = iter(_unpacked_looks(*packed_looks)), dict[int, Known]()
    for snapshot, (key, count, values) in zip(_unpacked_snapshots(*packed_snapshots), rows, strict=True):
        known = dict(zip(_BESIDE, values, strict=True))
        seen = tuple(islice(looks, count))
        targets[snapshot.target] = Known(snapshot=snapshot, mapped=mapped(key), looks=seen, **known)
    return Moment(time_ns, origin, targets, schemes, cost, began_ns)


# -- arrays -----------------------------------------------------------------------------------------------------------


def _narrow(array: Array) -> _Narrow:
    """(type, shape, what was taken from all values, by how many bits they were moved, the type written, bytes)."""
    kind, shape = array.dtype.str, array.shape
    if array.dtype.kind not in "ui" or not array.size:
        return kind, shape, 0, 0, kind, array.tobytes()
    low = int(array.min())
    rest = (array - array.dtype.type(low)).view(f"u{array.dtype.itemsize}")  # modulo 2^n, if it is signed
    bits = int(np.bitwise_or.reduce(rest, axis=None))
    shift = max((bits & -bits).bit_length() - 1, 0)
    written = next(f"<u{size}" for size in (1, 2, 4, 8) if (bits >> shift).bit_length() <= 8 * size)
    return kind, shape, low, shift, written, (rest >> rest.dtype.type(shift)).astype(written).tobytes()


def _wide(kind: str, shape: tuple[int, ...], low: int, shift: int, written: str, data: bytes) -> Array:
    values: Array = np.frombuffer(data, written).reshape(shape)
    if np.dtype(kind).kind not in "ui":
        return values
    unsigned = values.astype(f"u{np.dtype(kind).itemsize}")
    wide: Array = (unsigned << unsigned.dtype.type(shift)).view(kind)
    wide += wide.dtype.type(low)
    return wide


# -- snapshots --------------------------------------------------------------------------------------------------------


def _packed_snapshots(snapshots: Sequence[Snapshot]) -> tuple[_Rows, list[Any]]:
    """(what each says once, with the number of its regions; of those with the same columns: which, and these)."""
    facts = attrgetter(*_HEAD)
    heads = [(len(one.start), *facts(one)) for one in snapshots]
    groups = defaultdict[tuple[Any, ...], list[int]](list)
    for at, one in enumerate(snapshots):
        groups[tuple((name, array.shape[:-1]) for name, array in one.columns.items())].append(at)
    return heads, [(members, _together([snapshots[at] for at in members])) for members in groups.values()]


def _together(snapshots: Sequence[Snapshot]) -> list[tuple[str, _Narrow]]:
    names = list(snapshots[0].columns)
    joined = {name: np.concatenate([one.columns[name] for one in snapshots], axis=-1) for name in names}
    start, end = joined.pop("start"), joined.pop("end")
    steps = start.copy()  # from the end of the one before, modulo 2^64
    steps[1:] -= end[:-1]
    places = np.flatnonzero(steps)
    regions = {"size": end - start, "place": places.astype(np.uint32), "step": steps[places]}
    return [(name, _narrow(array)) for name, array in (regions | joined).items()]


def _unpacked_snapshots(heads: _Rows, groups: list[Any]) -> list[Snapshot]:
    found: dict[int, Snapshot] = {}
    for members, columns in groups:
        arrays = {name: _wide(*narrow) for name, narrow in columns}
        size = arrays.pop("size")
        steps = np.zeros(len(size), np.uint64)
        steps[1:] = size[:-1]
        steps[arrays.pop("place")] += arrays.pop("step")
        arrays["start"] = np.cumsum(steps, dtype=np.uint64)
        arrays["end"] = arrays["start"] + size
        first = 0
        for at in members:
            regions, *facts = heads[at]
            mine = {name: array[..., first : first + regions] for name, array in arrays.items()}
            found[at] = Snapshot.of(dict(zip(_HEAD, facts, strict=True)), mine)
            first += regions
    return [found[at] for at in range(len(heads))]


# -- looks at panels --------------------------------------------------------------------------------------------------


def _packed_looks(looks: Sequence[Look]) -> tuple[Any, Any, list[int]]:
    """Looks, what some say of memory that counts once, and which these are."""
    some = [at for at, look in enumerate(looks) if look.once is not None]
    return _rows_of(looks, _LOOK, _BINS), _rows_of([looks[at].once for at in some], _ONCE, _ONCE_BINS), some


def _rows_of(held: Sequence[Any], facts: Sequence[str], bins: Sequence[str]) -> tuple[_Rows, list[_Narrow]]:
    rows = list(map(attrgetter(*facts), held))
    return rows, [_narrow(np.array([getattr(one, name) for one in held])) for name in bins]


def _unpacked_looks(looks: Any, once: Any, some: Sequence[int]) -> list[Look]:
    said = dict(zip(some, (Once(**row) for row in _held_by(once, _ONCE, _ONCE_BINS)), strict=True))
    return [Look(**row, once=said.get(at)) for at, row in enumerate(_held_by(looks, _LOOK, _BINS))]


def _held_by(packed: tuple[_Rows, list[_Narrow]], facts: Sequence[str], bins: Sequence[str]) -> list[dict[str, Any]]:
    rows, arrays = packed[0], [_wide(*narrow) for narrow in packed[1]]
    return [
        dict(zip((*facts, *bins), (*row, *(array[at] for array in arrays)), strict=True)) for at, row in enumerate(rows)
    ]
