"""perf_event_open: samples of what threads do, each with its address, through rings shared with the kernel.

No perf program and no library: one system call, and memory that the kernel fills (include/uapi/linux/perf_event.h). A
ring is filled per CPU; when it is full the kernel drops the newest samples and says how many. Samples have one length,
so that thousands of them are looked at as one array.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import platform
import select
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import arm_spe
from pydamon.linux.online_cpus import online_cpus
from pydamon.linux.texts import read_text

WHERE = "perf_event_open"
_PARANOID = "/proc/sys/kernel/perf_event_paranoid"
_SYS_PERF_EVENT_OPEN = 241 if platform.machine() == "aarch64" else 298
_FLAG_FD_CLOEXEC = 1 << 3
# struct perf_event_attr up to sample_max_stack (PERF_ATTR_SIZE_VER5, Linux 4.1), as `_attributes` fills it.
_ATTR = struct.Struct("=IIQQQQQIIQQQQIiQIHH")
_DISABLED, _INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV, _FREQ = 1 << 0, 1 << 1, 1 << 5, 1 << 6, 1 << 10
_WATERMARK = 1 << 14
_SAMPLE_ID_ALL = 1 << 18
_PRECISE_AT, _USE_CLOCKID, _INHERIT_THREAD = 15, 1 << 25, 1 << 35  # the last: Linux 5.13, threads and no children
_SAMPLE_TYPE = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 15  # thread, time, address, CPU, data source
_ENABLE, _SET_OUTPUT = 0x2400, 0x2405

_PAGE = mmap.PAGESIZE
# How many pages a ring has: as many as whoever may lock all memory gets, else (with the page before them) what a user
# without privileges may lock (516 KiB per CPU).
_DATA_PAGES = (1024, 128)
_WAKE_BYTES = _DATA_PAGES[-1] * _PAGE // 2  # how much a ring holds when whoever waits for it is woken
_HEAD, _TAIL = 1024 // 8, 1032 // 8  # in the first page, as 64-bit words
_AUX_HEAD, _AUX_TAIL, _AUX_OFFSET, _AUX_SIZE = 1056 // 8, 1064 // 8, 1072 // 8, 1080 // 8
_AUX_PAGES = 256  # as many as the largest ring here has at least, a power of two
_AUX_WAKE_BYTES = 64 * _PAGE  # then there is a record of it, at the latest
_AUX = 11  # a type of records, of these words: header, offset, size, flags; pid and tid, time, CPU
_AUX_WORDS = 7
_AUX_CUT = 1 << 0 | 1 << 3  # of its flags: cut short for want of room; records ran into each other
_LOST, _THROTTLE, _SAMPLE, _LOST_SAMPLES = 2, 5, 9, 13  # types of records
_HEADER = struct.Struct("=IHH")  # type, misc, size
_WORDS = 6  # of a sample: header, pid and tid, time, address, CPU, data source
# In the header of a sample everything but ``misc`` is the same.
_SAMPLE_HEADER = np.uint64(_SAMPLE | _WORDS * 8 << 48)
_HEADER_MASK = np.uint64(0xFFFF_0000_FFFF_FFFF)
_NO_WORDS: NDArray[np.uint64] = np.empty((0, _WORDS), np.uint64)
_LOAD, _STORE = (
    np.uint64(1 << 1),
    np.uint64(1 << 2),
)  # of the five bits of the data source that say what the instruction did

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_ulong)


class Event(msgspec.Struct, frozen=True):
    """What is sampled: the numbers of struct perf_event_attr. One in ``period`` events, or about ``freq`` in a second.

    ``precise``: how exact the address of the instruction has to be (0 to 3); ``kernel``: what the kernel does counts,
    too (some PMUs cannot leave it out); ``tells_writes``: its samples say whether they loaded or stored.
    """

    name: str
    type: int
    config: int
    config1: int = 0
    config2: int = 0
    period: int = 0
    freq: int = 0
    precise: int = 0
    kernel: bool = False
    tells_writes: bool = True
    aux: bool = False  # it writes into a buffer of its own, beside the ring (Arm's SPE)
    cpus: tuple[int, ...] = ()  # those that have it; none: all


class Samples(NamedTuple):
    """Samples as they lie in a ring, ``words`` of shape (n, 6), and their columns, of shape (n,).

    ``lost``: how many the kernel has dropped; ``throttled``: how often it stopped for a while as there were too many.
    """

    words: NDArray[np.uint64]
    lost: int = 0
    throttled: int = 0

    @property
    def pid(self) -> NDArray[np.int32]:
        """The process."""
        return self.words[:, 1].astype(np.uint32).view(np.int32)

    @property
    def thread(self) -> NDArray[np.int32]:
        """The thread."""
        return (self.words[:, 1] >> np.uint64(32)).astype(np.int32)

    @property
    def when_ns(self) -> NDArray[np.int64]:
        """CLOCK_MONOTONIC."""
        return self.words[:, 2].astype(np.int64)

    @property
    def address(self) -> NDArray[np.uint64]:
        """What was accessed."""
        return self.words[:, 3].copy()

    @property
    def cpu(self) -> NDArray[np.int32]:
        """Where it ran."""
        return self.words[:, 4].astype(np.uint32).view(np.int32)

    @property
    def is_write(self) -> NDArray[np.bool_]:
        """Whether it is known to be a store."""
        result: NDArray[np.bool_] = (self.words[:, 5] & _STORE) != 0
        return result


def parse(data: bytes) -> Samples:
    """The records of a ring's bytes; what cannot be records ends it, and counts as one that was lost."""
    words = np.frombuffer(data, np.uint64, len(data) // 8)
    samples: list[NDArray[np.uint64]] = []
    at, lost, throttled = 0, 0, 0
    while at < len(words):
        run = _run_of_samples(words[at:])
        if run:
            samples.append(words[at : at + run * _WORDS].reshape(-1, _WORDS))
            at += run * _WORDS
            continue
        kind, _, size = _HEADER.unpack_from(data, at * 8)
        if size < 8 or size % 8 or at + size // 8 > len(words):
            lost += 1
            break
        if kind == _LOST and size >= 24:  # id, lost
            lost += int(words[at + 2])
        elif kind == _LOST_SAMPLES and size >= 16:
            lost += int(words[at + 1])
        elif kind == _THROTTLE:
            throttled += 1
        at += size // 8
    return Samples(np.concatenate(samples) if samples else _NO_WORDS, lost, throttled)


def records_of(data: bytes) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """The types of records, and their words; it ends where there is none."""
    words = np.frombuffer(data, np.uint64, len(data) // 8)
    at = 0
    while at < len(words):
        kind, _, size = _HEADER.unpack_from(data, at * 8)
        if size < 8 or size % 8 or at + size // 8 > len(words):
            return
        yield kind, words[at : at + size // 8]
        at += size // 8


def _run_of_samples(words: NDArray[np.uint64]) -> int:
    """How many samples there are one behind the other at the beginning."""
    headers = words[: len(words) // _WORDS * _WORDS : _WORDS]
    other = (headers & _HEADER_MASK) != _SAMPLE_HEADER
    return int(other.argmax()) if other.any() else len(headers)


def joined(parts: Sequence[Samples]) -> Samples:
    """Those of several rings, by their time."""
    words = np.concatenate([part.words for part in parts]) if parts else _NO_WORDS
    words = words[np.argsort(words[:, 2], kind="stable")]
    return Samples(words, sum(part.lost for part in parts), sum(part.throttled for part in parts))


class _Ring:
    """The memory that the kernel fills for one CPU. Raises OSError."""

    def __init__(self, fd: int) -> None:
        self._memory = _mapped(fd)
        self._control = np.frombuffer(self._memory, np.uint64, _PAGE // 8)
        self._data = memoryview(self._memory)[_PAGE:]

    def read(self) -> Samples:
        """All that is there; the room is the kernel's again."""
        # Aligned 64-bit loads are single; what is behind the head was written before it, and the interpreter's own
        # locks between the two looks are barriers enough where the processor needs one.
        head, tail = int(self._control[_HEAD]), int(self._control[_TAIL])
        data = _piece(self._data, tail, head - tail)
        self._control[_TAIL] = head
        return self._parse(data)

    def _parse(self, data: bytes) -> Samples:
        return parse(data)

    def close(self) -> None:
        del self._control
        self._data.release()
        self._memory.close()


class _AuxRing(_Ring):
    """One that says what is new in a buffer of its own, into which Arm's SPE writes. Raises OSError."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        offset, size = len(self._memory), _AUX_PAGES * _PAGE
        self._control[_AUX_OFFSET], self._control[_AUX_SIZE] = offset, size
        try:
            self._aux_memory = mmap.mmap(fd, size, offset=offset)
        except BaseException:
            super().close()
            raise
        self._aux = memoryview(self._aux_memory)

    def _parse(self, data: bytes) -> Samples:
        """The samples of which the ring tells where they are: whose they are, and when, is that of their record."""
        parts, lost = [], 0
        for kind, words in records_of(data):
            if kind == _AUX and len(words) >= _AUX_WORDS:
                part = self._samples(*words[:_AUX_WORDS].tolist())
                parts.append(part.words)
                lost += part.lost
        return Samples(np.concatenate(parts) if parts else _NO_WORDS, lost + parse(data).lost)

    def _samples(self, _: int, offset: int, length: int, flags: int, thread: int, when: int, cpu: int) -> Samples:
        size = len(self._aux)
        if not 0 < length <= size:  # nothing, or nonsense
            self._control[_AUX_TAIL] = min(offset + length, 2**64 - 1)
            return Samples(_NO_WORDS, int(length > size))
        found = arm_spe.decode(_piece(self._aux, offset, length), offset)
        self._control[_AUX_TAIL] = offset + length
        # Operations that were begun in vain have accessed nothing for the program.
        index = np.flatnonzero((found.events == 0) | (found.events & np.uint64(arm_spe.RETIRED) != 0))
        words = np.empty((len(index), _WORDS), np.uint64)
        words[:] = _SAMPLE_HEADER, thread, when, 0, cpu, _LOAD
        words[:, 3] = found.address[index]
        words[found.is_store[index], 5] = _STORE
        return Samples(words, found.damaged + int(flags & _AUX_CUT != 0))

    def close(self) -> None:
        self._aux.release()
        self._aux_memory.close()
        super().close()


def _piece(data: memoryview, at: int, length: int) -> bytes:
    """Of a ring that begins anew at its end."""
    begin = at % len(data)
    first = min(length, len(data) - begin)
    return bytes(data[begin : begin + first]) + bytes(data[: length - first])


def _mapped(fd: int) -> mmap.mmap:
    """The largest ring that this user may have. Raises OSError."""
    for pages in _DATA_PAGES[:-1]:
        with contextlib.suppress(PermissionError):
            return mmap.mmap(fd, (1 + pages) * _PAGE)
    return mmap.mmap(fd, (1 + _DATA_PAGES[-1]) * _PAGE)


@dataclass(slots=True)
class _OfCpu:
    """The ring of a CPU, the events of threads that are written into it, and which of these wakes whoever waits."""

    ring: _Ring
    fds: list[int] = field(default_factory=list)
    watched: int = 0

    @property
    def first(self) -> int:
        """The event whose ring it is; it stays open as long as the ring."""
        return self.fds[0]


class Sampling:
    """Samples of an event in the threads of processes, on all CPUs, also in threads that start later.

    Where that would take more descriptors than this process may have, whole CPUs are sampled (that needs CAP_PERFMON)
    and `read` gives samples of other processes, too. Raises MachineError with the reason where it cannot be.
    """

    def __init__(self, event: Event, pids: Sequence[int]) -> None:
        self.event = event
        self._cpus: dict[int, _OfCpu] = {}
        self._wakes = select.epoll()
        self.whole_cpus = False
        cpus = self._offering()
        try:
            try:
                for pid in pids:
                    self._open(pid, cpus)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                self._close_rings()
                self.whole_cpus = True
                for cpu in cpus:
                    self._add(-1, cpu)
        except OSError as error:
            self.close()
            raise MachineError(_why(event, error), where=WHERE) from None
        except BaseException:
            self.close()
            raise

    def add(self, pid: int) -> None:
        """Sample one more process, too. Raises MachineError where it cannot be; those before it stay."""
        try:
            if not self.whole_cpus:
                self._open(pid, self._offering())
        except OSError as error:
            raise MachineError(_why(self.event, error), where=WHERE) from None

    def _offering(self) -> list[int]:
        """The CPUs that have the event."""
        return [cpu for cpu in online_cpus() if not self.event.cpus or cpu in self.event.cpus]

    def _open(self, pid: int, cpus: Sequence[int]) -> None:
        known: set[int] = set()
        while new := _threads(pid) - known:  # some start while we are at it
            known |= new
            for thread in sorted(new):
                for cpu in cpus:
                    with contextlib.suppress(ProcessLookupError):  # it has ended
                        self._add(thread, cpu)

    def _add(self, thread: int, cpu: int) -> None:
        """One more event; the first of a CPU has the ring, the others write into it."""
        fd = _perf_event_open(_attributes(self.event, inherit=thread != -1), thread, cpu)
        try:
            of_cpu = self._cpus.get(cpu)
            if of_cpu is None:
                self._cpus[cpu] = of_cpu = _OfCpu(_AuxRing(fd) if self.event.aux else _Ring(fd))
            else:
                fcntl.ioctl(fd, _SET_OUTPUT, of_cpu.first)
        except BaseException:
            os.close(fd)
            raise
        of_cpu.fds.append(fd)
        if of_cpu.watched == len(of_cpu.fds) - 1:  # nobody would wake up for those before it: their threads have ended
            self._wakes.register(fd, select.EPOLLIN)
        fcntl.ioctl(fd, _ENABLE, 0)

    def fileno(self) -> int:
        """A descriptor that becomes readable when a ring is half full; `wake` is to be called then. -1: closed."""
        return -1 if self._wakes.closed else self._wakes.fileno()

    def wake(self) -> None:
        """Let `fileno` wait for the next time; the rings are read with `read`."""
        ended = {fd for fd, events in self._wakes.poll(0) if events & (select.EPOLLHUP | select.EPOLLERR)}
        if not ended:
            return
        for of_cpu in self._cpus.values():
            # The descriptor of a thread that has ended stays readable, and wakes nobody for the others of its ring.
            while of_cpu.watched < len(of_cpu.fds) and of_cpu.fds[of_cpu.watched] in ended:
                self._wakes.unregister(of_cpu.fds[of_cpu.watched])
                of_cpu.watched += 1
                if of_cpu.watched < len(of_cpu.fds):
                    self._wakes.register(of_cpu.fds[of_cpu.watched], select.EPOLLIN)

    def read(self) -> Samples:
        """What has been sampled since the last time."""
        return joined([of_cpu.ring.read() for of_cpu in self._cpus.values()])

    def close(self) -> None:
        """End the sampling."""
        self._close_rings()
        self._wakes.close()

    def _close_rings(self) -> None:
        for of_cpu in self._cpus.values():
            of_cpu.ring.close()
            for fd in of_cpu.fds:
                os.close(fd)
        self._cpus = {}


def _attributes(event: Event, *, inherit: bool) -> bytearray:
    flags = _DISABLED | _WATERMARK | _USE_CLOCKID | event.precise << _PRECISE_AT
    flags |= _INHERIT | _INHERIT_THREAD if inherit else 0
    flags |= 0 if event.kernel else _EXCLUDE_KERNEL | _EXCLUDE_HV
    flags |= _FREQ if event.freq else 0
    flags |= _SAMPLE_ID_ALL if event.aux else 0
    often = event.freq or event.period
    breakpoint_type = 0
    return bytearray(
        _ATTR.pack(
            *(event.type, _ATTR.size, event.config, often, _SAMPLE_TYPE, 0, flags, _WAKE_BYTES, breakpoint_type),
            *(event.config1, event.config2, 0, 0, 0, time.CLOCK_MONOTONIC, 0),
            *(_AUX_WAKE_BYTES if event.aux else 0, 0, 0),
        )
    )


def _perf_event_open(attributes: bytearray, thread: int, cpu: int) -> int:
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    fd = int(_syscall(_SYS_PERF_EVENT_OPEN, ctypes.addressof(buffer), thread, cpu, -1, _FLAG_FD_CLOEXEC))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def _why(event: Event, error: OSError) -> str:
    """What an error number of the system call, or of the mapping of its ring, means."""
    if error.errno in (errno.EACCES, errno.EPERM):
        try:
            level = read_text(_PARANOID).strip()
        except OSError:
            level = "?"
        return (
            f"{event.name} is not for this user, or not of that process (kernel.perf_event_paranoid is {level}); run "
            f"as root or with CAP_PERFMON"
        )
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
        return f"this processor, or its hypervisor, does not offer {event.name}"
    if error.errno == errno.EINVAL:
        return f"this kernel does not take {event.name} with these numbers (addresses of samples, Linux 5.13)"
    if error.errno == errno.EBUSY:
        return f"somebody else uses {event.name}"
    if error.errno == errno.ENOSYS:
        return "this kernel has none (CONFIG_PERF_EVENTS)"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{event.name} takes a descriptor for each thread and CPU, more than there may be (ulimit -n)"
    return f"{event.name} cannot be opened: {error.strerror}"


def _threads(pid: int) -> set[int]:
    """The threads of a process; none if it has ended."""
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except OSError:
        return set()
