"""Which module works where, as a table of Markdown: engine and target."""

from __future__ import annotations

from typing import get_args

from pydamon.modules.base import EngineName, Target
from pydamon.modules.registry import MODULES


def table() -> str:
    """A row for each module and engine, a column for each target."""
    targets: tuple[Target, ...] = get_args(Target)
    lines = [f"| module | engine | {' | '.join(targets)} |", "|---" * (2 + len(targets)) + "|"]
    for module in MODULES.values():
        engine: EngineName
        for engine in get_args(EngineName):
            able = module.where.get(engine, ())
            lines.append(f"| {module.name} | {engine} | {' | '.join('yes' if t in able else '–' for t in targets)} |")
    return "\n".join(lines) + "\n"
