"""``pydamon report access``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from pydamon.analysis.choose import Wanted, order
from pydamon.analysis.distribution import age_s
from pydamon.analysis.names import MappingNames, Owners, short_list
from pydamon.analysis.window import Window
from pydamon.cli.render.palette import BOLD, DIM, LEVELS, colour, styled
from pydamon.cli.render.screen import Screen, current_screen, emit, warn
from pydamon.cli.render.terminal import bar, box, heat_strip
from pydamon.cli.report.common import count, empty, opened, owners_at
from pydamon.cli.report.regions import snapshot_json
from pydamon.core.snapshot import Snapshot
from pydamon.errors import RequestError
from pydamon.plain import json_text, printable
from pydamon.records.batch import RegionBatch
from pydamon.records.reader import RecordReader
from pydamon.spec.units import U64_MAX, format_duration_ns, format_percent, format_size
from pydamon.views.names import source_line, target_line

_BAR = 8
_BOX_LINES = 5


@dataclass(frozen=True, slots=True)
class View:
    """Which snapshot, which of its regions, in which order, and how they are shown."""

    at_ns: int | None = None  # since the start; negative: before the end
    low: int = 0
    high: int = 2**64 - 1
    wanted: Wanted = field(default_factory=Wanted)
    mapping: str | None = None
    by: str = "address"
    top: int | None = None
    style: str = "table"
    whole_ranges: bool = False  # sizes are those of address ranges, whatever is resident in them

    @property
    def everything(self) -> bool:
        """Whether all regions are shown."""
        return self == View(at_ns=self.at_ns, by=self.by, style=self.style, whole_ranges=self.whole_ranges)


@dataclass(frozen=True, slots=True)
class _Row:
    """One region with what is said about it."""

    start: int
    end: int
    nr_accesses: int
    maximum: int
    age_ns: int
    names: list[str]
    resident: int | None  # bytes, as `passed`; None where that is not known
    passed: int | None  # what a scheme's filters let pass


def report(path: str, target: int | None, as_json: bool, view: View) -> None:
    """Print one snapshot of every target, or of the one asked for."""
    screen = current_screen()
    with opened(path) as reader:
        span = reader.time_range()
        if span is None:
            raise empty(reader, None)
        snapshots = reader.last_snapshots() if view.at_ns is None else _at(reader, span, view.at_ns, target)
        if target is not None:
            snapshots = {target: snapshots[target]} if target in snapshots else {}
        if not snapshots:
            raise empty(reader, target)
        if view.at_ns is not None and view.at_ns > span[1] - span[0]:
            ends = format_duration_ns(span[1] - span[0])
            warn([f"--at {format_duration_ns(view.at_ns)}: {path} ends after {ends}; this is its last snapshot"])
        if view.mapping is not None:
            _check_mapping(reader, snapshots, view.mapping)
        shown: list[Snapshot] = []
        for number, snapshot in snapshots.items():
            names = _names_at(reader, number, snapshot.end_ns)
            if view.whole_ranges:
                snapshot = snapshot.replace(resident=None)
            chosen = _choose(snapshot, names, view)
            shown.append(chosen)
            if as_json:
                emit(_json(chosen, names, reader.info.target(number).pid) + "\n")
            else:
                emit(_text(reader, snapshot, chosen, names, view, snapshot.end_ns - span[0], screen))
        if len(shown) > 1 and not as_json:
            emit(styled(screen.fit(_total(shown)), BOLD, screen) + "\n")


def _at(reader: RecordReader, span: tuple[int, int], at_ns: int, target: int | None) -> dict[int, Snapshot]:
    """The snapshot of each target that covers a time, or else the last one before."""
    when = at_ns + (span[1] if at_ns < 0 else span[0])
    found: dict[int, Snapshot] = {}
    for batch in Window(end_ns=when + 1).of(reader.batches(target=target)):
        for number in batch.targets:
            found[number] = batch.snapshot(int(np.flatnonzero(batch.target == number)[-1]))
    if not found:
        raise RequestError(f"{reader.path} has no snapshot by then", where="--at")
    return dict(sorted(found.items()))


def _names_at(reader: RecordReader, target: int, time_ns: int) -> MappingNames | Owners:
    """What is mapped, or whose physical memory is."""
    owners = owners_at(reader, time_ns) if reader.info.ops == "paddr" else None
    return owners or MappingNames(reader.mappings_at(target, time_ns))


def _check_mapping(reader: RecordReader, snapshots: dict[int, Snapshot], wanted: str) -> None:
    """Raise RequestError if nothing is called so in any of the snapshots; it names what there is."""
    known: dict[str, None] = {}
    for number, snapshot in snapshots.items():
        names = _names_at(reader, number, snapshot.end_ns)
        for start, end in zip(snapshot.start.tolist(), snapshot.end.tolist(), strict=True):
            known |= dict.fromkeys(names.of(start, end))
    if not any(_matches(name, wanted) for name in known):
        there = printable(short_list(list(known), 5)) or "none"
        raise RequestError(f"no mapping is called {wanted!r}; there are: {there}", where="--mapping")


def _choose(snapshot: Snapshot, names: MappingNames | Owners, view: View) -> Snapshot:
    """The wanted regions in the wanted order; regions that reach beyond the addresses are cut."""
    if view.low or view.high < 2**64 - 1:
        inside = Window(low=view.low, high=view.high).of([RegionBatch.of([snapshot])])
        cut = next((batch.snapshot(0) for batch in inside), None)
        snapshot = cut if cut is not None else snapshot.select(np.zeros(len(snapshot.start), np.bool_))
    snapshot = snapshot.select(view.wanted.of(snapshot))
    if view.mapping is not None:
        ranges = zip(snapshot.start.tolist(), snapshot.end.tolist(), strict=True)
        called = [any(_matches(name, view.mapping) for name in names.of(start, end)) for start, end in ranges]
        snapshot = snapshot.select(np.array(called, np.bool_))
    return snapshot.select(order(snapshot, view.by)[: view.top])


def _matches(name: str, wanted: str) -> bool:
    """Whether a mapping's name matches: a part of it, or a pattern with ``*`` and ``?`` for all of it."""
    if "*" in wanted or "?" in wanted:
        return fnmatchcase(name, wanted.replace("[", "[[]"))
    return wanted in name


def _json(snapshot: Snapshot, names: MappingNames | Owners, pid: int | None) -> str:
    """The object of ``report regions --json``; each region also has its mappings' ``names`` and ``age_us``."""
    import msgspec

    found = msgspec.json.decode(snapshot_json(snapshot, pid))
    ages_us = np.rint(age_s(RegionBatch.of([snapshot])) * 1e6).astype(np.int64).tolist()
    for region, age_us in zip(found["regions"], ages_us, strict=True):
        region["age_us"] = age_us
        region["names"] = names.of(region["start"], region["end"])
    return json_text(found)


def _rows(snapshot: Snapshot, names: MappingNames | Owners) -> list[_Row]:
    maximum = snapshot.max_nr_accesses
    return [
        _Row(start, end, nr_accesses, maximum, age_ns, names.of(start, end), resident, passed)
        for start, end, nr_accesses, age_ns, resident, passed in zip(
            snapshot.start.tolist(),
            snapshot.end.tolist(),
            snapshot.nr_accesses.tolist(),
            np.rint(age_s(RegionBatch.of([snapshot])) * 1e9).astype(np.int64).tolist(),
            _known_bytes(snapshot, "resident"),
            _known_bytes(snapshot, "sz_filter_passed"),
            strict=True,
        )
    ]


def _known_bytes(snapshot: Snapshot, column: str) -> list[int | None]:
    found = snapshot.column(column)
    if found is None:
        return [None] * len(snapshot.start)
    return [None if value == U64_MAX else value for value in found.tolist()]


def _text(
    reader: RecordReader,
    whole: Snapshot,
    snapshot: Snapshot,
    names: MappingNames | Owners,
    view: View,
    at_ns: int,
    screen: Screen,
) -> str:
    rows = _rows(snapshot, names)
    accessed, total, unknown = _sums(snapshot)
    what = "address ranges" if snapshot.column("resident") is None else "resident memory"
    regions = count(len(rows), "region") if view.everything else f"{len(rows)} of {count(len(whole.start), 'region')}"
    details = [
        f"the {format_duration_ns(snapshot.end_ns - snapshot.start_ns)} up to {format_duration_ns(at_ns)}",
        regions,
        f"{format_size(accessed)} of {format_size(total)} of {what} accessed",
        f"{format_size(unknown)} unknown" if unknown else "",
        source_line(reader),
    ]
    text = f"{printable(reader.path)}: {', '.join(part for part in details if part)}"
    lines = [
        styled(target_line(reader, snapshot.target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(text), DIM, screen),
    ]
    if rows:
        heat = [row.nr_accesses / row.maximum for row in rows]
        lines.append(heat_strip(heat, [row.end - row.start for row in rows], screen, min(screen.width, 100)))
    if view.style == "table" and rows:
        lines += _table(rows, bool(names), screen)
    if view.style == "boxes":
        lines += _boxes(rows, screen)
    return "\n".join(lines) + "\n"


def _sums(snapshot: Snapshot) -> tuple[int, int, int]:
    """Bytes that were accessed, of how many; and unknown ones."""
    batch = RegionBatch.of([snapshot])
    memory = batch.memory
    return (
        int(memory[snapshot.nr_accesses > 0].sum()),
        int(memory.sum()),
        int(batch.unknown_memory.sum(dtype=np.uint64)),
    )


def _total(shown: list[Snapshot]) -> str:
    """What is said of all targets together."""
    accessed, total, unknown = (sum(column) for column in zip(*map(_sums, shown), strict=True))
    what = "resident memory" if all(one.column("resident") is not None for one in shown) else "memory"
    known = f", {format_size(unknown)} unknown" if unknown else ""
    return (
        f"all {len(shown)} targets: {format_size(accessed)} of {format_size(total)} of {what} accessed{known}; "
        "shared memory counts for each"
    )


def _boxes(rows: list[_Row], screen: Screen) -> Iterator[str]:
    """Each region as a box: the wider the larger, the higher the older (both on a scale of powers)."""
    if not rows:
        return
    labels = [
        ", ".join(
            part
            for part in (
                format_size(row.end - row.start),
                format_percent(100 * row.nr_accesses / row.maximum),
                format_duration_ns(row.age_ns),
                printable(short_list(row.names)),
            )
            if part
        )
        for row in rows
    ]
    room = max(min(screen.width - 34, 64), screen.width // 3)
    sizes = np.log2([max(row.end - row.start, 2) for row in rows])
    ages = np.log2([1 + row.age_ns / 1e8 for row in rows])
    widths = np.rint(2 + (room - 2) * (sizes - sizes.min() + 1) / (sizes.max() - sizes.min() + 1)).astype(int)
    heights = np.rint(1 + (_BOX_LINES - 1) * ages / max(float(ages.max()), 1e-9)).astype(int)
    for row, label, width, height in zip(rows, labels, widths.tolist(), heights.tolist(), strict=True):
        filling = box(row.nr_accesses / row.maximum, width, screen)
        beside = label if screen.limit is None else label[: max(screen.width - width - 2, 0)]
        yield f"{filling}  {beside}".rstrip() if beside else filling
        for _ in range(height - 1):
            yield filling


def _table(rows: list[_Row], named: bool, screen: Screen) -> list[str]:
    """The rows as aligned columns; on a narrow terminal the less important ones are left out."""
    columns: dict[str, tuple[str, Callable[[_Row], str]]] = {
        "range": ("<", lambda row: f"{row.start:#x}-{row.end:#x}"),
        "start": ("<", lambda row: f"{row.start:#x}"),
        "size": (">", lambda row: format_size(row.end - row.start)),
        "resident": (">", lambda row: _bytes(row.resident)),
        "access": (">", lambda row: format_percent(100 * row.nr_accesses / row.maximum)),
        "": ("<", lambda row: _bar(row, screen)),
        "samples": (">", lambda row: f"{row.nr_accesses}/{row.maximum}"),
        "age": (">", lambda row: format_duration_ns(row.age_ns)),
        "passed": (">", lambda row: _bytes(row.passed)),
        "mapping": ("<", lambda row: printable(short_list(row.names)) or "-"),
    }
    told = {
        "mapping": named,
        "resident": any(row.resident is not None for row in rows),
        "passed": any(row.passed is not None for row in rows),
    }
    for wanted in (
        ("range", "size", "resident", "access", "", "samples", "age", "passed", "mapping"),
        ("start", "size", "resident", "access", "", "samples", "age", "passed", "mapping"),
        ("start", "size", "resident", "access", "samples", "age", "passed", "mapping"),
        ("start", "size", "resident", "access", "age", "passed"),
        ("start", "size", "access", "age"),
        ("start", "size", "access"),
        ("size", "access"),
    ):
        chosen = [name for name in wanted if told.get(name, True)]
        cells = {name: [columns[name][1](row) for row in rows] for name in chosen}
        widths = {name: _BAR if name == "" else max(len(name), *(len(cell) for cell in cells[name])) for name in chosen}
        # The mapping's name may be cut, but not to nothing.
        needed = sum(min(width, 12) if name == "mapping" else width for name, width in widths.items())
        if not screen.terminal or needed + 2 * (len(chosen) - 1) <= screen.width:
            break
    lines = [styled(_line([(name, columns[name][0], widths[name]) for name in chosen]), DIM, screen)]
    for index, row in enumerate(rows):
        line = _line([(cells[name][index], columns[name][0], widths[name]) for name in chosen])
        line = screen.fit(line)
        drawn = cells[""][index] if "" in chosen else ""
        if screen.colours and drawn:
            # Colour only the bar, which no other column can be mistaken for.
            heat = colour(round(row.nr_accesses / row.maximum * (LEVELS - 1)), screen.colours)
            line = line.replace(drawn, styled(drawn, heat, screen), 1)
        lines.append(line)
    return lines


def _bytes(size: int | None) -> str:
    return "?" if size is None else format_size(size)


def _bar(row: _Row, screen: Screen) -> str:
    return bar(row.nr_accesses / row.maximum, _BAR, screen)


def _line(cells: list[tuple[str, str, int]]) -> str:
    return "  ".join(f"{text:{align}{width}}" for text, align, width in cells).rstrip()
