"""``pydamon report probes``: how much memory has the attributes that a recording counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from pydamon.analysis.attributes import AttributeShare, attribute_shares
from pydamon.analysis.window import Window
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import count, empty, opened, window_of
from pydamon.errors import PydamonError
from pydamon.plain import json_text, printable
from pydamon.records.hits import TABLE, ProbedRegions, probed_regions
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_size
from pydamon.views.names import target_line


def report(path: str, choice: Choice, as_json: bool) -> None:
    """Print, for each target and probe, how much of the accessed and of the idle memory has the attribute."""
    screen = current_screen()
    with opened(path) as reader:
        span = reader.time_range()
        if span is None:
            raise empty(reader, None)
        shares = attribute_shares(_within(reader, window_of(choice, span), span[0], choice))
        if not any(share.accessed_total_bytes + share.idle_total_bytes for share in shares):
            if choice.target is not None and all(t.target != choice.target for t in reader.info.targets):
                raise empty(reader, choice.target)
            asked = any(entry.name == TABLE for entry in reader.tables())
            why = " of that" if asked else ": none was asked for (record --probe)"
            raise PydamonError(f"has no hits of probes{why}", where=path)
        for target in dict.fromkeys(share.target for share in shares):
            mine = [share for share in shares if share.target == target]
            if as_json:
                rows = [{name: value for name, value in asdict(share).items() if name != "target"} for share in mine]
                emit(json_text({"target": target, "probes": rows}) + "\n")
            else:
                emit("\n".join(_text(reader, target, mine, screen)) + "\n")


def _within(reader: RecordReader, window: Window, began_ns: int, choice: Choice) -> Iterator[ProbedRegions]:
    """What was counted in the chosen time of the chosen target, cut to the chosen addresses.

    A record that was cut keeps what its tables say of the time before it ``began_ns``: that does not count.
    """
    start_ns = began_ns if window.start_ns is None else max(window.start_ns, began_ns)
    for piece in reader.table(TABLE):
        for part in probed_regions(piece):
            late_enough = part.time_ns > start_ns
            early_enough = window.end_ns is None or part.time_ns - part.duration_ns < window.end_ns
            if late_enough and early_enough and choice.target in (None, part.target):
                yield part.within(choice.low, choice.high)


def _text(reader: RecordReader, target: int, shares: list[AttributeShare], screen: Screen) -> list[str]:
    rows = [
        [
            printable(share.attribute),
            _of(share.accessed_bytes + share.idle_bytes, share.accessed_total_bytes + share.idle_total_bytes),
            _of(share.accessed_bytes, share.accessed_total_bytes),
            _of(share.idle_bytes, share.idle_total_bytes),
        ]
        for share in shares
    ]
    total = shares[0].accessed_total_bytes + shares[0].idle_total_bytes
    details = f"{printable(reader.path)}: {count(shares[0].snapshots, 'snapshot')}, {format_size(total)} monitored"
    return [
        styled(target_line(reader, target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(f"{details}; means, estimated by samples"), DIM, screen),
        *table(["attribute", "of all", "of what was accessed", "of what was idle"], rows, screen),
    ]


def _of(part: int, whole: int) -> str:
    return f"{format_size(part)} ({part / whole:.1%})" if whole else "-"
