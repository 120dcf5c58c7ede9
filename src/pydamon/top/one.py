"""Monitors one process, or the processes of a cgroup, by regions while somebody looks at it."""

from __future__ import annotations

import threading

from pydamon.errors import PydamonError, RequestError
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.spec import Context, Intervals, Kdamond, Spec, Target, validate
from pydamon.spec.defaults import default_goal
from pydamon.top.scenes import OfHistory
from pydamon.views.store import Store

USUAL_CPU = 0.03  # of one CPU, as a recording keeps to


def spec_of(*, pid: int | None = None, cgroup: str | None = None) -> Spec:
    """That of a recording without options. Raises RequestError."""
    target = Target(pid=pid) if cgroup is None else Target(cgroup=cgroup)
    context = Context(targets=(target,), intervals=Intervals(intervals_goal=default_goal("vaddr", faithful=False)))
    spec = Spec(kdamonds=(Kdamond(contexts=(context,)),))
    validate(spec)
    return spec


class One:
    """Monitors in a thread of its own from `begin` to `close`; ``scenes`` has what it finds.

    ``may_begin``: it waits for that. ``notice`` is the last there is to say; why it has ended, then.
    """

    def __init__(self, spec: Spec, may_begin: threading.Event | None = None) -> None:
        self.store = Store()
        self.scenes = OfHistory(self.store)
        self.notice = ""
        self._spec = spec
        self._may_begin = may_begin
        self._run: Run | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._monitor, name="pydamon one", daemon=True)

    def open(self) -> None:
        """Open what monitors. Raises what `Run` raises; unless it is called, that is done in the background."""
        request = Request(usual_cpu=USUAL_CPU)
        self._run = Run(self._spec, request, observers=[self.store], say=self._say)

    def begin(self) -> None:
        """Go on in the background."""
        self._thread.start()

    def _say(self, line: str) -> None:
        self.notice = line

    def _monitor(self) -> None:
        try:
            while self._may_begin is not None and not self._may_begin.wait(0.1):
                if self._closing.is_set():
                    return
            if self._run is None:
                self.open()
            run = self._run
            if run is None or self._closing.is_set():
                return
            run.run()
            self.notice = run.reason()
        except PydamonError as error:
            self.notice = str(error)

    def write(self, path: str) -> str:
        """Write what is kept of it to a record; what to say of that. Raises PydamonError."""
        from pydamon.top.writing import write_history

        if self._run is None:
            raise RequestError("there is nothing to write yet", where=path)
        return write_history(path, self._run.metadata(), self.store)

    def close(self) -> None:
        """End it, and wait for that."""
        self._closing.set()
        if self._run is not None:
            self._run.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        if self._run is not None:
            self._run.close()
