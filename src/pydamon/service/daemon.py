"""Going into the background: fork, leave the terminal, and tell the foreground when monitoring runs, or why not.

The foreground (``pydamon start``) takes the name, forks twice, and reads from a pipe: first the daemon's pid, then that
it monitors, or an error. So everything that can be refused is refused there, with the exit status of ``record``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

import msgspec

from pydamon import lean, messages
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.learned import learned
from pydamon.linux.outputs import Place
from pydamon.run.directory import Claim, RuntimeDirectory, check_monitor_name
from pydamon.run.request import Request
from pydamon.service import protocol
from pydamon.spec import Spec

_END_S = 10.0


class Started(msgspec.Struct, frozen=True):
    """A kdamond that runs in the background; ``about``: what it monitors, ``remarks``: what schemes cannot do here."""

    name: str
    pid: int
    about: str
    remarks: list[str]


class _Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """From the daemon to the foreground."""

    pid: int | None = None
    about: str | None = None
    remarks: list[str] = []
    error: protocol.Problem | None = None


class Starting:
    """A daemon that was forked, on its way to monitoring. `end` it, or ask `look` when ``fd`` can be read."""

    def __init__(self, name: str, fd: int, log: str) -> None:
        self.name = name
        self.fd = fd
        self.pid: int | None = None  # as soon as it has told
        self._pidfd: int | None = None
        self._log = log
        self._received = b""

    def look(self) -> Started | None:
        """Read what it has told by now, waiting for something; what it is if it monitors. Raises what it could not."""
        data = os.read(self.fd, 1 << 16)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = msgspec.json.decode(line, type=learned(_Message))
            if message.error is not None:
                raise protocol.error_of(message.error)
            if message.pid is not None:
                self.pid = message.pid
                with contextlib.suppress(ProcessLookupError):
                    self._pidfd = os.pidfd_open(message.pid)
            if message.about is not None and self.pid is not None:
                return Started(self.name, self.pid, message.about, message.remarks)
        if not data:
            raise PydamonError(f"it ended before it monitored anything; {self._log} may say why", where="start")
        return None

    def end(self) -> None:
        """End it, and wait for that."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGTERM)
            select.select([self._pidfd], [], [], _END_S)

    def close(self) -> None:
        """Listen to it no more."""
        os.close(self.fd)
        if self._pidfd is not None:
            os.close(self._pidfd)


class How(msgspec.Struct, frozen=True):
    """How a daemon lives, beside what it monitors.

    ``name`` is by default the lowest free number, ``log`` a file instead of the usual one, or ``log_fd`` a descriptor
    that gets lines which begin with ``head``. It is found in the directory ``path``, by default the user's own; with
    ``gid`` members of that group may look at it. It ends when ``life``, the end of a pipe, has no writer any more.
    ``metrics`` is where they go (`service.metrics.parse`).
    """

    name: str | None = None
    log: str | None = None
    log_fd: int | None = None
    head: str | None = None
    path: str | None = None
    gid: int | None = None
    life: int | None = None
    metrics: str | None = None


def start(request: Request, spec: Spec, how: How) -> Started:
    """Run ``spec`` in a process of its own; returns when it monitors. Raises PydamonError, and leaves nothing then.

    As `begin`; on Ctrl-C it is ended.
    """
    starting = begin(request, spec, how)
    try:
        while (started := starting.look()) is None:
            pass
        return started
    except KeyboardInterrupt:
        starting.end()
        raise
    finally:
        starting.close()


def begin(request: Request, spec: Spec, how: How) -> Starting:
    """Fork a process for ``spec``. Raises PydamonError, and leaves nothing then.

    To be called from a process with one thread. A record is written if ``request.output`` is not empty; paths in the
    request are absolute, as is that of ``how.metrics``.
    """
    if how.name is not None:
        check_monitor_name(how.name)
    lean.keep_standard_files()
    log = None if how.log is None else os.path.abspath(how.log)
    with RuntimeDirectory(how.path, gid=how.gid) as directory:
        claim = directory.claim(how.name)
        try:
            log_fd = _open_log(directory, claim.name, log, how.log_fd)
        except BaseException:
            directory.remove(claim.name)
            os.close(claim.lock_fd)
            raise
        from_daemon, to_foreground = os.pipe2(os.O_CLOEXEC)
        intermediate = os.fork()
        if intermediate == 0:
            _fork_again(directory, claim, log_fd, to_foreground, request, spec, how)
        for fd in (to_foreground, log_fd, claim.lock_fd):
            os.close(fd)
        os.waitpid(intermediate, 0)
        return Starting(claim.name, from_daemon, log or directory.log_path(claim.name))


def _open_log(directory: RuntimeDirectory, name: str, path: str | None, fd: int | None) -> int:
    if fd is not None:
        return os.dup(fd)
    if path is None:
        return directory.open_log(name)
    try:
        with Place(path, "log") as place:
            return place.open_to_append()
    except RequestError as error:
        raise MachineError(error.message, where="log") from None


# -- the background ---------------------------------------------------------------------------------------------------


def _fork_again(
    directory: RuntimeDirectory,
    claim: Claim,
    log_fd: int,
    to_foreground: int,
    request: Request,
    spec: Spec,
    how: How,
) -> NoReturn:
    """In the child: a session of its own, and a child in that, which can never get a terminal again."""
    status = 1
    try:
        os.setsid()
        if os.fork() == 0:
            keep = {directory.fileno(), claim.lock_fd, to_foreground}
            leave_behind(keep if how.life is None else keep | {how.life}, log_fd)
            status = _run(directory, claim, to_foreground, request, spec, how)
        else:
            status = 0
    finally:
        os._exit(status)  # neither the caller's exit handlers nor its buffers are ours


def leave_behind(keep: set[int], log_fd: int) -> None:
    """Close all that the caller had open; say what there is to say in the log."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _run(directory: RuntimeDirectory, claim: Claim, to_foreground: int, request: Request, spec: Spec, how: How) -> int:
    """The daemon; returns its exit status."""
    from pydamon.service.log import Log

    began_ns = time.monotonic_ns()
    log = Log(2, head=how.head)
    sys.stdin = sys.stdout = None
    sys.stderr = log
    foreground = os.fdopen(to_foreground, "wb", buffering=0)

    def tell(message: _Message) -> None:
        if not foreground.closed:
            foreground.write(protocol.encode_line(message))

    def ready(about: str, remarks: list[str]) -> None:
        os.chdir("/")  # file systems can be unmounted; all paths have been opened by now
        tell(_Message(about=about, remarks=remarks))
        foreground.close()

    server = report = None
    problem: protocol.Problem | None = None
    try:
        claim.write_identity()
        tell(_Message(pid=os.getpid()))
        with lean.imports():
            from pydamon.service.server import ControlServer
            from pydamon.service.session import Session

        session = Session(request, spec, name=claim.name, log=log, began_ns=began_ns, metrics=how.metrics)
        server = ControlServer(
            directory.listen(claim.name),
            session.handle,
            beat=claim.beat,
            readers=directory.gid,
            life=how.life,
            orphaned=session.end,
        )
        report = session.run(server, ready)
    except BaseException as error:
        problem = protocol.problem_of(error)
        messages.say(str(protocol.error_of(problem)))
        if os.environ.get("PYDAMON_DEBUG"):
            import traceback

            print(traceback.format_exc(), file=log)
    directory.remove(claim.name)
    if (not foreground.closed or (report is not None and report["reason"] == "stopped")) and how.log_fd is None:
        directory.remove_log(claim.name)  # what it says is said elsewhere
    with contextlib.suppress(OSError):  # the foreground may be gone; it listens only until monitoring runs
        tell(_Message(error=problem or protocol.Problem("was ended before it monitored anything", "start")))
    if server is not None:
        server.finish(_last_words(report, problem))
    return 0 if problem is None else problem.exit_status


def _last_words(report: dict[str, Any] | None, problem: protocol.Problem | None) -> dict[str, Any]:
    if report is not None:
        return report
    error = protocol.error_of(problem) if problem is not None else None
    return {"state": "failed", "reason": str(error)}
