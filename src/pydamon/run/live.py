"""Whether an engine monitors what really runs, by pydamon or by the kernel; imports no engine to find out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from pydamon.engines.kernel.engine import KernelEngine
    from pydamon.engines.user.engine import UserEngine
    from pydamon.run.open import Engine


def is_live(engine: Engine) -> TypeGuard[UserEngine | KernelEngine]:
    """Whether it has processes (or physical memory), what asking them costs, and can be changed while it runs."""
    return hasattr(engine, "cost")


def is_kernel(engine: Engine) -> TypeGuard[KernelEngine]:
    """Whether the kernel monitors."""
    return hasattr(engine.kdamond, "set_goal_value")
