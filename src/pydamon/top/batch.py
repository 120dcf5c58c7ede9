"""What the screens show, as plain text or JSON, for pipes and programs: ``top -b``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pydamon.plain import printable
from pydamon.top import cells, one_lines, words
from pydamon.top.order import Order, arranged
from pydamon.top.scenes import Scenes
from pydamon.top.spans import plain, text_line
from pydamon.views.live import Live
from pydamon.views.processes import Processes


def list_lines(seen: Processes, order: Order, width: int | None = None) -> Iterator[str]:
    """The list of processes; commands are cut where there is a width."""
    columns = cells.columns_for(100)
    if width is not None:
        columns = cells.columns_for(width)
    else:
        columns[-1] = columns[-1]._replace(width=max([len(printable(row.name)) for row in seen.processes] or [1]) + 8)
    yield words.about_list(seen, None, width if width is not None else 1000)
    yield from map(printable, dict.fromkeys(seen.notices))
    yield cells.head(columns, order).rstrip()
    for entry in arranged(seen.processes, order):
        yield cells.line(entry, columns, indent=1 if order.tree else 0).rstrip()


def scene_lines(seen: Live, scenes: Scenes, width: int | None) -> Iterator[str]:
    """Each target of a view: its facts, idle times, schemes and mappings."""
    room = width if width is not None else 100
    scene = scenes.at(seen.time_ns)
    for number, target in enumerate(seen.targets):
        if number:
            yield ""
        yield cells.fit(one_lines.who(target), room).rstrip()
        yield " · ".join(one_lines.facts(seen, target, one_lines.cost_bp(seen, None)))
        lines = one_lines.idle_table(target, room)
        lines += one_lines.scheme_lines(seen.schemes, room, len(seen.schemes))
        lines.append(text_line(one_lines.mappings_head(room, "memory")))
        found = {} if scene is None else scene.strips(target.target, one_lines.strip_cells(room))
        for one in one_lines.arranged(target.mappings, "memory"):
            lines.append(one_lines.mapping_line(one, found.get((one.name, one.kind)), room))
        yield from map(plain, lines)


def settled(step: Callable[[], Processes], sleep: Callable[[float], object]) -> Processes:
    """Call ``step`` once a second until it is known what was used within its window: of all that were there from the
    start, so that one that has just come is not waited for."""
    seen = step()
    first = {(row.pid, row.start_ticks) for row in seen.processes if row.through}
    for _ in range(2 * seen.window_s):
        here = [row for row in seen.processes if (row.pid, row.start_ticks) in first]
        if all(row.used is not None and not row.used.at_least for row in here):
            break
        sleep(1.0)
        seen = step()
    return seen
