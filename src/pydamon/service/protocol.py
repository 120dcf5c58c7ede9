"""What is said over a control socket: one JSON object per line, one reply for each request.

A request is ``{"do": "status"}``, ``live``, ``moments``, ``hits``, ``tune``, ``set_goal`` or ``stop`` with their
fields, to a service also ``reload``; a reply is ``{"result": …}`` or ``{"error": {"message": …, "where": …,
"exit_status": …}}``. Whatever else is sent is answered by an error.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.causes import cause
from pydamon.plain import json_bytes

MAX_REQUEST = 1 << 20  # bytes of a line
MAX_REPLY = 16 << 20
_MAX_U64 = 2**64 - 1


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="status"):
    """How is it?"""


class Live(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="live"):
    """What is known of memory (`pydamon.views.live`): now, or ``at_ns`` by the clock of the snapshots; ``step`` moments
    later. ``mappings``: of which targets they are told; None is of each.
    """

    at_ns: int | None = None
    step: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] = 0
    mappings: list[int] | None = None


class Moments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="moments"):
    """What was found (`pydamon.views.passing`) since ``after_ns``, as much as goes into an answer; else the latest, and
    ``back`` moments before it, with what a record says of who found it.
    """

    after_ns: int | None = None
    back: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0


class Hits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="hits"):
    """What have probes hit in the last snapshots (`pydamon.views.hits`)?"""


class Tune(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="tune"):
    """Change what is not None; ``schemes``, ``probes`` and ``spec`` in the layout of the spec, goals by their names."""

    sample_us: int | None = None
    aggr_us: int | None = None
    update_us: int | None = None
    intervals: Literal["fixed", "auto"] | None = None
    min_regions: int | None = None
    max_regions: int | None = None
    pause: bool | None = None
    max_cpu: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    schemes: list[Any] | None = None
    probes: list[Any] | None = None
    spec: dict[str, Any] | None = None
    goal_values: dict[str, int] = {}


class SetGoal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="set_goal"):
    """The user's measurement for a goal of the metric ``user_input``."""

    name: str
    value: int


class Stop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do", tag="stop"):
    """End; the reply comes when it has ended."""

    undo: bool = False


class Reload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="reload"):
    """To a service: read the file anew."""


READS = (Status, Live, Moments, Hits)  # what a group that may look may ask
AnyRequest = Status | Live | Moments | Hits | Tune | SetGoal | Stop | Reload


class Problem(msgspec.Struct, frozen=True):
    """An error on its way to whom it concerns."""

    message: str
    where: str | None = None
    exit_status: int = 1


_DECODER = msgspec.json.Decoder(AnyRequest)


def decode_request(line: bytes | bytearray) -> AnyRequest:
    """The request in a line. Raises RequestError."""
    try:
        request: AnyRequest = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(str(error), where="request") from None
    return request


def encode_line(message: object) -> bytes:
    """A line of JSON; texts that are not UTF-8 are escaped in it."""
    return json_bytes(message) + b"\n"


def problem_of(error: BaseException) -> Problem:
    """What to tell of an error."""
    if isinstance(error, PydamonError):
        return Problem(error.message, error.where, error.exit_status)
    if isinstance(error, OSError):
        return Problem(cause(error, ""), str(error.filename) if error.filename else None)
    return Problem(f"internal error: {type(error).__name__}: {' '.join(str(error).split())}")


def error_of(problem: Problem) -> PydamonError:
    """The error that a problem was made of."""
    kind = {2: RequestError, 3: MachineError}.get(problem.exit_status, PydamonError)
    return kind(problem.message, where=problem.where)
