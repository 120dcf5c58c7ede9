"""Which primitive this machine offers this user, and why not the others."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from pydamon.engines.base import Choice
from pydamon.errors import MachineError


@dataclass(frozen=True, slots=True)
class Offer:
    """What ``doctor`` says about one primitive: usable if ``obstacle`` is None."""

    name: str
    what: str
    obstacle: str | None


_WHAT = {
    "bpf": "page-granular: reads page tables through BPF, clears through process_madvise",
    "bpf+idle": "page-granular: reads page tables through BPF, clears through the idle bitmap",
    "idle": "page-granular: idle page tracking; needs no BPF",
    "smaps": "per mapping: clear_refs and Referenced; no privilege needed for one's own processes",
    "soft-dirty": "writes only: soft-dirty bits",
}
# Tried in this order. idle and bpf+idle do not flush the TLB, so they miss accesses to pages that stay cached there.
_AUTO = ("bpf", "bpf+idle", "idle", "smaps")


def offers() -> list[Offer]:
    """All primitives, best first, each probed by trying (nothing is changed on the machine)."""
    return [Offer(name, what, _obstacle(name)) for name, what in _WHAT.items()]


def choose(requested: str) -> Choice:
    """The primitive for ``requested`` (``auto`` or a name). Raises MachineError if it cannot be used here."""
    if requested != "auto":
        obstacle = _obstacle(requested)
        if obstacle is not None:
            raise MachineError(obstacle, where=f"primitive {requested}")
        return Choice(requested, "asked for")
    obstacles: dict[str, str] = {}
    for name in _AUTO:
        obstacle = _obstacle(name)
        if obstacle is not None:
            obstacles[name] = obstacle
        elif name == "bpf":
            return Choice(name, "page-granular and usable here")
        else:
            what = "coarser, one answer per mapping" if name == "smaps" else "page-granular"
            return Choice(name, f"{what}; bpf, which is better, cannot be used: {obstacles['bpf']}")
    reasons = "; ".join(f"{name}: {obstacle}" for name, obstacle in obstacles.items())
    raise MachineError(f"no primitive can be used; {reasons}", where="primitive auto")


def _obstacle(name: str) -> str | None:
    """Why the primitive cannot be used here; None if it can."""
    if name == "bpf+idle":
        return _obstacle("bpf") or _obstacle("idle")
    module = importlib.import_module(f"pydamon.primitives.{name.replace('-', '_')}")
    try:
        module.probe()
    except MachineError as error:
        # The file is worth naming; the primitive's own name stands beside it already.
        return error.message if error.where in (None, name) else str(error)
    return None
