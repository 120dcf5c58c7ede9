"""Which options go together: one row for each thing that is refused, about what was understood (context and request).

A row applies to the operations sets of its group, and the first that refuses is reported. What a spec's own validation
refuses (`pydamon.spec.validate`) stands here only where an option can be named that would be right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydamon.errors import RequestError
from pydamon.spec.defaults import has_default_goal
from pydamon.spec.primitives import serving
from pydamon.spec.probes import attributes_only

if TYPE_CHECKING:
    from pydamon.run.request import Request
    from pydamon.spec import Context, Probe

PROCESSES = ("vaddr", "fvaddr")
LIVE = (*PROCESSES, "paddr")
_SOURCES = (  # and: with a file, or the name of an event?
    *(("perf-event", False), ("perf-event", True), ("valgrind", False), ("perf-mem", False)),
    *(("lackey", True), ("perf-script", True)),
)
_SAMPLING = ("perf-event", "perf-mem")


class Rule(NamedTuple):
    """``field`` is refused with ``message`` where ``refuses`` says so.

    In both texts ``{ops}``, ``{source}`` (its kind), ``{pid}`` (the first) and ``{verb}`` are filled in.
    """

    field: str
    refuses: Callable[[Context, Request], Any]
    message: str


def check(context: Context, request: Request, verb: str, *, acts: bool) -> None:
    """Raise RequestError for the first thing that does not go with the rest; ``where`` is a field, or ``verb``.

    ``acts``: something acts on memory, a scheme or the loop of a module.
    """
    source = _kind(request)
    pid = next(iter(_named(context, request)), "")
    for rule in _for(context.ops, context.probes, acts=acts):
        if rule.refuses(context, request):
            field, message = (
                text.format(ops=context.ops, source=source, pid=pid, verb=verb) for text in (rule.field, rule.message)
            )
            raise RequestError(message, where=field)


def _for(ops: str, probes: Sequence[Probe], *, acts: bool) -> Iterator[Rule]:
    yield from _REPORTED if ops == "reported" else _NOT_REPORTED
    yield from _SIM if ops == "sim" else ()
    if ops in LIVE:
        yield from _NOT_SIM
        yield from _PADDR if ops == "paddr" else _OF_PROCESSES
        yield from _NOT_VADDR if ops != "vaddr" else ()
        yield from _FVADDR if ops == "fvaddr" else ()
    yield from _ALWAYS
    yield from _OF_HITS if attributes_only(probes) else ()
    yield from () if acts else _WITHOUT_ACTS
    yield from _LIVE if ops in LIVE else _NOT_LIVE


def _source(request: Request) -> str:
    return str(request.source or "")  # options name it


def _kind(request: Request) -> str:
    return _source(request).partition(":")[0]


def _named(context: Context, request: Request) -> tuple[int, ...]:
    """The processes that the user has named; not the one that stands in for a command."""
    return context.pids if request.launch is None else ()


def _twice(context: Context, request: Request) -> bool:
    return len(set(context.pids)) < len(context.pids)


def _by_sums(context: Context) -> bool:
    return any(item.probe_hits_wsum is not None for scheme in context.schemes for item in scheme.filters)


_TWICE = Rule("pid", _twice, "the same process is named twice")

_NOT_REPORTED = (
    Rule(
        "source",
        lambda c, r: r.source is not None and (_kind(r) != "perf-event" or c.ops not in PROCESSES),
        "is for --ops reported; beside the sampling of processes there can be perf-event[:EVENT]",
    ),
    Rule(
        "source",
        lambda c, r: r.source is not None and (c.cgroup is not None or c.include_children or c.match is not None),
        "goes with processes that are named, or a command",
    ),
    Rule("faithful", lambda c, r: r.source is not None and c.faithful, "does not go with --source: DAMON has one"),
    Rule("threads", lambda c, r: r.source is None and r.threads is not None, "goes with --source"),
    Rule("cpus", lambda c, r: r.source is None and r.cpus is not None, "goes with --source"),
    Rule("nodes", lambda c, r: r.source is None and r.nodes is not None, "goes with --source"),
)
_REPORTED = (
    Rule(
        "source",
        lambda c, r: (_kind(r), bool(_source(r).partition(":")[2])) not in _SOURCES,
        "must be perf-event[:EVENT], valgrind, perf-mem, lackey:FILE or perf-script:FILE (- is standard input)",
    ),
    Rule("workload", lambda c, r: r.workload is not None, "does not go with --ops reported"),
    Rule("cgroup", lambda c, r: c.cgroup is not None, "does not go with --ops reported"),
    Rule("include_children", lambda c, r: c.include_children, "does not go with --ops reported"),
    Rule("primitive", lambda c, r: c.primitive != "auto", "does not go with --ops reported"),
    Rule(
        "source {source}",
        lambda c, r: _kind(r) == "valgrind" and not r.launch,
        "needs a command to run, after --",
    ),
    Rule(
        "source {source}",
        lambda c, r: _kind(r) in ("lackey", "perf-script") and r.launch is not None,
        "is read, no command is run",
    ),
    Rule(
        "source {source}",
        lambda c, r: _kind(r) in _SAMPLING and not (c.pids or r.launch),
        "needs pids, or a command to run after --",
    ),
    Rule(
        "cpus",
        lambda c, r: not _kind(r).startswith("perf-") and r.cpus is not None,
        "cannot be used: this trace does not say on which CPU an access was",
    ),
    Rule(
        "nodes",
        lambda c, r: not _kind(r).startswith("perf-") and r.nodes is not None,
        "cannot be used: this trace does not say on which CPU an access was",
    ),
    Rule("pid", lambda c, r: not _kind(r).startswith("perf-") and c.pids, "'{pid}': the trace is of one process"),
    _TWICE,
)
_SIM = (
    Rule(
        "ops sim",
        lambda c, r: c.pids or r.launch is not None or c.cgroup is not None or c.include_children,
        "takes no process; name the pattern with --workload",
    ),
    Rule("workload", lambda c, r: r.workload is None, "is needed with --ops sim, e.g. --workload stairs"),
    Rule("primitive", lambda c, r: c.primitive != "auto", "says how a real process is asked; --ops sim has none"),
)
_NOT_SIM = (Rule("workload", lambda c, r: r.workload is not None, "is for --ops sim"),)
_OF_PROCESSES = (
    Rule(
        "cgroup",
        lambda c, r: c.cgroup is not None and (c.pids or r.launch is not None),
        "says which processes to monitor; give no pid and no command",
    ),
    Rule(
        "include_children",
        lambda c, r: c.cgroup is not None and c.include_children,
        "is not needed with --cgroup: children are in it, too",
    ),
    Rule("--", lambda c, r: r.launch == [], "a command must follow it"),
    Rule(
        "{verb}",
        lambda c, r: not c.pids and c.cgroup is None and r.launch is None,
        "needs a pid, or a command after --, or --cgroup PATH, or --ops sim --workload NAME",
    ),
    _TWICE,
)
_PADDR = (
    Rule(
        "ops paddr",
        lambda c, r: c.pids or r.launch is not None,
        "takes no process and no command; it monitors physical memory",
    ),
    Rule(
        "primitive",
        lambda c, r: c.primitive not in ("auto", *serving("paddr")),
        f"asks processes; physical memory is asked through {' or '.join(serving('paddr'))}",
    ),
)
_NOT_VADDR = (
    Rule("cgroup", lambda c, r: c.cgroup is not None, "is for --ops vaddr"),
    Rule("include_children", lambda c, r: c.include_children, "is for --ops vaddr"),
)
_FVADDR = (
    Rule(
        "regions",
        lambda c, r: not any(target.regions for target in c.targets),
        "is needed with --ops fvaddr: a range to monitor, START-END",
    ),
    Rule(
        "ops fvaddr",
        lambda c, r: r.launch is not None,
        "needs the pid of a running process: the addresses must be known",
    ),
)
_ALWAYS = (
    Rule("duration", lambda c, r: r.duration_ns == 0, "is 0; it must be longer"),
    Rule(
        "resctrl",
        lambda c, r: r.resctrl and (c.ops not in PROCESSES or c.cgroup is not None),
        "goes with processes that are named, or a command: --ops vaddr or fvaddr",
    ),
    Rule(
        "faithful",
        lambda c, r: c.faithful and c.ops not in (*PROCESSES, "paddr", "sim"),
        "is for --ops vaddr, fvaddr, paddr or sim: others always are",
    ),
    Rule(
        "panel",
        lambda c, r: bool(r.panel) and (c.faithful or c.ops not in (*PROCESSES, "sim")),
        "is for --ops vaddr, fvaddr or sim, without --faithful",
    ),
    Rule(
        "probes",
        lambda c, r: _by_sums(c) and not attributes_only(c.probes),
        "none has a weight; the filter probe_hits_wsum of a scheme goes by their weighted hits",
    ),
)
_OF_HITS = (
    Rule(
        "intervals.intervals_goal",
        lambda c, r: c.intervals.intervals_goal is not None and not has_default_goal(c.intervals),
        "cannot be tuned where probes have weights: that goes by accesses, which are not looked for then",
    ),
    Rule(
        "panel",
        lambda c, r: bool(r.panel),
        "cannot be had where probes have weights: accesses are not looked for then",
    ),
    Rule("source", lambda c, r: r.source is not None, "does not go with probes that have weights: no accesses count"),
)
_WITHOUT_ACTS = (
    Rule("dry_run", lambda c, r: r.dry_run, "is about schemes; give --scheme or --schemes"),
    Rule("undo", lambda c, r: r.undo, "is about schemes; give --scheme or --schemes"),
)
_NOT_LIVE = (
    Rule("max_cpu", lambda c, r: r.max_cpu is not None, "is for monitoring running processes or physical memory"),
    Rule("dry_run", lambda c, r: r.dry_run, "is for real memory; ops {ops} has none"),
    Rule("undo", lambda c, r: r.undo, "is for real memory; ops {ops} has none"),
    Rule(
        "engine",
        lambda c, r: r.engine == "kernel",
        "monitors running processes or physical memory; ops {ops} is neither",
    ),
)
_LIVE = (Rule("undo", lambda c, r: r.dry_run and r.undo, "does not go with --dry-run, which does nothing"),)
