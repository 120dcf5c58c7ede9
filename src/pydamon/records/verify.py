"""Reading the whole of a record only to find out whether all of it is sound."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.records.joined import AnyReader


@dataclass(frozen=True, slots=True)
class Verified:
    """What is sound of a record, and (a line each) what is not. A recording that was not closed is sound so far."""

    snapshots: int
    regions: int
    pieces: int  # of side tables
    has_checksums: bool
    damage: list[str]

    @property
    def words(self) -> str:
        """The sound part, in a line."""
        how = "their checksums are right" if self.has_checksums else "it has no checksums"
        return f"{self.snapshots:,} snapshots, {self.regions:,} regions, {self.pieces:,} pieces of side tables; {how}"


def verify(reader: AnyReader) -> Verified:
    """Decode every message, and hold every side table to what it is declared as."""
    snapshots = regions = pieces = 0
    for batch in reader.batches():
        snapshots += len(batch)
        regions += len(batch.start)
    for name in dict.fromkeys(entry.name for entry in reader.tables()):
        pieces += sum(1 for _ in reader.pieces(name))
    damage = [line for line in reader.warnings() if not line.endswith(_ONLY_NOT_CLOSED)]
    return Verified(snapshots, regions, pieces, reader.has_checksums, damage)


_ONLY_NOT_CLOSED = "this is all up to its last flush"
