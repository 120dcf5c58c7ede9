"""The contract of an engine: what runs a spec and tells what it finds, whoever monitors.

Every engine answers all of it, with nothing where it has nothing to tell: nobody needs to ask which engine it is. None
inherits from another; `engines.on_core` is what those have in common that run our own core.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from pydamon.errors import RequestError

if TYPE_CHECKING:  # starting up counts against the bound on the CPU share
    from pydamon.core.callbacks import Loop
    from pydamon.core.panel import Look
    from pydamon.core.regions import Regions
    from pydamon.core.scheme_state import SchemeState
    from pydamon.core.snapshot import Snapshot
    from pydamon.linux import process
    from pydamon.ops.actions.plan import Plan
    from pydamon.ops.pace import Clock
    from pydamon.ops.reported.reports import AccessReports
    from pydamon.ops.sim.machine import Machine
    from pydamon.spec import Context, Scheme

Kind = Literal["user", "kernel", "sim", "reported"]
Rows = list[dict[str, Any]]
Identity = tuple[int, int]  # of a process: its pid, and when it started (clock ticks)


class Choice(msgspec.Struct, frozen=True):
    """The name of a primitive, or of an engine, and in a few words why it was picked."""

    name: str
    reason: str


class Cost(msgspec.Struct, frozen=True):
    """What asking for accesses has cost so far.

    ``disturb_ns`` estimates the time that the targets lost to it. Where a thread of the kernel does the asking, its CPU
    time is both ``check_ns`` and ``kdamond_ns``, and what it asks is not counted; else ``kdamond_ns`` is None.
    ``samples`` are those so far, which were to take ``asked_ns`` together and took ``sampled_ns``; None: not counted.
    """

    checks: int = 0
    check_ns: int = 0
    clears: int = 0
    clear_ns: int = 0
    disturb_ns: int = 0
    kdamond_ns: int | None = None
    samples: int | None = None
    asked_ns: int | None = None
    sampled_ns: int | None = None


class Handover(msgspec.Struct, frozen=True, eq=False):
    """What another engine can go on with: the regions of processes, counted with these intervals, and the schemes."""

    regions: Mapping[Identity, Regions] = msgspec.field(default_factory=dict)
    window: int = 1
    aggr_us: int = 0
    schemes: list[SchemeState] = msgspec.field(default_factory=list)


class Tell(Protocol):
    """Hears of an event: arrays have one element per region, the rest is the same for all of them."""

    def __call__(self, event: str, time_ns: int, **values: Any) -> None:
        """One event, or one per region."""
        ...


class Engine(Protocol):
    """Runs the one context of a spec. ``end_ns``, by its ``clock``, is when it is to end; it may be set at any time.

    What is set up when it is made is given back when `monitor` ends, or by `close`. Unless it says otherwise, a method
    may be called from any thread.
    """

    end_ns: int | None

    @property
    def kind(self) -> Kind:
        """Who monitors, for people."""
        ...

    @property
    def clock(self) -> Clock:
        """The time of its snapshots."""
        ...

    @property
    def choice(self) -> Choice:
        """By which means accesses are found out, and why by these."""
        ...

    @property
    def kdamond(self) -> Loop:
        """The loop, as callbacks see it."""
        ...

    @property
    def reports(self) -> AccessReports | None:
        """Where accesses can be reported to, if it goes by those."""
        ...

    @property
    def simulated(self) -> Machine | None:
        """The machine that its targets run on, if that is a simulated one, in whose time all happens."""
        ...

    # -- running ------------------------------------------------------------------------------------------------------

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Yields one snapshot per living target after each aggregation, until stopped or all targets have ended.

        In one thread, once. Raises PydamonError.
        """
        ...

    def stop(self) -> None:
        """End after the current iteration; also from signal handlers."""
        ...

    @property
    def stop_requested(self) -> bool:
        """Whether it ends, or has ended, because it was told to or its time was over."""
        ...

    def fate(self) -> str:
        """Why it has ended though nobody has stopped it."""
        ...

    def close(self) -> None:
        """Give everything back, also if `monitor` never ran; once is enough. What runs in another thread is stopped."""
        ...

    # -- what runs, and changing it -----------------------------------------------------------------------------------

    @property
    def context(self) -> Context:
        """What runs now: intervals as tuned, schemes and probes as committed."""
        ...

    @property
    def asked(self) -> Context:
        """What was committed last where it is still to take effect, else `context`: what a change starts from."""
        ...

    def commit(self, context: Context) -> None:
        """Go on as ``context`` says, without losing regions: all of it or nothing, between two iterations.

        Operations set and targets must be those that run. Schemes that are the very tuple of `asked` are left alone.
        Raises RequestError, naming the field, or MachineError.
        """
        ...

    def bound_cpu(self, share: float) -> None:
        """Keep the CPU time below this share of one CPU from now on. Raises RequestError where that cannot be."""
        ...

    @property
    def commit_pending(self) -> bool:
        """Whether the last `commit` is still to take effect."""
        ...

    def schemes(self) -> list[SchemeState]:
        """The schemes with their statistics, also after the end."""
        ...

    def set_goal(self, name: str, value: int) -> None:
        """Give the value of the ``user_input`` goals of that name, or of one by ``scheme.goal`` numbers like ``0.0``.

        Raises RequestError if there is no such goal.
        """
        ...

    def follow(self, events: Collection[str], tell: Tell) -> list[str]:
        """Have ``tell`` hear of these events of schemes (`linux.damon_trace.OF_SCHEMES`), in the loop's thread.

        To be called before `monitor`; returns those that it does not have.
        """
        ...

    # -- who is monitored ---------------------------------------------------------------------------------------------

    @property
    def nr_targets(self) -> int:
        """How many targets there have been so far."""
        ...

    def living(self) -> dict[int, int | None]:
        """The number of each target that can be monitored now, with its process id if it is a process."""
        ...

    def mappings(self, target: int) -> list[process.Mapping]:
        """What the target has mapped; the same list object as long as nothing changed. For who iterates `monitor`."""
        ...

    # -- what there is to tell; for who iterates `monitor` ------------------------------------------------------------

    def joined(self) -> Rows:
        """Who has become a target since the last call: rows of the side table ``targets``."""
        ...

    def side_rows(self, snapshots: list[Snapshot]) -> dict[str, Rows]:
        """Rows of further side tables that belong to these snapshots, by table: whose physical memory it is."""
        ...

    def looks(self) -> list[Look]:
        """The looks at the page panel since the last call, the first of which only begins it; none without a panel.

        Those of `side_rows` are the same, and stay.
        """
        ...

    def notices(self) -> list[str]:
        """Lines for the user since the last call."""
        ...

    def plans(self) -> list[Plan]:
        """What a dry run would have done since the last call."""
        ...

    def remarks(self) -> list[str]:
        """Lines for the user at the end."""
        ...

    def swap_bytes(self) -> int | None:
        """How much swap the memory that schemes act on can go to; None if there is no such memory, or it is not told.

        The amount of now, used or free.
        """
        ...

    def moved_back_bytes(self) -> int | None:
        """What schemes have moved back, within a minute, to the NUMA node that they had moved it from; None: not known.

        It only grows.
        """
        ...

    def cost(self) -> Cost | None:
        """What it has cost so far; None where nobody is asked (a simulation, reported accesses)."""
        ...

    # -- at its end, and beyond it ------------------------------------------------------------------------------------

    def undo(self, schemes: Iterable[Scheme]) -> list[str]:
        """Take back what ``schemes`` did as far as that is possible; says what was, and what could not be.

        To be called by the loop (``Callbacks.before_terminate``).
        """
        ...

    def handover(self) -> Handover:
        """What another engine can go on with; to be called when this one has ended."""
        ...

    def take_over(self, before: Handover) -> None:
        """Go on where another engine has stopped; to be called by the loop (``Callbacks.before_start``)."""
        ...


def check_none_obsolete(context: Context) -> None:
    """Raise RequestError for a target that is to be taken out before anything runs that it could be taken out of."""
    for number, target in enumerate(context.targets):
        if target.obsolete:
            text = "is true, but nothing runs yet that it could be taken out of: leave the target out"
            raise RequestError(text, where=f"targets[{number}].obsolete")


def all_ended(nr_targets: int) -> str:
    """Why monitoring has ended that nobody has stopped."""
    return "the target ended" if nr_targets < 2 else "all targets ended"
