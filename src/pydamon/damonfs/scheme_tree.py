"""What schemes did, as files: statistics, the effective quota, the regions that were tried."""

from __future__ import annotations

from collections.abc import Sequence

from pydamon.core.scheme_state import SchemeState, Tried
from pydamon.damonfs.formats import U64_MAX
from pydamon.damonfs.levels import Level
from pydamon.damonfs.nodes import ULONG, Directory, Node, Value
from pydamon.spec.damon_files import files_in


class TriedRegions(Directory):
    """What a scheme tried last: ``total_bytes``, and one directory per region, made when somebody looks."""

    __slots__ = ("_fields", "_found", "_has_probes", "_hits", "_rows")

    def __init__(self, level: Level) -> None:
        self._fields = [file.name for file in files_in("schemes/*/tried_regions/*") if level.has(file)]
        self._has_probes = any(map(level.has, files_in("schemes/*/tried_regions/*/probes/*")))
        self._rows: list[tuple[int, ...]] = []
        self._hits: list[list[int]] = []  # per region and probe
        self._found: dict[str, Directory] = {}
        super().__init__({"total_bytes": Value(ULONG, 0, mode=0o400)})

    def clear(self) -> None:
        """Forget the regions and their bytes."""
        self.fill([], 0)

    def fill(self, parts: Sequence[Tried], total_bytes: int) -> None:
        """Show the regions of ``parts``; ``total_bytes`` may be told without any."""
        rows: list[tuple[int, ...]] = []
        hits: list[list[int]] = []
        for part in parts:
            rows += zip(*(getattr(part, field).tolist() for field in self._fields), strict=True)
            hits += part.probe_hits.T.tolist() if len(part.probe_hits) else [[]] * len(part.start)
        found, self._found, self._rows, self._hits = self._found, {}, rows, hits
        for directory in found.values():
            directory.replace({})
            directory.removed = True
        self.set("total_bytes", total_bytes)

    def names(self) -> list[str]:
        return [*super().names(), *map(str, range(len(self._rows)))]

    def nr_directories(self) -> int:
        return len(self._rows)

    def get(self, name: str) -> Node | None:
        node = super().get(name) or self._found.get(name)
        if node is not None or not (name.isascii() and name.isdecimal()) or len(name) > 9:
            return node
        rows, number = self._rows, int(name)
        if str(number) != name or number >= len(rows):
            return None
        values = zip(self._fields, rows[number], strict=True)
        children: dict[str, Node] = {field: Value(ULONG, value, mode=0o400) for field, value in values}
        if self._has_probes:
            each = [Directory({"hits": Value(ULONG, hits, mode=0o400)}) for hits in self._hits[number]]
            children["probes"] = Directory({str(probe): directory for probe, directory in enumerate(each)})
        return self._found.setdefault(name, Directory(children))


def show_stats(scheme: Directory, state: SchemeState) -> None:
    """Write what a running scheme did into its files."""
    stats = scheme["stats"]
    for name, value in state.stats.by_name().items():
        if name in stats:
            stats.set(name, value)


def show_effective_bytes(scheme: Directory, state: SchemeState) -> None:
    """Write the effective quota of a running scheme into its file.

    As in the kernel it is 0 without a quota and before the first window.
    """
    known = state.scheme.quotas.limited and state.passes
    unlimited = U64_MAX if state.quota.esz is None else state.quota.esz
    scheme.set("quotas/effective_bytes", unlimited if known else 0)
