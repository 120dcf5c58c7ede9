"""Where a verb stands: which words lead to it, and what stands below it."""

from __future__ import annotations

from typing import Protocol, TypeGuard, runtime_checkable

import click


@runtime_checkable
class HasFurther(Protocol):
    """A verb that takes targets, and has others below it nevertheless."""

    def further(self) -> dict[str, click.Command]:
        """Those others, by name."""
        ...


def is_group(command: click.Command) -> TypeGuard[click.Group]:
    """Whether all that it has is below it."""
    return isinstance(command, click.Group)


def further(command: click.Command) -> dict[str, click.Command]:
    """What is below a verb that is no group."""
    return command.further() if isinstance(command, HasFurther) else {}


def words_of(ctx: click.Context) -> tuple[str, ...]:
    """What was typed to come here, without ``pydamon``: ``("report", "wss")``."""
    words: list[str] = []
    inner: click.Context | None = ctx
    while inner is not None and inner.parent is not None:
        words[:0] = (inner.info_name or "").split()
        inner = inner.parent
    return tuple(words)
