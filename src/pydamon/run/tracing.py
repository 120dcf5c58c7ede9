"""``pydamon trace`` while something is monitored: its results are printed as trace events."""

from __future__ import annotations

import os
import subprocess
import sys

from pydamon.errors import MachineError, RequestError
from pydamon.records import trace_text
from pydamon.run.events import Sink, Tracer, UserEvents, text_sink
from pydamon.run.launch import describe_exit, end
from pydamon.run.live import is_kernel
from pydamon.run.open import open_engine
from pydamon.run.recorder import Recorder
from pydamon.run.request import Request
from pydamon.run.signals import Signals
from pydamon.spec import Spec


def trace(request: Request, spec: Spec, events: tuple[str, ...], *, user_events: bool, quiet: bool) -> None:
    """Monitor as ``request`` says and print the events; diagnostics go to standard error. Raises PydamonError."""
    if {*events} == {trace_text.PROBED} and not spec.kdamonds[0].contexts[0].probes:
        raise RequestError(f"{trace_text.PROBED} is about probes; there are none", where="event")
    children: list[subprocess.Popen[bytes]] = []
    with Signals() as signals:
        offered = UserEvents(events) if user_events else None
        sinks: list[Sink] = [offered] if offered is not None else []
        if not quiet:
            sinks.append(text_sink(_print, trace_text.Writer(pid=os.getpid())))
        try:
            _trace(request, spec, Tracer(events, sinks), signals, children)
        finally:
            if offered is not None:
                offered.close()
            for child in children:
                still_runs = child.poll() is None
                status = end(child)
                if not still_runs and status != 0:
                    _say(f"the command {describe_exit(status)}")


def _trace(
    request: Request, spec: Spec, tracer: Tracer, signals: Signals, children: list[subprocess.Popen[bytes]]
) -> None:
    opened = open_engine(
        request, spec, signals=signals, launched=children.append, callbacks=tracer.callbacks(), say=_say
    )
    kdamond = opened.engine.kdamond
    if opened.kind != "sim":
        _say(opened.about)
    kdamond.end_ns = opened.end_ns
    signals.on_stop = kdamond.stop
    if signals.stopped:  # before there was something to stop
        kdamond.stop()
    if is_kernel(opened.engine):
        missing = tracer.follow_kernel(opened.engine.kdamond)
        if missing:
            has = opened.engine.choice.name == "damon_aggregated"
            why = "this kernel's DAMON does not have it" if has else "results are not traced here"
            if tracer.wanted <= {*missing}:
                opened.close()
                raise MachineError(f"{', '.join(missing)}: {why}; nearest: the user engine", where="event")
            _say(f"{', '.join(missing)}: not printed; {why}")
    else:
        tracer.follow(kdamond)
    with opened.groups:
        Recorder(None, opened.engine, say=_say).run()


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(line: str) -> None:
    print(f"pydamon: {line}", file=sys.stderr, flush=True)
