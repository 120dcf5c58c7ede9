"""Kdamonds in processes of their own: reading and writing files does not slow down the monitoring, nor the reverse.

A `Spawner` is forked off while the program still has one thread; it forks a process for each kdamond, which has all
modules loaded by then. Requests and answers are pickled: both ends are this program.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import socket
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from pydamon import errors, messages
from pydamon.core.scheme_state import SchemeState, Tried
from pydamon.damonfs.runner import Output, Runner, Say
from pydamon.errors import PydamonError
from pydamon.spec import Context, Intervals

_REFRESH_S = 0.05
_PATIENCE_S = 5.0
# These are answered at once; what waits for the kdamond has a thread, so that it does not keep others from being heard.
_AT_ONCE = frozenset({"states", "intervals", "set_goal", "stop"})


class Spawner:
    """Forks processes for kdamonds; ``not_theirs`` are file descriptors that those must not hold open."""

    def __init__(self, *not_theirs: int) -> None:
        self._lock = threading.Lock()
        self._socket, far = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._socket.close()
                for fd in not_theirs:
                    os.close(fd)
                _spawn(far)
            finally:
                os._exit(1)
        far.close()

    def run(self, number: int, context: Context, **how: Any) -> RemoteRunner:
        """Open a kdamond and start it; arguments and errors as of `Runner`."""
        near, far = socket.socketpair()
        with far, self._lock:
            try:
                socket.send_fds(self._socket, [b"x"], [far.fileno()])
            except OSError as error:
                near.close()
                raise PydamonError(f"cannot be started: {error.strerror}", where=f"kdamond {number}") from None
        return RemoteRunner(Connection(near.detach()), number, context, **how)

    def close(self) -> None:
        """No more; those that run are not ended by this."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


class RemoteRunner:
    """A kdamond in another process; see `Runner`."""

    def __init__(
        self,
        connection: Connection,
        number: int,
        context: Context,
        *,
        every_sample: Callable[[], object] = lambda: None,
        say: Say = lambda line: None,
        output: Output = Output(),  # noqa: B008 (it is frozen)
    ) -> None:
        self.ended = threading.Event()
        self._connection = connection
        self._where = f"kdamond {number}"
        self._say = say
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._asked: dict[int, queue.SimpleQueue[tuple[str, Any]]] = {}
        self._last: list[SchemeState] = []
        self._intervals = context.intervals
        try:
            connection.send((number, context, output))
            self.pid, self._process = self._first()
        except (OSError, EOFError) as error:
            connection.close()
            why = str(error) or "it got no process"
            raise PydamonError(f"could not be started: {why}", where=self._where) from None
        except BaseException:
            connection.close()
            raise
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._refresh, args=(every_sample,), daemon=True).start()

    def _first(self) -> tuple[int, int]:
        """The ids of its task and of its process, when it runs; what it says until then is handed on."""
        while True:
            kind, _, value = self._connection.recv()
            if kind == "say":
                self._say(value)
            else:
                ids: tuple[int, int] = _result(kind, value)
                return ids

    def _listen(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                kind, number, value = self._connection.recv()
                if kind == "say":
                    self._say(value)
                elif kind == "ended":
                    self._last, self._intervals = value
                    break  # there is nothing more to ask; closed, the process ends
                else:
                    self._asked.pop(number).put((kind, value))
        self.ended.set()
        with self._lock:
            left, self._asked = self._asked, {}
            self._connection.close()
        for answer in left.values():
            answer.put(("error", ("PydamonError", "has ended", self._where)))

    def _refresh(self, every_sample: Callable[[], object]) -> None:
        while not self.ended.wait(_REFRESH_S):
            every_sample()

    def _ask(self, name: str, *args: Any, patience_s: float | None = None, **more: Any) -> Any:
        answer: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        with self._lock:
            if self._connection.closed:
                raise PydamonError("has ended", where=self._where)
            number = next(self._numbers)
            self._asked[number] = answer
            with contextlib.suppress(OSError):  # it has just ended: everybody who has asked is told so
                self._connection.send((number, name, args, more))
        return _result(*answer.get(timeout=patience_s))

    def stop(self) -> None:
        """End it, and wait until it has ended; one that does not answer is killed."""
        try:
            self._ask("stop", patience_s=_PATIENCE_S)
        except PydamonError:
            pass  # it has just ended
        except queue.Empty:
            os.kill(self._process, signal.SIGKILL)
        self.ended.wait(_PATIENCE_S)

    def commit(self, context: Context) -> None:
        """As `Runner.commit`."""
        self._ask("commit", context)

    def states(self) -> list[SchemeState]:
        """Its schemes, also after its end."""
        with contextlib.suppress(PydamonError):
            self._last = self._ask("states")
        return self._last

    def intervals(self) -> Intervals:
        """The intervals in force."""
        with contextlib.suppress(PydamonError):
            self._intervals = self._ask("intervals")
        return self._intervals

    def walk(self) -> dict[int, list[Tried]]:
        """As `Runner.walk`; nothing if it ends meanwhile."""
        try:
            tried: dict[int, list[Tried]] = self._ask("walk")
        except PydamonError:
            return {}
        return tried

    def set_goal(self, scheme: int, goal: int, value: int) -> None:
        """As `Runner.set_goal`."""
        with contextlib.suppress(PydamonError):
            self._ask("set_goal", scheme, goal, value)


def _result(kind: str, value: Any) -> Any:
    if kind == "error":
        name, message, where = value
        raise getattr(errors, name)(message, where=where)
    if kind == "crash":
        raise RuntimeError(value)
    return value


# -- the other processes ----------------------------------------------------------------------------------------


def _spawn(asked: socket.socket) -> NoReturn:
    """Fork a process for each socket that arrives, until the other end is closed.

    Where there is no room for one, its socket is closed: whoever has asked sees that, and may ask again.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever has ended is gone at once
    while True:
        data, fds, _, _ = socket.recv_fds(asked, 1, 1)
        if not data:
            os._exit(0)
        if not fds:
            continue
        try:
            pid = os.fork()
        except OSError as error:
            messages.say(f"damonfs: no process for a kdamond: {error.strerror}")
            os.close(fds[0])
            continue
        if pid == 0:
            asked.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                _Kdamond(Connection(fds[0])).serve()
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.close(fds[0])


class _Kdamond:
    """The process of one kdamond: runs it, and answers what is asked through the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def _send(self, kind: str, number: int, value: Any) -> None:
        with self._lock, contextlib.suppress(OSError):  # nobody listens any more: it will be seen
            self._connection.send((kind, number, value))

    def _answer(self, number: int, call: Callable[[], Any]) -> Any:
        try:
            value = call()
        except PydamonError as error:
            self._send("error", number, (type(error).__name__, error.message, error.where))
        except Exception as error:
            self._send("crash", number, f"{type(error).__name__}: {error}")
        else:
            self._send("reply", number, value)

    def serve(self) -> None:
        """Until the kdamond has ended and nobody asks any more; if the other end goes, the kdamond is stopped."""
        number, context, output = self._connection.recv()
        runner: list[Runner] = []

        def open_it() -> tuple[int, int]:
            runner.append(Runner(number, context, say=lambda line: self._send("say", 0, line),
                                 output=output))  # fmt: skip
            return runner[0].pid, os.getpid()

        self._answer(0, open_it)
        if not runner:
            return
        threading.Thread(target=self._tell_end, args=(runner[0],), daemon=True).start()
        try:
            while True:
                asked, name, args, more = self._connection.recv()
                call = _bound(runner[0], name, args, more)
                if name in _AT_ONCE:
                    self._answer(asked, call)
                else:
                    threading.Thread(target=self._answer, args=(asked, call), daemon=True).start()
        except (EOFError, OSError):
            runner[0].stop()

    def _tell_end(self, runner: Runner) -> None:
        runner.ended.wait()
        self._send("ended", 0, (runner.states(), runner.intervals()))


def _bound(runner: Runner, name: str, args: tuple[Any, ...], more: dict[str, Any]) -> Callable[[], Any]:
    return lambda: getattr(runner, name)(*args, **more)
