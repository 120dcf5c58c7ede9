"""Which primitive this machine offers this user, and why not the others."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.errors import MachineError


@dataclass(frozen=True, slots=True)
class Choice:
    """A primitive's name and, in a few words, why it was picked."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Offer:
    """What ``doctor`` says about one primitive: usable if ``obstacle`` is None."""

    name: str
    what: str
    obstacle: str | None


def offers() -> list[Offer]:
    """All primitives, best first, each probed by trying (nothing is changed on the machine)."""
    return [
        Offer("bpf", "page-granular: reads page tables through BPF, clears through process_madvise", _bpf_obstacle()),
        Offer("smaps", "per mapping: clear_refs and Referenced; no privilege needed for one's own processes", _smaps()),
    ]


def choose(requested: str) -> Choice:
    """The primitive for ``requested`` (``auto`` or a name). Raises MachineError if it cannot be used here."""
    if requested == "smaps":
        obstacle = _smaps()
        if obstacle is not None:
            raise MachineError(obstacle, where="--primitive smaps")
        return Choice("smaps", "asked for")
    obstacle = _bpf_obstacle()
    if obstacle is None:
        return Choice("bpf", "asked for" if requested == "bpf" else "page-granular and usable here")
    if requested == "bpf":
        raise MachineError(obstacle, where="--primitive bpf")
    smaps = _smaps()
    if smaps is not None:
        raise MachineError(f"no primitive can be used; bpf: {obstacle}; smaps: {smaps}", where="--primitive auto")
    return Choice("smaps", f"coarser, one answer per mapping; bpf, which is page-granular, cannot be used: {obstacle}")


def _bpf_obstacle() -> str | None:
    from pydamon.primitives import bpf

    try:
        bpf.probe()
    except MachineError as error:
        return error.message
    return None


def _smaps() -> str | None:
    from pydamon.primitives import smaps

    try:
        smaps.probe()
    except MachineError as error:
        return error.message
    return None
