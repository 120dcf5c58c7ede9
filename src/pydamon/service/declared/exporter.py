"""The metrics of a service, in a process of its own: scraping and its threads stay away from supervision."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import NoReturn

from pydamon import messages
from pydamon.errors import PydamonError
from pydamon.run.launch import describe_exit
from pydamon.run.signals import Signals
from pydamon.service import protocol
from pydamon.service.client import ServiceClient
from pydamon.service.daemon import leave_behind
from pydamon.service.declared.patience import Patience
from pydamon.service.log import Log
from pydamon.spec.units import format_duration_ns

_STOP_NS = 5_000_000_000


class Exporter:
    """Tells the metrics of the service ``name`` at ``where``; it ends when ``life`` has no writer any more.

    ``due_ns`` (CLOCK_MONOTONIC) is when `act` has something to do; None: when something happens.
    """

    def __init__(self, name: str, where: str, life: int) -> None:
        self.pid: int | None = None
        self.due_ns: int | None = 0
        self._name = name
        self._where = where
        self._life = life
        self._stopping = False
        self._patience = Patience()

    def act(self, now_ns: int) -> None:
        """Start it, or kill what would not end, if that is due."""
        if self.due_ns is None or now_ns < self.due_ns:
            return
        self.due_ns = None
        if self._stopping:
            self._signal(signal.SIGKILL)
            return
        self._patience.begin(now_ns)
        self.pid = os.fork()
        if self.pid == 0:
            _run(self._name, self._where, self._life)

    def ended(self, status: int, now_ns: int) -> None:
        """Its process has ended with this status, negative for a signal; it is started anew, with patience."""
        self.pid = None
        if self._stopping:
            return
        wait_ns = self._patience.wait_ns(now_ns)
        self.due_ns = now_ns + wait_ns
        words = f"its process {describe_exit(status)}; it is started anew in {format_duration_ns(wait_ns)}"
        messages.say(f"metrics: {words}")

    def stop(self, now_ns: int) -> None:
        """Ask it to end."""
        self._stopping, self.due_ns = True, now_ns + _STOP_NS if self.pid is not None else None
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def _run(name: str, where: str, life: int) -> NoReturn:
    """In the child: until SIGTERM, or until the supervisor is gone."""
    status = 1
    try:
        os.setsid()
        leave_behind({life}, 2)
        sys.stdin = sys.stdout = None
        sys.stderr = Log(2, head="metrics: ")
        _publish(name, where, life)
        status = 0
    except PydamonError as error:
        messages.say(str(error))
    except BaseException as error:  # whatever it is: it is told, and the service goes on
        messages.say(str(protocol.error_of(protocol.problem_of(error))))
    finally:
        os._exit(status)


def _publish(name: str, where: str, life: int) -> None:
    from pydamon.service.metrics import OfKdamonds, publish, reach

    def monitors() -> list[str]:
        with contextlib.suppress(PydamonError):  # it may be about to end
            told = ServiceClient(name).status()["monitors"]
            return [monitor["name"] for monitor in told if monitor["state"] == "running"]
        return []

    with Signals() as signals, publish(where, OfKdamonds(monitors)) as shown:
        messages.say(f"{shown}{reach(where)}")
        select.select([life, signals.wake_fd], [], [])
