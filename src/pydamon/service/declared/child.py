"""One monitor of a service and its process: started, started anew with patience when it died, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Literal

import msgspec

from pydamon import messages
from pydamon.errors import PydamonError, RequestError
from pydamon.ops.membership import read_stat
from pydamon.run.directory import RuntimeDirectory
from pydamon.run.launch import describe_exit
from pydamon.run.request import Request
from pydamon.service.daemon import How, Starting, begin
from pydamon.service.declared.file import Monitor
from pydamon.service.declared.patience import Patience
from pydamon.service.declared.retention import Retention, recording_name
from pydamon.spec.units import format_duration_ns

State = Literal["starting", "running", "waiting", "ended", "stopping"]

_STOP_NS = 30_000_000_000


class Child:
    """The process of ``monitor``. ``directory`` is where it is found; it ends when ``life`` has no writer any more.

    ``due_ns`` (CLOCK_MONOTONIC) is when `act` has something to do; None: when something happens.
    """

    def __init__(self, monitor: Monitor, directory: RuntimeDirectory, life: int) -> None:
        self.monitor = monitor
        self.state: State = "waiting"
        self.pid: int | None = None
        self.why: str | None = None  # it does not run, or was started anew
        self.restarts = 0
        self.due_ns: int | None = 0
        self.starting: Starting | None = None
        self._next: Monitor | None = None  # what it is to become when it has ended
        self._directory = directory
        self._life = life
        self._patience = Patience()
        self._retention: tuple[str, Retention] | None = None
        self._error: PydamonError | None = None  # it could not start, and is about to end
        self._known = {pid: read_stat(pid) for pid in monitor.spec.context.pids}

    def act(self, now_ns: int) -> None:
        """Start it, or end what would not end, if that is due."""
        if self.due_ns is None or now_ns < self.due_ns:
            return
        self.due_ns = None
        if self.state == "waiting":
            self._begin(now_ns)
        elif self.state == "stopping" and self.pid is not None:
            self._say(f"does not end; its process {self.pid} is killed")
            self._signal(signal.SIGKILL)

    # -- its beginning ------------------------------------------------------------------------------------------------

    def _begin(self, now_ns: int) -> None:
        self._patience.begin(now_ns)
        if self._targets_ended():
            self.state, self.why = "ended", "its process has ended"
            self._say(self.why)
            return
        try:
            self.starting = begin(self._request(), self.monitor.spec, self._how())
        except PydamonError as error:
            self._failed(error, now_ns)
        else:
            self.state = "starting"

    def _targets_ended(self) -> bool:
        """Whether processes that are named by pid are others than when the file was read."""
        before = {pid: stat.start_ticks for pid, stat in self._known.items() if stat is not None}
        now = {pid: stat.start_ticks for pid in before if (stat := read_stat(pid)) is not None}
        return before != now

    def _request(self) -> Request:
        """With the file that it records to; its directory is made."""
        request, recording = self.monitor.request, self.monitor.recording
        if recording is None:
            return request
        folder = self.folder()
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
        except OSError as error:
            raise PydamonError(f"{folder} cannot be made: {error.strerror}", where="record.directory") from None
        output = os.path.join(folder, recording_name(time.time_ns()))
        return msgspec.structs.replace(request, output=output, rotate=recording.rotate)

    def folder(self) -> str:
        """Where its recordings are."""
        assert self.monitor.recording is not None
        return os.path.join(self.monitor.recording.directory, self.monitor.name)

    def _how(self) -> How:
        name, directory = self.monitor.name, self._directory
        return How(
            name=name, log_fd=2, head=f"{name}: ", path=directory.path, gid=directory.gid, life=self._life
        )  # fmt: skip

    def listen(self) -> None:
        """It tells how its start goes."""
        assert self.starting is not None
        known, started, now_ns = self.pid, None, time.monotonic_ns()
        try:
            started = self.starting.look()
        except PydamonError as error:
            self._error = error
        self.pid = self.starting.pid
        if self.state == "stopping" and known is None:
            self._signal(signal.SIGTERM)
        if started is None and self._error is None:
            return
        self._let_go()
        if started is not None and self.state == "starting":
            self.state = "running"
        elif self.pid is None:  # else its end is waited for: until then it has its name
            self.ended(1, now_ns)

    def _let_go(self) -> None:
        if self.starting is not None:
            self.starting.close()
            self.starting = None

    def _failed(self, error: PydamonError, now_ns: int) -> None:
        """It could not start. What names pids is not tried again: they may be other processes' by then."""
        if isinstance(error, RequestError) and error.where != "name" and self.monitor.spec.context.pids:
            self.state, self.why = "ended", str(error)
            self._say(f"{error}; it is not tried again until the file is read anew")
        else:
            self._wait(str(error), now_ns)

    def _wait(self, why: str, now_ns: int) -> None:
        wait_ns = self._patience.wait_ns(now_ns)
        self.state, self.why, self.due_ns = "waiting", why, now_ns + wait_ns
        self._say(f"{why}; it is started anew in {format_duration_ns(wait_ns)}")
        self.restarts += 1

    # -- its end ------------------------------------------------------------------------------------------------------

    def ended(self, status: int, now_ns: int) -> None:
        """Its process has ended with this status, negative for a signal."""
        self._let_go()
        self.pid = None
        error, self._error = self._error, None
        if self.state == "stopping":
            self._over(now_ns)
        elif error is not None:
            self._failed(error, now_ns)
        elif status == 0:
            self.state, self.why, self.due_ns = "ended", "its targets have ended, or it was stopped", None
            self._say("has ended")
        else:
            self._wait(f"its process {describe_exit(status)}", now_ns)

    def _over(self, now_ns: int) -> None:
        """What was to end has ended."""
        following, self._next = self._next, None
        if following is None:
            self.state, self.why, self.due_ns = "ended", "it was stopped", None
        else:
            self.monitor, self.state, self.due_ns = following, "waiting", now_ns
            self._known = {pid: read_stat(pid) for pid in following.spec.context.pids}
            self._patience.reset()

    def stop(self, now_ns: int) -> None:
        """Ask it to end."""
        if self.pid is None and self.starting is None:
            self._over(now_ns)
            return
        self.state, self.due_ns = "stopping", now_ns + _STOP_NS
        self._signal(signal.SIGTERM)

    def retry(self, now_ns: int) -> None:
        """Try now what was to be tried later, or not any more because it could not start."""
        if self.state == "waiting" or (self.state == "ended" and self.why):
            self.state, self.due_ns = "waiting", now_ns
            self._patience.reset()

    def replace(self, monitor: Monitor, now_ns: int) -> None:
        """Start it anew, as ``monitor`` says."""
        self._next = monitor
        self.stop(now_ns)

    def _signal(self, number: int) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # we wait for our children: it can be nobody else
                os.kill(self.pid, number)

    # -- its recordings -----------------------------------------------------------------------------------------------

    def retain(self) -> None:
        """Remove those that need not be kept."""
        recording = self.monitor.recording
        if recording is None:
            return
        folder = self.folder()
        if self._retention is None or self._retention[0] != folder:
            self._retention = folder, Retention(folder)
        try:
            removed = self._retention[1].apply(recording.keep, time.monotonic_ns(), time.time_ns())
        except FileNotFoundError:
            return  # nothing was recorded yet
        except OSError as error:
            self._say(f"recordings cannot be removed: {error.strerror}")
            return
        if removed:
            count = "1 file" if len(removed) == 1 else f"{len(removed)} files"
            self._say(f"{count} of recordings beyond what is to be kept removed")

    def _say(self, line: str) -> None:
        messages.say(f"{self.monitor.name}: {line}")
