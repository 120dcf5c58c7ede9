"""Address samples of running processes, live: ``perf mem record`` into ``perf script``, read as they come.

Works where the processor (and the hypervisor, if there is one) has events that sample the addresses of loads and
stores: PEBS on Intel, IBS on AMD, SPE on Arm. What the output means is in ``perf_script``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence

from pydamon.errors import MachineError, RequestError
from pydamon.linux.online_cpus import nodes_of_cpus
from pydamon.ops.reported.sources.base import Block
from pydamon.ops.reported.sources.perf_script import FIELDS, PerfScript
from pydamon.plain import printable

WHERE = "perf mem"
_TRIAL_S = 20

# Starts a command with these files as its standard output and error (as another user, for example).
Start = Callable[[Sequence[str], int | None, int | None], "subprocess.Popen[bytes]"]


def _start(command: Sequence[str], stdout: int | None, stderr: int | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=stdout, stderr=stderr)


def probe(start: Start = _start) -> str:
    """The path of perf, if it can sample addresses here; raises MachineError with the reason. Samples ``true``."""
    perf = shutil.which("perf")
    if perf is None:
        raise MachineError("is not installed; on Debian and Ubuntu: apt-get install linux-perf", where=WHERE)
    listed = _said(perf, ["mem", "record", "-e", "list"], start)[1]
    if "available" not in listed:
        reason = _last_line(listed) or "no event is available"
        raise MachineError(f"neither this processor nor a hypervisor offers memory events ({reason})", where=WHERE)
    status, text = _said(perf, ["mem", "record", "-U", "-q", "-o", "/dev/null", "--", "true"], start)
    if status:
        reason = _last_line(text) or f"it exits with status {status}"
        raise MachineError(f"cannot sample here: {reason}; see kernel.perf_event_paranoid, or run as root", where=WHERE)
    return perf


def _said(perf: str, arguments: list[str], start: Start) -> tuple[int, str]:
    """Exit status and all output of a short run."""
    process: subprocess.Popen[bytes] | None = None
    try:
        process = start([perf, *arguments], subprocess.PIPE, subprocess.STDOUT)
        output, _ = process.communicate(timeout=_TRIAL_S)
    except (OSError, RequestError) as error:
        raise MachineError(f"{perf} cannot be run: {error}", where=WHERE) from None
    except subprocess.TimeoutExpired:
        assert process is not None
        process.kill()
        process.communicate()
        raise MachineError(f"{perf} {' '.join(arguments)} did not end in {_TRIAL_S} s", where=WHERE) from None
    return process.returncode, output[: 1 << 16].decode(errors="replace")


def _last_line(text: str) -> str:
    """The last line that says something, shortened, without what could drive a terminal."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return printable(lines[-1][:120]) if lines else ""


class PerfMem(PerfScript):
    """A running pipeline as a source; `close` ends it, and with it the command that it runs."""

    name = "perf-mem"

    def __init__(
        self, recorder: subprocess.Popen[bytes], printer: subprocess.Popen[bytes], fd: int, *, pids: Sequence[int] = ()
    ) -> None:
        super().__init__(fd, pids=pids, nodes_of_cpus=nodes_of_cpus())
        self.process = recorder
        self._printer = printer

    def read(self) -> Block | None:
        """The next block; None at the end. Raises MachineError if perf failed before there was a sample."""
        block = super().read()
        if block is None and not self.counts.accesses:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._printer.wait(5)
                if status:
                    first = self.process.poll()
                    ended = "" if first is None else f" (and perf mem record with status {first})"
                    raise MachineError(f"gave no sample: perf script exited with status {status}{ended}", where=WHERE)
        return block

    def close(self) -> None:
        """End perf: SIGINT, upon which it ends its command and writes out what it has; then SIGKILL."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGINT)
        super().close()  # a pipe that nobody reads stops its writers
        for process in (self.process, self._printer):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def launch(command: Sequence[str] | None, *, pids: Sequence[int] = (), start: Start = _start) -> PerfMem:
    """Sample a command that is started for it, or the running processes ``pids``, until they end.

    In a pipeline of perf's the command's standard output goes to standard error. Raises MachineError if perf cannot
    sample here, RequestError for a command that there is not.
    """
    perf = probe(start)
    if command is not None and (not command or "\0" in "".join(command)):
        raise RequestError("is not a command", where=repr(command[0]) if command else "--")
    if command is not None and shutil.which(command[0]) is None:  # perf itself would say so in its own words
        raise RequestError("cannot be run: there is no such program", where=command[0])
    # -U: user space only, which needs least privilege; -p would mean another thing to perf mem.
    record = [perf, "mem", "record", "-U", "-q", "--timestamp", "--sample-cpu", "-o", "-"]
    record += [f"--pid={','.join(map(str, pids))}"] if command is None else ["--", *command]
    recorder = start(record, subprocess.PIPE, None)
    assert recorder.stdout is not None
    try:
        with recorder.stdout:  # the printer has its own
            printer = subprocess.Popen(
                [perf, "script", "-i", "-", "-F", FIELDS], stdin=recorder.stdout, stdout=subprocess.PIPE
            )
    except BaseException as error:
        recorder.terminate()
        recorder.wait()
        if isinstance(error, OSError):
            raise MachineError(f"{perf} cannot be run: {error.strerror}", where=WHERE) from None
        raise
    assert printer.stdout is not None
    with printer.stdout:  # the reader owns a descriptor of its own
        fd = os.dup(printer.stdout.fileno())
    return PerfMem(recorder, printer, fd, pids=pids)
