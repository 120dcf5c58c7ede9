"""``zram_writeback``: what compressed memory (zram) has held for long goes to its backing device, a bounded amount.

The kernel has the knobs and no policy (Documentation/admin-guide/blockdev/zram.rst): here are an idle age, how much per
interval, and how much in all, for flash wears out. The limit that was set before is put back at the end.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydamon.errors import RequestError
from pydamon.modules.base import Facts, Knob, Knobs, Module, Target, choice_knob, interval_knob, size_knob, time_knob
from pydamon.modules.controller import Controller, Decision, Observations, WritebackKind, ZramWriteback
from pydamon.spec.units import format_duration_ns, format_size

_DEVICE = re.compile(r"zram\d{1,4}", re.ASCII)
_KINDS: tuple[WritebackKind, ...] = ("idle", "huge", "huge_idle", "incompressible")


def _device(text: str) -> str:
    if not _DEVICE.fullmatch(text):
        raise RequestError("must be a device of zram, like zram0")
    return text


class ZramWritebackKnobs(Knobs, frozen=True, kw_only=True):
    """What can be said of it."""

    device: Annotated[str, Knob("device", _device, str, "the device")] = "zram0"
    kind: Annotated[WritebackKind, choice_knob("kind", _KINDS, "which of its pages")] = "idle"
    idle_age_us: Annotated[int, time_knob("idle_age", "idle is what was not used for this long")] = 3_600_000_000
    interval_us: Annotated[int, interval_knob("write back once in this time")] = 600_000_000
    limit_bytes: Annotated[int, size_knob("limit", "at most this much each time")] = 64 << 20
    most_bytes: Annotated[int, size_knob("most", "at most this much in all; off is no bound")] = 4 << 30


class ZramWritebackController:
    """The same request once per interval until it has written all that it may."""

    needs_accesses = False

    def __init__(self, knobs: ZramWritebackKnobs) -> None:
        self._knobs = knobs
        self.interval_us = knobs.interval_us

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """At most one request."""
        knobs = self._knobs
        limit = knobs.limit_bytes
        if knobs.most_bytes:
            left = knobs.most_bytes - observations.done_bytes
            limit = min(limit, left) if limit else left
            if limit < observations.page_bytes:
                return ()
        age_s = knobs.idle_age_us // 1_000_000 if "idle" in knobs.kind else None
        return (ZramWriteback(device=knobs.device, kind=knobs.kind, idle_age_s=age_s, limit_bytes=limit or None),)


def controllers(knobs: ZramWritebackKnobs, target: Target) -> tuple[Controller, ...]:
    """Its loop."""
    return (ZramWritebackController(knobs),)


def words(knobs: ZramWritebackKnobs) -> list[str]:
    """What it does."""
    every, idle = (format_duration_ns(us * 1000) for us in (knobs.interval_us, knobs.idle_age_us))
    age = f" that were not used for {idle}" if "idle" in knobs.kind else ""
    each = format_size(knobs.limit_bytes) if knobs.limit_bytes else "all of them"
    most = f", and {format_size(knobs.most_bytes)} in all" if knobs.most_bytes else ""
    return [
        f"Every {every}: {knobs.kind} pages of {knobs.device}{age} are written back, at most {each} each time{most}; "
        "at the end its limit is as before."
    ]


def cannot(knobs: ZramWritebackKnobs, facts: Facts) -> list[str]:
    """A device that is not there, has nowhere to write to, or may not be told."""
    if facts.zram is None:
        return []
    if knobs.device not in facts.zram:
        known = ", ".join(facts.zram)
        return [f"there is no {knobs.device}; {f'device={known} is' if known else 'this machine has no zram at all'}"]
    obstacle = facts.zram[knobs.device]
    return [] if obstacle is None else [f"{obstacle}; nothing is written back"]


ZRAM_WRITEBACK = Module(
    name="zram_writeback",
    help="write back what compressed memory (zram) has held for long, a bounded amount",
    knobs=ZramWritebackKnobs,
    cannot=cannot,
    where={"user": ("process", "cgroup", "physical")},
    controllers=controllers,
    words=words,
)
