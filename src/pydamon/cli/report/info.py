"""``pydamon report info``: what is in a record."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydamon.cli.render.axes import percent
from pydamon.cli.render.palette import BOLD, styled
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.report import blind, late
from pydamon.cli.report.common import count, opened
from pydamon.errors import PydamonError
from pydamon.plain import json_text, printable
from pydamon.records.reader import RecordReader
from pydamon.records.verify import Verified, verify
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.views.names import source_line, target_line


def report(path: str, as_json: bool, *, verified: bool) -> None:
    """Print what the record is about, how it was made, and what it holds; read all of it if it is to be verified.

    Raises PydamonError if it is damaged then.
    """
    with opened(path) as reader:
        sound = verify(reader) if verified else None
        _print(reader, as_json, sound)
    if sound is not None and sound.damage:
        raise PydamonError("is damaged, see above; the rest can be read", where=path)


def _print(reader: RecordReader, as_json: bool, sound: Verified | None) -> None:
    screen = current_screen()
    found = examine(reader)
    if as_json:
        emit(json_text(found | ({} if sound is None else {"verified": sound})) + "\n")
    else:
        lines = _lines(reader, found, screen)
        if sound is not None:
            lines.append(f"verified: {sound.words}")
        emit("\n".join(screen.fit(line) for line in lines) + "\n")


def _lines(reader: RecordReader, found: dict[str, Any], screen: Screen) -> list[str]:
    lines = [styled(printable(reader.path), BOLD, screen)]
    size, rows = found["file_bytes"], found["region_rows"]
    each = f", {size / rows:.1f} bytes a row" if rows else ""
    ended = "" if found["complete"] else "; not closed (interrupted, or still being written)"
    lines.append(f"{format_size(size)}, {count(rows, 'region row')}{each}{ended}")
    if found["start_ns"] is not None:
        lines.append(f"covers {format_duration_ns(found['end_ns'] - found['start_ns'])}{_when(found)}")
        if last := _utc(found, found["end_ns"]):
            millisecond = last.microsecond // 1000
            lines.append(f"the last snapshot ended at {last:%Y-%m-%d %H:%M:%S}.{millisecond:03d} UTC")
    lines.append(f"made by pydamon {printable(found['pydamon'])}: {source_line(reader) or 'source not known'}")
    if found["primitive_reason"]:
        lines.append(f"  because: {printable(found['primitive_reason'])}")
    sampled, warning = found["sampled"], late.warning(found["sampled"])
    if sampled is not None and sampled["samples"]:
        interval = format_duration_ns(sampled["sampled_ns"] // sampled["samples"])
        lines.append(warning or f"{count(sampled['samples'], 'sample')}, one every {interval}")
    targets = reader.info.targets
    for target in targets[:10]:
        lines.append("  " + target_line(reader, target.target, screen.limit, screen.ellipsis))
    if len(targets) > 10:
        lines.append(f"  and {len(targets) - 10} more targets")
    for one in found["unwatched"][:10]:
        lines.append(f"  target {one['target']} {printable(blind.words(one['bytes_by_reason']))}")
    for one in found["answers"][:10]:
        lines.append(f"  target {one['target']} {_answered(one)}")
    for name, table in found["tables"].items():
        lines.append(f"table {printable(name)}: {count(table, 'piece')}")
    return lines + _spec_lines(reader)


def examine(reader: RecordReader) -> dict[str, Any]:
    """The findings as plain data: the shape of ``report info --json``."""
    info, span = reader.info, reader.time_range()
    tables: dict[str, int] = {}
    for entry in reader.tables():
        tables[entry.name] = tables.get(entry.name, 0) + 1
    return {
        "path": reader.path,
        "file_bytes": reader.file_bytes,
        "region_rows": reader.rows,
        "complete": not reader.truncated,
        "start_ns": None if span is None else span[0],
        "end_ns": None if span is None else span[1],
        "clock": info.clock,
        "wall_offset_ns": info.wall_offset_ns,
        "pydamon": info.pydamon,
        "ops": info.ops,
        "primitive": info.primitive,
        "primitive_reason": info.primitive_reason,
        "targets": [
            {"target": t.target, "pid": t.pid, "command": t.command, "start_ticks": t.start_ticks} for t in info.targets
        ],
        "tables": tables,
        "unwatched": [
            {"target": target, "bytes_by_reason": reasons} for target, reasons in blind.by_reason(reader).items()
        ],
        "answers": blind.answers(reader),
        "sampled": late.sampling(reader),
        "machine": dict(info.machine),
        "spec": dict(info.spec),
    }


def _answered(one: dict[str, int]) -> str:
    """Who has answered, in a few words; at least one sample was taken."""
    samples = one["by_primitive"] + one["by_reports"] + one["unknown"]
    shares = (percent(one[name] / max(samples, 1)) for name in ("by_primitive", "by_reports", "unknown"))
    words = (f"{share} {who}" for share, who in zip(shares, ("by sampling", "by reports", "by nobody"), strict=True))
    return f"samples of regions answered: {', '.join(words)} ({one['reports']:,} reports)"


def _when(found: dict[str, Any]) -> str:
    if found["clock"] == "virtual" or found["wall_offset_ns"] is None:
        return " of virtual time" if found["clock"] == "virtual" else ""
    start = _utc(found, found["start_ns"])
    return f", from {start:%Y-%m-%d %H:%M:%S} UTC" if start is not None else ""


def _utc(found: dict[str, Any], time_ns: int) -> datetime | None:
    """The time of day; None where the record does not tell, or tells what cannot be."""
    if found["clock"] == "virtual" or found["wall_offset_ns"] is None:
        return None
    try:
        return datetime.fromtimestamp((time_ns + found["wall_offset_ns"]) / 1e9, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _spec_lines(reader: RecordReader) -> list[str]:
    from pydamon.errors import RequestError
    from pydamon.spec import explain, from_builtins

    try:
        return ["", *explain(from_builtins(reader.info.request))]
    except RequestError:
        return []  # imported, or of another version
