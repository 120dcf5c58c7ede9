"""A process of a service beside its monitors: started anew with patience when it ends, and away from supervision."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from pydamon import messages
from pydamon.errors import PydamonError
from pydamon.run.launch import describe_exit
from pydamon.service import protocol
from pydamon.service.client import ServiceClient
from pydamon.service.daemon import leave_behind
from pydamon.service.declared.patience import Patience
from pydamon.service.log import Log
from pydamon.spec.units import format_duration_ns

_STOP_NS = 5_000_000_000


class Helper:
    """Runs ``work`` in a process of its own, which is called ``name`` in messages.

    ``work`` is given a descriptor that can be read as soon as the supervisor, which has the other end of ``life``, is
    gone; it returns then, or on SIGTERM. ``due_ns`` (CLOCK_MONOTONIC) is when `act` has something to do; None: when
    something happens.
    """

    def __init__(self, name: str, work: Callable[[int], None], life: int) -> None:
        self.pid: int | None = None
        self.due_ns: int | None = 0
        self._name = name
        self._work = work
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
            self._run()

    def ended(self, status: int, now_ns: int) -> None:
        """Its process has ended with this status, negative for a signal; it is started anew, with patience."""
        self.pid = None
        if self._stopping:
            return
        wait_ns = self._patience.wait_ns(now_ns)
        self.due_ns = now_ns + wait_ns
        words = f"its process {describe_exit(status)}; it is started anew in {format_duration_ns(wait_ns)}"
        messages.say(f"{self._name}: {words}")

    def stop(self, now_ns: int) -> None:
        """Ask it to end."""
        self._stopping, self.due_ns = True, now_ns + _STOP_NS if self.pid is not None else None
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _run(self) -> NoReturn:
        """In the child: until SIGTERM, or until the supervisor is gone."""
        status = 1
        try:
            os.setsid()
            leave_behind({self._life}, 2)
            sys.stdin = sys.stdout = None
            sys.stderr = Log(2, head=f"{self._name}: ")
            self._work(self._life)
            status = 0
        except PydamonError as error:
            messages.say(str(error))
        except BaseException as error:  # whatever it is: it is told, and the service goes on
            messages.say(str(protocol.error_of(protocol.problem_of(error))))
        finally:
            os._exit(status)


def running_monitors(service: str) -> list[dict[str, Any]]:
    """What the service tells of its monitors that run; nothing if it does not answer."""
    with contextlib.suppress(PydamonError):  # it may be about to end
        told = ServiceClient(service).status()["monitors"]
        return [monitor for monitor in told if monitor["state"] == "running"]
    return []
