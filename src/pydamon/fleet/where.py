"""Of which rows something is asked."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.errors import RequestError
from pydamon.plain import encodable, printable

HOUR_S = 3600
_LONGEST = 4096


@dataclass(frozen=True)
class Where:
    """Of which rows; None: of all. ``start`` and ``end`` in seconds since 1970, the end not included."""

    host: str | None = None
    host_class: str | None = None
    service: str | None = None
    cgroup: str | None = None
    start: int | None = None
    end: int | None = None

    def labels(self) -> list[tuple[str, str]]:
        """(column, value) of the labels that are asked for."""
        named = (("host", self.host), ("host_class", self.host_class), ("service", self.service))
        return [(name, value) for name, value in (*named, ("cgroup", self.cgroup)) if value is not None]

    @property
    def whole_hours(self) -> bool:
        return all(time is None or time % HOUR_S == 0 for time in (self.start, self.end))


def check_labels(where: Where) -> None:
    """Raises RequestError for what no label can be."""
    for name, value in where.labels():
        if len(value) > _LONGEST or "\0" in value or encodable(value) != value:
            raise RequestError(f"{printable(value)[:60]!r} is no label", where=name)
