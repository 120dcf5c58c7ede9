"""bpf(2), as much of it as the page-table walk needs. No library: four calls through ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import platform
from collections.abc import Callable

from pydamon.errors import MachineError
from pydamon.linux.texts import decode, read_lines, read_text

_SYS_BPF = 280 if platform.machine() == "aarch64" else 321
_MAP_CREATE, _PROG_LOAD, _PROG_TEST_RUN = 0, 5, 10
_MAP_TYPE_ARRAY = 2
_PROG_TYPE_SYSCALL = 31
_F_MMAPABLE = 1 << 10
_F_SLEEPABLE = 1 << 4
_LOG_BYTES = 1 << 16
_LICENSE = b"Dual MIT/GPL"  # bpf_probe_read_kernel may be called by GPL-compatible programs only

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong)


# Prefixes of union bpf_attr (include/uapi/linux/bpf.h); the kernel takes the missing rest for zero.
class _MapCreate(ctypes.Structure):
    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("map_name", ctypes.c_char * 16),
    )


class _ProgLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16),
    )


class _TestRun(ctypes.Structure):
    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


def unusable(reason: str) -> MachineError:
    """The error for "this primitive does not work here"; ``reason`` says why and what would enable it."""
    return MachineError(reason, where="bpf")


def create_map(value_size: int) -> int:
    """A file descriptor of a new array map with one value, which can be mapped into memory."""
    attr = _MapCreate(_MAP_TYPE_ARRAY, 4, value_size, 1, _F_MMAPABLE, map_name=b"pydamon_walk")
    fd = _bpf(_MAP_CREATE, attr)
    if fd < 0:
        raise _refused("create a map", ctypes.get_errno())
    return fd


def map_value(fd: int, value_size: int) -> mmap.mmap:
    """The value of ``create_map``'s map as memory, shared with the kernel."""
    try:
        return mmap.mmap(fd, value_size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:
        raise _refused("map the map's memory", error.errno or 0) from None


def load_program(instructions: bytes) -> int:
    """A file descriptor of a loaded BPF_PROG_TYPE_SYSCALL program; MachineError with the reason if it is refused."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    license_text = ctypes.create_string_buffer(_LICENSE)
    attr = _ProgLoad(
        prog_type=_PROG_TYPE_SYSCALL,
        insn_cnt=len(instructions) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(license_text),
        prog_flags=_F_SLEEPABLE,
        prog_name=b"pydamon_walk",
    )
    fd = _bpf(_PROG_LOAD, attr)
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number == errno.EPERM:
        raise _refused("load the program", number)
    # Once more, for the verifier's reason (a log that is not wanted costs time).
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attr.log_level, attr.log_size, attr.log_buf = 1, _LOG_BYTES, ctypes.addressof(log)
    fd = _bpf(_PROG_LOAD, attr)
    if fd >= 0:
        return fd
    raise _refused("load the program", number, log_tail(log.value))


def log_tail(log: bytes, limit: int = 200) -> str:
    """The end of a verifier log as one line of at most ``limit`` characters.

    Without its closing statistics, and the paragraphs in which Linux 7.3 says the same once more.
    """
    lines = [line.strip() for line in decode(log).partition("\nVerification failed:")[0].split("\n")]
    lines = [line for line in lines if line and not line.startswith(("processed ", "verification time", "stack depth"))]
    tail = "; ".join(lines[-3:])
    return tail if len(tail) <= limit else "…" + tail[1 - limit :]


class TestRun:
    """Runs a loaded program on demand; the argument block is built once."""

    __test__ = False  # not a pytest class, whatever its name

    def __init__(self, prog_fd: int) -> None:
        self._attr = _TestRun(prog_fd=prog_fd)
        self._at = ctypes.addressof(self._attr)
        self._size = ctypes.sizeof(self._attr)

    def __call__(self) -> None:
        """Run it once, to its end. MachineError if the kernel refuses."""
        while _syscall(_SYS_BPF, _PROG_TEST_RUN, self._at, self._size) < 0:
            number = ctypes.get_errno()
            if number not in (errno.EINTR, errno.EAGAIN):
                raise _refused("run the program", number)


class Loaded:
    """A loaded program and its map of one value of ``size`` bytes: ``memory`` is that value, ``run`` runs it once.

    ``assemble`` makes the instructions for the map's descriptor. Raises MachineError where the kernel refuses.
    """

    def __init__(self, size: int, assemble: Callable[[int], bytes]) -> None:
        self._map_fd = self._program_fd = -1
        try:
            self._map_fd = create_map(size)
            self._program_fd = load_program(assemble(self._map_fd))
            self.memory = map_value(self._map_fd, size)
            self.run = TestRun(self._program_fd)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unload it, and release the memory as soon as nothing looks into it any more. Closing again does nothing."""
        for fd in (self._program_fd, self._map_fd):
            if fd >= 0:
                os.close(fd)
        self._map_fd = self._program_fd = -1
        if hasattr(self, "memory"):
            with contextlib.suppress(BufferError):
                self.memory.close()


def _bpf(command: int, attr: ctypes.Structure) -> int:
    while True:
        result: int = _syscall(_SYS_BPF, command, ctypes.addressof(attr), ctypes.sizeof(attr))
        # The verifier gives up with EAGAIN when a signal is pending.
        if result >= 0 or ctypes.get_errno() not in (errno.EINTR, errno.EAGAIN):
            return result


def _refused(what: str, number: int, detail: str = "") -> MachineError:
    if number == errno.EPERM:
        needs = "run as root, or with CAP_BPF and CAP_PERFMON"
        state = _read_line("/proc/sys/kernel/unprivileged_bpf_disabled")
        if state not in ("", "0"):
            needs += f" (kernel.unprivileged_bpf_disabled is {state})"
        return unusable(f"no permission to {what}; {needs}")
    lockdown = _read_line("/sys/kernel/security/lockdown")
    if "[confidentiality]" in lockdown:
        return unusable(f"cannot {what}: the kernel is locked down ([confidentiality]), BPF may not read its memory")
    if number == errno.ENOSYS:
        return unusable(f"cannot {what}: this kernel was built without CONFIG_BPF_SYSCALL")
    if not _may_read_kernel():  # the verifier has several words for that
        return unusable(f"no permission to {what}, which reads kernel memory; run as root, or with CAP_PERFMON as well")
    reason = os.strerror(number)
    return unusable(f"the kernel refused to {what}: {reason}" + (f": {detail}" if detail else ""))


def _may_read_kernel() -> bool:
    """Whether this process has CAP_PERFMON, or CAP_SYS_ADMIN, which includes it (capability.h); True if unknown."""
    try:
        lines = read_lines("/proc/self/status")
        held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), -1)
    except (OSError, ValueError, IndexError):
        return True
    return bool(held & (1 << 38 | 1 << 21))


def _read_line(path: str) -> str:
    try:
        return read_text(path).partition("\n")[0].strip()
    except OSError:
        return ""
