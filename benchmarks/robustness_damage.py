"""Records with one flipped bit, and cut records: nothing else is read than what was written, and the rest is read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.robustness_tally import SEED, Tally, simulated
from benchmarks.robustness_worker import tally
from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError
from pydamon.records.reader import RecordReader
from pydamon.records.verify import verify

FULL = {"flip": 40_000, "cut": 4_000}
_WORDS = {"flip": "one bit of a record flipped", "cut": "a record cut"}


def damage(scale: float, folder: Path) -> list[Tally]:
    """A row for flips and one for cuts, of a record of a simulated workload."""
    simulated(folder, "r.damon", "3s")
    return [
        tally(_WORDS[kind], "benchmarks.robustness_damage", kind, folder, max(round(full * scale), 1))
        for kind, full in FULL.items()
    ]


def attempts(kind: str, folder: Path, count: int) -> Iterator[str]:
    """What did not hold of each of so many damaged copies of ``r.damon``."""
    chance = random.Random(f"{SEED} {kind}")
    sound = (folder / "r.damon").read_bytes()
    copy = folder / f"{kind}.damon"
    with RecordReader(folder / "r.damon") as reader:
        first = len(reader._schema_bytes)  # what comes before describes the rest
        written, described = _read(reader)
    for _ in range(count):
        at = chance.randrange(len(sound))
        if kind == "cut":
            copy.write_bytes(sound[:at])
            failure = _cut(copy, at < first, written)
        else:
            bit = chance.randrange(8)
            copy.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << bit]) + sound[at + 1 :])
            failure = _flipped(copy, at < first, written, described)
        yield failure and f"{kind} at {at} of {len(sound)}: {failure}"


Key = tuple[int, int]
Values = tuple[Any, ...]


def _read(reader: RecordReader) -> tuple[dict[Key, Values], list[Any]]:
    """(all snapshots as plain values, by target and start; what else the record says)."""
    snapshots = {(one.target, one.start_ns): _plain(one) for one in reader.snapshots()}
    others = [(name, repr(list(reader.table_rows(name)))) for name in sorted({entry.name for entry in reader.tables()})]
    return snapshots, [repr(reader.info), *others]


def _plain(one: Snapshot) -> Values:
    arrays = (one.start, one.end, one.nr_accesses, one.age)
    return one.end_ns, one.sample_us, one.aggr_us, *(tuple(each.tolist()) for each in arrays)


def _flipped(path: Path, in_description: bool, written: dict[Key, Values], described: list[Any]) -> str:
    try:
        with RecordReader(path) as reader:
            found, says = _read(reader)
            said = [*reader.warnings(), *verify(reader).damage]
    except PydamonError as error:
        return "" if in_description else f"cannot be read: {error}"
    if said:  # what is read with a warning may lack something, but holds nothing else
        others = {key: value for key, value in found.items() if written.get(key) != value}
        return f"other snapshots, with {said}" if others and not in_description else _lost(found, written)
    return "" if (found, says) == (written, described) else "other values, silently"


def _lost(found: dict[Key, Values], written: dict[Key, Values]) -> str:
    """A message is lost, with what belongs to its snapshots; of a record of a second a message, no more than two."""
    return f"only {len(found)} of {len(written)} snapshots are left" if len(found) < len(written) // 3 else ""


def _cut(path: Path, in_description: bool, written: dict[Key, Values]) -> str:
    try:
        with RecordReader(path) as reader:
            found = _read(reader)[0]
            said = reader.warnings()
    except PydamonError as error:
        return "" if in_description else f"cannot be read: {error}"
    if in_description:
        return "read without its description"
    if not said:
        return "nothing is said"
    return "" if list(found.items()) == list(written.items())[: len(found)] else "not what it began with"
