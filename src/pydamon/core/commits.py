"""What a commit must leave as it is: who is monitored, and by what means."""

from __future__ import annotations

import msgspec

from pydamon.errors import RequestError
from pydamon.spec import Context, Target


def check_kept(before: Context, after: Context) -> None:
    """Raise RequestError, naming the field, if ``after`` is not about the same as ``before``, which runs.

    Targets may be obsolete from now on; one that is cannot come back.
    """
    for name in ("ops", "addr_unit"):
        if getattr(after, name) != getattr(before, name):
            raise RequestError("cannot be changed while it is monitored", where=name)
    if not same_targets(after.targets, before.targets):
        raise RequestError("cannot be changed while it is monitored; one that is not wanted: obsolete", where="targets")
    for number, (old, new) in enumerate(zip(before.targets, after.targets, strict=True)):
        if old.obsolete and not new.obsolete:
            text = "must stay true: the target has been taken out, and its regions are gone"
            raise RequestError(text, where=f"targets[{number}].obsolete")


def same_targets(some: tuple[Target, ...], others: tuple[Target, ...]) -> bool:
    """Whether both are the same, apart from which are obsolete."""
    return tuple(map(_who, some)) == tuple(map(_who, others))


def _who(target: Target) -> Target:
    return msgspec.structs.replace(target, obsolete=False)
