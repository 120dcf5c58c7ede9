"""``pydamon report access``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydamon.analysis.names import MappingNames, Owners, short_list
from pydamon.cli.render.palette import BOLD, DIM, LEVELS, colour, styled
from pydamon.cli.render.screen import Screen, current_screen, emit, printable
from pydamon.cli.render.terminal import bar, heat_strip
from pydamon.cli.report.common import count, empty, opened, owners_at, source_line, target_line
from pydamon.cli.report.regions import snapshot_json
from pydamon.core.snapshot import Snapshot
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size

_BAR = 8


@dataclass(frozen=True, slots=True)
class _Row:
    """One region with what is said about it."""

    start: int
    end: int
    nr_accesses: int
    maximum: int
    age_ns: int
    names: list[str]


def report(path: str, target: int | None, as_json: bool) -> None:
    """Print the last snapshot of every target, or of the one asked for."""
    screen = current_screen()
    with opened(path) as reader:
        snapshots = reader.last_snapshots()
        if target is not None:
            snapshots = {target: snapshots[target]} if target in snapshots else {}
        span = reader.time_range()
        if not snapshots or span is None:
            raise empty(reader, target if reader.rows else None)
        for number, snapshot in snapshots.items():
            names: MappingNames | Owners = MappingNames(reader.mappings_at(number, snapshot.end_ns))
            if reader.info.ops == "paddr":
                names = owners_at(reader, snapshot.end_ns) or names
            if as_json:
                emit(_json(snapshot, names, reader.info.target(number).pid) + "\n")
            else:
                emit(_text(reader, snapshot, names, snapshot.end_ns - span[0], screen))


def _json(snapshot: Snapshot, names: MappingNames | Owners, pid: int | None) -> str:
    """The object of ``report regions --json``; each region also has its mappings' ``names`` and ``age_us``."""
    import msgspec

    found = msgspec.json.decode(snapshot_json(snapshot, pid))
    for region in found["regions"]:
        region["age_us"] = region["age"] * snapshot.aggr_us
        region["names"] = names.of(region["start"], region["end"])
    return msgspec.json.encode(found).decode()


def _text(reader: RecordReader, snapshot: Snapshot, names: MappingNames | Owners, at_ns: int, screen: Screen) -> str:
    rows = [
        _Row(start, end, nr_accesses, snapshot.max_nr_accesses, age * snapshot.aggr_us * 1000, names.of(start, end))
        for start, end, nr_accesses, age in zip(
            snapshot.start.tolist(),
            snapshot.end.tolist(),
            snapshot.nr_accesses.tolist(),
            snapshot.age.tolist(),
            strict=True,
        )
    ]
    total = sum(row.end - row.start for row in rows)
    accessed = sum(row.end - row.start for row in rows if row.nr_accesses)
    details = [
        f"the {format_duration_ns(snapshot.end_ns - snapshot.start_ns)} up to {format_duration_ns(at_ns)}",
        count(len(rows), "region"),
        f"{format_size(accessed)} of {format_size(total)} accessed",
        source_line(reader),
    ]
    text = f"{printable(reader.path)}: {', '.join(part for part in details if part)}"
    lines = [
        styled(target_line(reader, snapshot.target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(text), DIM, screen),
        heat_strip(
            [row.nr_accesses / row.maximum for row in rows],
            [row.end - row.start for row in rows],
            screen,
            min(screen.width, 100),
        ),
        *_table(rows, bool(names), screen),
    ]
    return "\n".join(lines) + "\n"


def _table(rows: list[_Row], named: bool, screen: Screen) -> list[str]:
    """The rows as aligned columns; on a narrow terminal the less important ones are left out."""
    columns: dict[str, tuple[str, Callable[[_Row], str]]] = {
        "range": ("<", lambda row: f"{row.start:#x}-{row.end:#x}"),
        "start": ("<", lambda row: f"{row.start:#x}"),
        "size": (">", lambda row: format_size(row.end - row.start)),
        "access": (">", lambda row: f"{100 * row.nr_accesses / row.maximum:.0f} %"),
        "": ("<", lambda row: _bar(row, screen)),
        "samples": (">", lambda row: f"{row.nr_accesses}/{row.maximum}"),
        "age": (">", lambda row: format_duration_ns(row.age_ns)),
        "mapping": ("<", lambda row: printable(short_list(row.names)) or "-"),
    }
    for wanted in (
        ("range", "size", "access", "", "samples", "age", "mapping"),
        ("start", "size", "access", "", "samples", "age", "mapping"),
        ("start", "size", "access", "samples", "age", "mapping"),
        ("start", "size", "access", "age"),
        ("start", "size", "access"),
        ("size", "access"),
    ):
        chosen = [name for name in wanted if named or name != "mapping"]
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


def _bar(row: _Row, screen: Screen) -> str:
    return bar(row.nr_accesses / row.maximum, _BAR, screen)


def _line(cells: list[tuple[str, str, int]]) -> str:
    return "  ".join(f"{text:{align}{width}}" for text, align, width in cells).rstrip()
