"""The library's way to a kdamond in the background.

from pydamon.service.client import Client

client = Client("web")
client.tune(sample_us=10_000, aggr_us=200_000)
print(client.status()["regions"])
report = client.stop()
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pydamon.errors import PydamonError, RequestError
from pydamon.learned import learned
from pydamon.linux.process import Process
from pydamon.run.directory import SERVICE, RuntimeDirectory, directories, the_only
from pydamon.service import protocol
from pydamon.spec import Probe, Scheme, Spec, quantities
from pydamon.spec.units import format_duration_ns

if TYPE_CHECKING:  # what only asks for a status needs none of it
    from pydamon.views.hits import Hits
    from pydamon.views.live import Live

TIMEOUT_S = 10.0
STATUS_S = 5.0  # for all together
_STOP_S = 60.0
_AT_ONCE = 64


def running() -> list[str]:
    """The names of the kdamonds in the background that this user may ask: its own first. Raises MachineError."""
    return list(dict.fromkeys(name for directory in directories() for name in directory.running()))


class NoAnswer(PydamonError):
    """A kdamond whose process lives does not answer; ``since_unix_ns`` is its last sign of life, if there was one."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.pid: int | None = None
        self.since_unix_ns: int | None = None
        self.stopped = False
        with contextlib.suppress(PydamonError), RuntimeDirectory(path) as directory:
            process = directory.process(name)
            if process is not None:
                self.pid = process.pid
                self.since_unix_ns = directory.last_beat_ns(name)
                self.stopped = process.stopped()
                process.close()
        super().__init__(self._words(), where=name)

    def _words(self) -> str:
        if self.pid is None:
            return "does not answer"
        words = "does not answer"
        if self.since_unix_ns is not None:
            ago = max(time.time_ns() - self.since_unix_ns, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since_unix_ns / 1e9))
            words += f"; its last sign of life was at {since}, {format_duration_ns(ago)} ago"
        if self.stopped:
            return f"{words}; its process {self.pid} was stopped (kill -CONT {self.pid} lets it go on)"
        return f"{words}; its process is {self.pid}"


def ask_all(names: Sequence[str], timeout_s: float = STATUS_S) -> tuple[list[dict[str, Any]], list[PydamonError]]:
    """The status of each of these kdamonds, and why others told none; asked at the same time, ``timeout_s`` in all.

    One that has ended meanwhile is left out.
    """

    def ask(name: str) -> dict[str, Any] | PydamonError | None:
        try:
            return Client(name, timeout_s=timeout_s).status()
        except RequestError:
            return None
        except PydamonError as error:
            return error

    if not names:
        return [], []
    with ThreadPoolExecutor(min(len(names), _AT_ONCE)) as asking:
        found = list(asking.map(ask, names))
    answers = [each for each in found if isinstance(each, dict)]
    return answers, [each for each in found if isinstance(each, PydamonError)]


class Client:
    """Talks to the kdamond ``name``; without a name, to the only one that runs.

    Each call is one request with a connection of its own. Raises RequestError if there is no such kdamond or it
    refuses what it is asked for, PydamonError if it does not answer within ``timeout_s``.
    """

    _is_service = False

    def __init__(self, name: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self.name = the_only(self._all_known()) if name is None else name
        path = None
        if self.name.endswith(SERVICE) == self._is_service:
            path = next((directory.path for directory in directories() if directory.runs(self.name)), None)
        if path is None:
            with RuntimeDirectory() as own:
                raise self._nobody(own, self._all_known())
        self._path = path

    def _all_known(self) -> list[str]:
        return list(dict.fromkeys(name for directory in directories() for name in self._known(directory)))

    def _known(self, directory: RuntimeDirectory) -> list[str]:
        """Whom we may mean."""
        return directory.running()

    def _nobody(self, directory: RuntimeDirectory, names: list[str]) -> RequestError:
        hint = f"there are: {', '.join(names)}" if names else "nothing runs in the background"
        if directory.has_log(self.name):
            hint += f"; what it said last is in {directory.log_path(self.name)}"
        return RequestError(f"there is no kdamond of that name; {hint}", where=self.name)

    def _directory(self) -> RuntimeDirectory:
        return RuntimeDirectory(self._path)

    def status(self) -> dict[str, Any]:
        """Everything about it: docs/start.md lists the keys. Integers, with units in the names."""
        return self.ask(protocol.Status())

    def live(
        self, at_ns: int | None = None, *, step: int = 0, mappings: Sequence[int] | None = None
    ) -> tuple[Live | None, tuple[int, int] | None]:
        """What is known of memory, and the times (ns, of the snapshots) of the first and the last moment there are.

        Now, or ``at_ns``, ``step`` moments later; None: nothing was found yet. ``mappings``: of which targets they are
        told, None is of each. A view from another version of pydamon raises PydamonError.
        """
        from pydamon.views.live import read

        wanted = None if mappings is None else list(mappings)
        told = self.ask(protocol.Live(at_ns=at_ns, step=step, mappings=wanted))
        span = told.get("span_ns")
        view = told.get("live")
        return None if view is None else read(view), None if span is None else (span[0], span[1])

    def moments(self, after_ns: int | None = None, *, back: int = 0) -> dict[str, Any]:
        """What was found since ``after_ns``, or at last: see `protocol.Moments`. ``moments`` is for `views.passing`."""
        return self.ask(protocol.Moments(after_ns=after_ns, back=back))

    def hits(self) -> list[Hits] | None:
        """What its probes have hit in the last snapshot of each target; None if it has no probes."""
        from pydamon.views.hits import received

        told = self.ask(protocol.Hits())
        return received(told.get("targets")) if told.get("probes") else None

    def tune(
        self,
        *,
        sample_us: int | None = None,
        aggr_us: int | None = None,
        update_us: int | None = None,
        intervals: Literal["fixed", "auto"] | None = None,
        min_regions: int | None = None,
        max_regions: int | None = None,
        pause: bool | None = None,
        max_cpu: float | None = None,
        schemes: Sequence[Scheme | Mapping[str, Any]] | None = None,
        probes: Sequence[Probe | Mapping[str, Any]] | None = None,
        spec: Spec | Mapping[str, Any] | None = None,
        goal_values: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Change what is given, all or nothing, without losing regions; returns the new parameters."""
        request = protocol.Tune(
            sample_us=sample_us,
            aggr_us=aggr_us,
            update_us=update_us,
            intervals=intervals,
            min_regions=min_regions,
            max_regions=max_regions,
            pause=pause,
            max_cpu=max_cpu,
            schemes=None if schemes is None else [_plain(scheme) for scheme in schemes],
            probes=None if probes is None else [_plain(probe) for probe in probes],
            spec=None if spec is None else _plain(spec),
            goal_values=dict(goal_values or {}),
        )
        return self.ask(request)

    def set_goal(self, name: str, value: int) -> dict[str, Any]:
        """Report the measured value of a goal of the metric ``user_input``, by its name or ``scheme.goal`` numbers."""
        return self.ask(protocol.SetGoal(name=name, value=value))

    def stop(self, *, undo: bool = False, timeout_s: float = _STOP_S) -> dict[str, Any]:
        """End it and wait until it has ended; returns what it did, as `status` does.

        With ``undo`` its operations set undoes what can be undone, for as long as that takes. Where it does not answer,
        it gets SIGTERM; the result has only ``name``, ``pid`` and ``reason`` then.
        """
        with self._directory() as directory:
            if directory.foreign:
                return self.ask(protocol.Stop(undo=undo), timeout_s=None if undo else timeout_s)  # and be refused
            process = directory.process(self.name)
            if process is None:
                raise self._nobody(directory, self._known(directory))
            try:
                try:
                    result = self.ask(protocol.Stop(undo=undo), timeout_s=None if undo else timeout_s)
                except RequestError:
                    raise
                except PydamonError:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(process.pidfd, signal.SIGTERM)
                    result = {"name": self.name, "pid": process.pid, "reason": "ended by SIGTERM"}
                self._await_end(process, timeout_s)
            finally:
                process.close()
            return result

    def _await_end(self, process: Process, timeout_s: float) -> None:
        ended, _, _ = select.select([process.pidfd], [], [], timeout_s)
        if not ended:
            raise PydamonError(f"does not end; its process is {process.pid}", where=self.name)

    def ask(self, request: protocol.AnyRequest, timeout_s: float | None = -1) -> dict[str, Any]:
        """The result of a request; ``timeout_s`` None waits for ever."""
        line = protocol.encode_line(request)
        if len(line) > protocol.MAX_REQUEST:
            raise RequestError(f"is too large: {len(line)} bytes; the most is {protocol.MAX_REQUEST}", where="request")
        deadline = None if timeout_s is None else time.monotonic() + (self._timeout_s if timeout_s < 0 else timeout_s)
        with self._directory() as directory:
            try:
                connection = directory.connect(self.name, self._timeout_s)
            except OSError as error:
                names = self._known(directory)
                if self.name not in names:
                    raise self._nobody(directory, names) from None
                if isinstance(error, TimeoutError | BlockingIOError):  # so many wait already
                    raise NoAnswer(self.name, self._path) from None
                raise PydamonError(f"cannot be reached: {error.strerror or error}", where=self.name) from None
        with connection:
            try:
                connection.sendall(line)
                reply = _receive(connection, deadline)
            except TimeoutError:
                raise NoAnswer(self.name, self._path) from None
            except OSError as error:
                raise PydamonError(f"broke off: {error.strerror or error}", where=self.name) from None
        return self._understand(reply)

    def _understand(self, reply: bytes) -> dict[str, Any]:
        try:
            message = msgspec.json.decode(reply, type=learned(_Reply))
        except msgspec.DecodeError:
            raise PydamonError(
                "ended without an answer" if not reply else "answers nonsense", where=self.name
            ) from None
        if message.error is not None:
            raise protocol.error_of(message.error)
        return message.result


class ServiceClient(Client):
    """Talks to the service ``name``; without a name, to the only one that runs. Raises as `Client`."""

    _is_service = True

    def __init__(self, name: str | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(None if name is None else name + SERVICE, timeout_s=timeout_s)

    def reload(self) -> dict[str, Any]:
        """Have it read its file anew; what was done, by names. Raises RequestError if the file is wrong."""
        return self.ask(protocol.Reload(), timeout_s=_STOP_S)

    def _known(self, directory: RuntimeDirectory) -> list[str]:
        return [name + SERVICE for name in directory.services()]

    def _nobody(self, directory: RuntimeDirectory, names: list[str]) -> RequestError:
        there = ", ".join(name.removesuffix(SERVICE) for name in names)
        hint = f"there are: {there}" if there else "none runs"
        return RequestError(f"there is no service of that name; {hint}", where=self.name.removesuffix(SERVICE))


class _Reply(msgspec.Struct):
    result: dict[str, Any] = {}
    error: protocol.Problem | None = None


def _receive(connection: socket.socket, deadline: float | None) -> bytes:
    """One line, or what there is until the end. Raises TimeoutError and OSError."""
    received = bytearray()
    while not received.endswith(b"\n") and len(received) <= protocol.MAX_REPLY:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        data = connection.recv(1 << 16)
        if not data:
            break
        received += data
    return bytes(received)


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=quantities.encode)
