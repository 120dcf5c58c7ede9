"""Taking back what schemes did, as far as that is possible."""

from __future__ import annotations

from collections.abc import Iterable

from pydamon.errors import PydamonError
from pydamon.ops.actions.common import Actions
from pydamon.spec import Scheme
from pydamon.spec.units import format_size


def undo(actions: Actions, schemes: Iterable[Scheme]) -> list[str]:
    """Take back what ``schemes`` did; lines that say what was done, and what could not be.

    To be called while the operations set is still open (``Callbacks.before_terminate``).
    """
    migrated = advised = 0
    remarks: dict[str, None] = {}  # each once, in order
    for scheme in schemes:
        try:
            done = actions.undo(scheme)
        except PydamonError as error:
            remarks[str(error)] = None
            continue
        migrated += done.migrated_back
        advised += done.advice_reversed
        remarks |= dict.fromkeys(done.remarks)
    lines = [f"{format_size(migrated)} migrated back"] if migrated else []
    lines += [f"huge-page advice on {format_size(advised)} reversed"] if advised else []
    return [*lines, *remarks] or ["nothing: nothing was changed that could be"]
