"""Which module is behind which primitive: names become means of access, loaded when they are used.

What is known of a primitive without its module stands in `pydamon.spec.primitives`. A module has two functions beside
its class (`pydamon.primitives.base.Primitive`): ``probe()`` raises MachineError with the reason if it cannot be used
here, ``opener(shared)`` returns what opens it for one process. ``tests/unit/primitives/minimal.py`` is the least that
a primitive is, to begin a new one from.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from pydamon.errors import MachineError
from pydamon.primitives.base import Opener, Shared


class Binding(NamedTuple):
    """Where a primitive's functions are.

    ``parts``: other primitives of which it is made, and which must all work. ``sampler`` is the module whose function
    of that name makes what takes whole samples of all processes at once; None: there is no such thing.
    """

    module: str
    opener: str = "opener"
    parts: tuple[str, ...] = ()
    sampler: str | None = None


BINDINGS = {
    "bpf": Binding("pydamon.primitives.bpf", sampler="pydamon.primitives.bpf_sampler"),
    "bpf+idle": Binding("pydamon.primitives.idle", "opener_by_tables", parts=("bpf", "idle")),
    "idle": Binding("pydamon.primitives.idle"),
    "smaps": Binding("pydamon.primitives.smaps"),
    "soft-dirty": Binding("pydamon.primitives.soft_dirty"),
}


def obstacle(name: str) -> str | None:
    """Why the primitive ``name`` cannot be used here; None if it can. Probes by trying, and leaves nothing behind."""
    binding = BINDINGS[name]
    if binding.parts:
        return next(filter(None, map(obstacle, binding.parts)), None)
    try:
        _module(binding).probe()
    except MachineError as error:
        # The file is worth naming; the primitive's own name stands beside it already.
        return error.message if error.where in (None, name) else str(error)
    return None


def opener(name: str, shared: Shared) -> Opener:
    """What opens the primitive ``name`` for one process. Raises MachineError; ``shared`` is the caller's to close."""
    binding = BINDINGS[name]
    found: Opener = getattr(_module(binding), binding.opener)(shared)
    return found


def sampler(name: str, shared: Shared, seed: int) -> Any:
    """What takes whole samples of all processes that ``shared`` serves, through the primitive ``name``; None: nothing.

    Raises MachineError where it cannot work.
    """
    module = BINDINGS[name].sampler
    return None if module is None else importlib.import_module(module).sampler(shared, seed)


def _module(binding: Binding) -> Any:
    return importlib.import_module(binding.module)
