"""``pydamon generations``: for how long memory has been idle by the kernel's own sorting, without sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import Verb

if TYPE_CHECKING:
    from pydamon.analysis.generations import Idle
    from pydamon.cli.render.screen import Screen
    from pydamon.linux.lru_gen import Generation, Part

_MOST_SHOWN = 10


@click.command("generations", cls=Verb)
@click.option("--cgroup", metavar="PATH", help="Only this cgroup and those below it, by node and generation.")
@click.option("--node", type=click.IntRange(min=0), metavar="N", help="Only this NUMA node.")
@click.option("-i", "--input", "path", type=FILE, help="A copy of the kernel's file lru_gen, e.g. of another machine.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(cgroup: str | None, node: int | None, path: str | None, as_json: bool) -> None:
    """Show for how long memory has been idle by the generations of the kernel's reclaim (multi-generational LRU).

    Nothing is sampled and nothing is changed: the kernel's file is read once. A cgroup has at most four generations on
    a node, and of a page it is known only in which one it is: therefore two numbers for each time.
    """
    from pathlib import Path

    from pydamon.analysis.generations import within
    from pydamon.cli.render.screen import current_screen, emit, emit_json, warn
    from pydamon.errors import RequestError
    from pydamon.linux import lru_gen
    from pydamon.linux.texts import MISREAD

    parts = lru_gen.read(lru_gen.find() if path is None else Path(path))
    warn(MISREAD.take_notices())
    if cgroup is not None:
        parts = within(parts, cgroup)
        if not parts:
            raise RequestError(
                f"{cgroup!r} has no generations; name it from the root, like /system.slice", where="--cgroup"
            )
    if node is not None:
        parts = [part for part in parts if part.node == node]
        if not parts:
            raise RequestError(f"{node} has no generations", where="--node")
    if as_json:
        emit_json(_object(parts))
    else:
        emit("\n".join(_text(parts, cgroup, current_screen())) + "\n")


def _object(parts: list[Part]) -> dict[str, Any]:
    import msgspec

    from pydamon.analysis.generations import idle
    from pydamon.plain import printable

    return {
        "idle": [
            {"idle_at_least_s": row.bound_s, "least_bytes": row.least_bytes, "most_bytes": row.most_bytes}
            for row in idle(parts)
        ],
        "parts": [{**msgspec.to_builtins(part), "path": printable(part.path)} for part in parts],
    }


def _text(parts: list[Part], cgroup: str | None, screen: Screen) -> list[str]:
    from pydamon.analysis.generations import idle
    from pydamon.cli.render.table import table
    from pydamon.plain import printable

    rows = idle(parts)
    title = "idle, by the kernel's generations (four at most: a page's time is known between two of them)"
    lines = [screen.fit(title)]
    lines += table(["idle for", "at least", "at most"], [_idle_cells(row) for row in rows], screen)
    lines.append("")
    if cgroup is None:
        return lines + _largest(parts, screen)
    cells = [
        [printable(part.path), str(part.node), _times(generation), *_sizes(generation)]
        for part in parts
        for generation in reversed(part.generations)
    ]
    return lines + table(["cgroup", "node", "last accessed", "anonymous", "of files"], cells, screen)


def _idle_cells(row: Idle) -> list[str]:
    from pydamon.spec.units import format_duration_ns, format_size

    label = "all" if row.bound_s == 0 else f">= {format_duration_ns(row.bound_s * 10**9)}"
    return [label, format_size(row.least_bytes), format_size(row.most_bytes)]


def _largest(parts: list[Part], screen: Screen) -> list[str]:
    """The cgroups with most memory: how much, and of it what is in the oldest generation."""
    from pydamon.analysis.generations import by_cgroup, size_of
    from pydamon.cli.render.table import table
    from pydamon.plain import printable
    from pydamon.spec.units import format_size

    groups = by_cgroup(parts)
    cells = []
    for path, mine in groups[:_MOST_SHOWN]:
        total = sum(size_of(generation) for part in mine for generation in part.generations)
        oldest = [part.generations[0] for part in mine]
        times = ", ".join(dict.fromkeys(map(_times, oldest)))
        cells.append([printable(path), format_size(total), format_size(sum(map(size_of, oldest))), times])
    lines = table(["cgroup", "size", "oldest", "last accessed"], cells, screen)
    more = len(groups) - _MOST_SHOWN
    return [*lines, screen.fit(f"and {more} more; --cgroup PATH shows one, --json all")] if more > 0 else lines


def _times(generation: Generation) -> str:
    """Between which two times before now."""
    from pydamon.spec.units import format_duration_ns

    low = format_duration_ns(generation.low_ms * 10**6)
    if generation.high_ms is None:
        return f"{low} ago or earlier"
    return f"{low} to {format_duration_ns(generation.high_ms * 10**6)} ago"


def _sizes(generation: Generation) -> tuple[str, str]:
    from pydamon.spec.units import format_size

    return format_size(generation.anon_bytes), format_size(generation.file_bytes)
