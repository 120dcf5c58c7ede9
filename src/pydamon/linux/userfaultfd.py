"""userfaultfd's read-write protection (RWP): pages of this process that say whether they were accessed (Linux 7.3).

Protected pages fault at the next access of any kind; in the asynchronous mode the kernel lifts the protection there and
then, wakes nobody, and PAGEMAP_SCAN tells which pages were accessed (`pagemap_scan.accessed`). It is about pages that
are in memory: what is populated later counts as accessed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import struct

from pydamon.errors import MachineError
from pydamon.linux.causes import cause

WHERE = "userfaultfd"
FEATURE_RWP, FEATURE_RWP_ASYNC = 1 << 17, 1 << 18
_REGISTER_MODE_RWP = 1 << 3
_RWPROTECT_MODE_RWP = 1 << 0
_API_VERSION = 0xAA
_SYS_USERFAULTFD = 282 if platform.machine() == "aarch64" else 323
_USER_MODE_ONLY = 1  # what an ordinary user may have

_API = struct.Struct("=QQQ")  # version, features, ioctls
_RANGE = struct.Struct("=QQ")  # start, length
_REGISTER = struct.Struct("=QQQQ")  # start, length, mode, ioctls
_RWPROTECT = struct.Struct("=QQQ")  # start, length, mode
_SET_MODE = struct.Struct("=QQ")  # features to enable, to disable


def _ioc(direction: int, size: int, number: int) -> int:
    """The kernel's _IOC, of userfaultfd's type."""
    return direction << 30 | size << 16 | _API_VERSION << 8 | number


UFFDIO_API = _ioc(3, _API.size, 0x3F)
UFFDIO_REGISTER = _ioc(3, _REGISTER.size, 0x00)
UFFDIO_UNREGISTER = _ioc(2, _RANGE.size, 0x01)
UFFDIO_RWPROTECT = _ioc(3, _RWPROTECT.size, 0x09)
UFFDIO_SET_MODE = _ioc(1, _SET_MODE.size, 0x0A)

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_ulong)


def features() -> int:
    """What this kernel's userfaultfd can do, by a descriptor that is thrown away; MachineError if there is none."""
    fd = _open()
    try:
        return _negotiate(fd, 0)
    finally:
        os.close(fd)


def probe() -> None:
    """Raise MachineError unless pages can be protected against any access, asynchronously."""
    if features() & (FEATURE_RWP | FEATURE_RWP_ASYNC) != FEATURE_RWP | FEATURE_RWP_ASYNC:
        raise MachineError(
            "this kernel's userfaultfd does not protect against reading (CONFIG_USERFAULTFD_RWP, Linux 7.3)",
            where=WHERE,
        )


def is_one(fd: int) -> bool:
    """Whether the descriptor is a userfaultfd."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[userfaultfd]"
    except OSError:
        return False


class ReadWriteProtection:
    """Ranges of this process, given by start and end (page-aligned bytes), that can be protected again and again.

    With ``fd``, a userfaultfd of another process (taken over), they are ranges of that process. Raises MachineError
    where the kernel cannot, or refuses a range: one without memory, or in use by another userfaultfd. `close` lifts all
    protection.
    """

    def __init__(self, ranges: list[tuple[int, int]], fd: int | None = None) -> None:
        self.ranges = ranges
        self._fd = -1 if fd is None else fd
        try:
            probe()
            if fd is None:
                self._fd = _open()
            # One that was handed over may have agreed already, which is done once; what it lacks shows below.
            with contextlib.nullcontext() if fd is None else contextlib.suppress(MachineError):
                _negotiate(self._fd, FEATURE_RWP | FEATURE_RWP_ASYNC)
            for start, end in ranges:
                request = bytearray(_REGISTER.pack(start, end - start, _REGISTER_MODE_RWP, 0))
                self._ask(UFFDIO_REGISTER, request, f"{start:#x}-{end:#x}", "cannot be watched")
        except BaseException:
            self.close()
            raise

    def protect(self) -> None:
        """From now on each page that is in memory tells whether it was accessed."""
        for start, end in self.ranges:
            request = bytearray(_RWPROTECT.pack(start, end - start, _RWPROTECT_MODE_RWP))
            self._ask(UFFDIO_RWPROTECT, request, f"{start:#x}-{end:#x}", "cannot be protected")

    def set_async(self, on: bool) -> None:
        """False: whoever accesses a protected page waits from now on, until this is True again.

        For who takes cold memory away and must not be raced: a monitor of a virtual machine's memory, from outside of
        the threads that access it.
        """
        enable, disable = (FEATURE_RWP_ASYNC, 0) if on else (0, FEATURE_RWP_ASYNC)
        self._ask(UFFDIO_SET_MODE, bytearray(_SET_MODE.pack(enable, disable)), WHERE, "cannot change its mode")

    def _ask(self, request: int, argument: bytearray, where: str, what: str) -> None:
        try:
            fcntl.ioctl(self._fd, request, argument)
        except OSError as error:
            remedy = {
                errno.EINVAL: "it must be mapped, page-aligned and accessible",
                errno.EBUSY: "another userfaultfd has it",
                errno.ENOENT: "a part of it is not mapped any more",
                errno.EAGAIN: "its mappings are changing; try again",
            }.get(error.errno or 0)
            raise MachineError(f"{what}: {remedy or error.strerror}", where=where) from None

    def close(self) -> None:
        """Lift all protection; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            for start, end in self.ranges:
                with contextlib.suppress(OSError):  # it is not mapped any more, or was never registered
                    fcntl.ioctl(fd, UFFDIO_UNREGISTER, bytearray(_RANGE.pack(start, end - start)))
            os.close(fd)


def _open() -> int:
    """A new userfaultfd, for faults of the kernel, too, where this user may have that."""
    for flags in (0, _USER_MODE_ONLY):
        fd = int(_syscall(_SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | flags))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number != errno.EPERM:
            break
    if number == errno.ENOSYS:
        raise MachineError("this kernel has none (CONFIG_USERFAULTFD)", where=WHERE)
    error = OSError(number, os.strerror(number))
    raise MachineError(f"cannot be opened: {cause(error, 'vm.unprivileged_userfaultfd, or root')}", where=WHERE)


def _negotiate(fd: int, wanted: int) -> int:
    """Agree on features; returns those that the kernel has."""
    request = bytearray(_API.pack(_API_VERSION, wanted, 0))
    try:
        fcntl.ioctl(fd, UFFDIO_API, request)
    except OSError as error:
        raise MachineError(f"does not take these features: {error.strerror}", where=WHERE) from None
    found: int = _API.unpack(request)[1]
    return found
