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
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from pydamon import lean, messages
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.outputs import Place
from pydamon.run.directory import Claim, RuntimeDirectory
from pydamon.run.request import Request
from pydamon.service import protocol
from pydamon.spec import Spec

_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Started:
    """A kdamond that runs in the background; ``about`` says what it monitors, ``remark`` what its schemes cannot do."""

    name: str
    pid: int
    about: str
    remark: str | None


class _Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """From the daemon to the foreground."""

    pid: int | None = None
    about: str | None = None
    remark: str | None = None
    error: protocol.Problem | None = None


def start(
    request: Request, spec: Spec, *, name: str | None = None, log: str | None = None, metrics: str | None = None
) -> Started:
    """Run ``spec`` in a process of its own; returns when it monitors. Raises PydamonError, and leaves nothing then.

    To be called from a process with one thread. A record is written if ``request.output`` is not empty; paths in the
    request are absolute, as is that of ``metrics`` (`service.metrics.parse`). ``name`` is by default the lowest free
    number.
    """
    lean.keep_standard_files()
    log = None if log is None else os.path.abspath(log)
    with RuntimeDirectory() as directory:
        claim = directory.claim(name)
        try:
            log_fd = directory.open_log(claim.name) if log is None else _open_own_log(log)
        except BaseException:
            directory.remove(claim.name)
            os.close(claim.lock_fd)
            raise
        from_daemon, to_foreground = os.pipe2(os.O_CLOEXEC)
        intermediate = os.fork()
        if intermediate == 0:
            _fork_again(directory, claim, log_fd, to_foreground, request, spec, metrics)
        for fd in (to_foreground, log_fd, claim.lock_fd):
            os.close(fd)
        try:
            os.waitpid(intermediate, 0)
            return _await(from_daemon, claim.name, log or directory.log_path(claim.name))
        finally:
            os.close(from_daemon)


def _open_own_log(path: str) -> int:
    try:
        with Place(path, "log") as place:
            return place.open_to_append()
    except RequestError as error:
        raise MachineError(error.message, where="log") from None


# -- the foreground ---------------------------------------------------------------------------------------------------


def _await(fd: int, name: str, log: str) -> Started:
    """What the daemon reports; on Ctrl-C it is ended."""
    pid: int | None = None
    pidfd: int | None = None
    try:
        with os.fdopen(os.dup(fd), "rb") as lines:
            for line in lines:
                message = msgspec.json.decode(line, type=_Message)
                if message.error is not None:
                    raise protocol.error_of(message.error)
                if message.pid is not None:
                    pid = message.pid
                    with contextlib.suppress(ProcessLookupError):
                        pidfd = os.pidfd_open(pid)
                if message.about is not None and pid is not None:
                    return Started(name, pid, message.about, message.remark)
    except KeyboardInterrupt:
        if pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            select.select([pidfd], [], [], _END_S)
        raise
    finally:
        if pidfd is not None:
            os.close(pidfd)
    raise PydamonError(f"it ended before it monitored anything; {log} may say why", where="start")


# -- the background ---------------------------------------------------------------------------------------------------


def _fork_again(
    directory: RuntimeDirectory,
    claim: Claim,
    log_fd: int,
    to_foreground: int,
    request: Request,
    spec: Spec,
    metrics: str | None,
) -> NoReturn:
    """In the child: a session of its own, and a child in that, which can never get a terminal again."""
    status = 1
    try:
        os.setsid()
        if os.fork() == 0:
            _leave_behind({directory.fileno(), claim.lock_fd, to_foreground}, log_fd)
            status = _run(directory, claim, to_foreground, request, spec, metrics)
        else:
            status = 0
    finally:
        os._exit(status)  # neither the caller's exit handlers nor its buffers are ours


def _leave_behind(keep: set[int], log_fd: int) -> None:
    """Close all that the caller had open; say what there is to say in the log."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):
                os.close(fd)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(
    directory: RuntimeDirectory, claim: Claim, to_foreground: int, request: Request, spec: Spec, metrics: str | None
) -> int:
    """The daemon; returns its exit status."""
    from pydamon.service.log import Log

    began_ns = time.monotonic_ns()
    log = Log(2)
    sys.stdin = sys.stdout = None
    sys.stderr = log
    foreground = os.fdopen(to_foreground, "wb", buffering=0)

    def tell(message: _Message) -> None:
        if not foreground.closed:
            foreground.write(protocol.encode_line(message))

    def ready(about: str, remark: str | None) -> None:
        os.chdir("/")  # file systems can be unmounted; all paths have been opened by now
        tell(_Message(about=about, remark=remark))
        foreground.close()

    server = report = None
    problem: protocol.Problem | None = None
    try:
        claim.write_identity()
        tell(_Message(pid=os.getpid()))
        with lean.imports():
            from pydamon.service.server import ControlServer
            from pydamon.service.session import Session

        session = Session(request, spec, name=claim.name, log=log, began_ns=began_ns, metrics=metrics)
        server = ControlServer(directory.listen(claim.name), session.handle, beat=claim.beat)
        report = session.run(server, ready)
    except BaseException as error:
        problem = protocol.problem_of(error)
        messages.say(str(protocol.error_of(problem)))
        if os.environ.get("PYDAMON_DEBUG"):
            import traceback

            print(traceback.format_exc(), file=log)
    directory.remove(claim.name)
    if not foreground.closed or (report is not None and report["reason"] == "stopped"):
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
