"""``pydamon trace`` while something is monitored: its results are printed as trace events."""

from __future__ import annotations

import os
import sys

from pydamon import messages
from pydamon.cli.render.screen import emit
from pydamon.engines.base import Tell
from pydamon.errors import MachineError, RequestError
from pydamon.records import trace_text
from pydamon.run.events import Tracer, UserEvents, text_sink
from pydamon.run.launch import Ended, describe_exit
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.run.signals import Signals
from pydamon.spec import Spec


def trace(request: Request, spec: Spec, events: tuple[str, ...], *, user_events: bool, quiet: bool) -> int:
    """Monitor as ``request`` says and print the events; diagnostics go to standard error. Raises PydamonError.

    Returns the exit status of a launched command that has ended by itself, else 0.
    """
    if {*events} == {trace_text.PROBED} and not spec.context.probes:
        raise RequestError(f"{trace_text.PROBED} is about probes; there are none", where="event")
    with Signals() as signals:
        offered = UserEvents(events) if user_events else None
        sinks: list[Tell] = [offered] if offered is not None else []
        if not quiet:
            sinks.append(text_sink(_print, trace_text.Writer(pid=os.getpid())))
        tracer = Tracer(events, sinks)
        try:
            with Run(
                spec, request, waker=signals, callbacks=tracer.callbacks(), say=_say, command_ended=_say_end
            ) as run:
                _trace(run, tracer)
            return run.exit_status()
        finally:
            if offered is not None:
                offered.close()


def _trace(run: Run, tracer: Tracer) -> None:
    engine = run.engine
    if engine.kind != "sim":
        _say(run.about)
    missing = tracer.follow(engine)
    if missing:
        has = engine.choice.name == "damon_aggregated"
        why = "this kernel's DAMON does not have it" if has else "results are not traced here"
        if tracer.wanted <= {*missing}:
            raise MachineError(f"{', '.join(missing)}: {why}; nearest: the user engine", where="event")
        _say(f"{', '.join(missing)}: not printed; {why}")
    run.run()


def _say_end(ended: Ended) -> None:
    if not ended.still_ran and ended.status != 0:
        _say(f"the command {describe_exit(ended.status)}")


def _print(text: str) -> None:
    emit(text)
    sys.stdout.flush()


def _say(line: str) -> None:
    messages.say(line)
