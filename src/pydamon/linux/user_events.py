"""Trace events of user space: what ``perf record -e user_events:NAME`` and ``trace-cmd`` see of this process.

The interface is documented in the kernel's ``Documentation/trace/user_events.rst`` (Linux 6.4, CONFIG_USER_EVENTS): an
event is registered by an ioctl, the kernel sets a bit in our memory while somebody listens, and each event is one
write. An event is gone when the last process that has registered it closes the file.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from pydamon.errors import MachineError

FILE = "user_events_data"
_REG = struct.Struct("=IBBHQQI")  # size, enable_bit, enable_size, flags, enable_addr, name_args, write_index
_UNREG = struct.Struct("=IBBHQ")  # size, disable_bit, reserved, reserved, disable_addr
_WRITE, _READ = 1, 2


def _ioctl(direction: int, number: int) -> int:
    """The kernel's _IOC of a pointer, of the type '*'."""
    return direction << 30 | 8 << 16 | ord("*") << 8 | number


_IOCSREG = _ioctl(_READ | _WRITE, 0)
_IOCSUNREG = _ioctl(_WRITE, 2)


def probe(root: str = "/sys/kernel/tracing") -> None:
    """Raise MachineError if this kernel offers no user events, or not to this user."""
    path = f"{root}/{FILE}"
    if not os.path.exists(path):
        raise MachineError("is not there (CONFIG_USER_EVENTS, Linux 6.4, a mounted tracefs)", where=path)
    if not os.access(path, os.R_OK | os.W_OK):
        raise MachineError("is not for this user; run as root", where=path)


class UserEvent:
    """One registered event; ``fields`` like ``u64 start;u32 age``, without padding in the payload.

    Raises MachineError if it cannot be registered.
    """

    def __init__(self, name: str, fields: str, *, root: str = "/sys/kernel/tracing") -> None:
        probe(root)
        self.name = name
        self._enabled = ctypes.c_uint32(0)  # the kernel writes to it: it lives as long as the registration
        try:
            self._fd = os.open(f"{root}/{FILE}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise MachineError(f"cannot be opened: {error.strerror}", where=f"{root}/{FILE}") from None
        description = ctypes.create_string_buffer(f"{name} {fields}".encode())
        request = bytearray(
            _REG.pack(_REG.size, 0, 4, 0, ctypes.addressof(self._enabled), ctypes.addressof(description), 0)
        )
        try:
            fcntl.ioctl(self._fd, _IOCSREG, request)
        except OSError as error:
            os.close(self._fd)
            why = "it exists already, with other fields" if error.errno == errno.EADDRINUSE else error.strerror
            raise MachineError(f"cannot be registered: {why}", where=f"user_events:{name}") from None
        self._index = struct.pack("=I", _REG.unpack(request)[6])

    @property
    def enabled(self) -> bool:
        """Whether somebody listens."""
        return bool(self._enabled.value & 1)

    def write(self, payload: bytes) -> None:
        """One event. It is no error if nobody listens any more."""
        try:
            os.writev(self._fd, (self._index, payload))
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOENT, errno.EFAULT):
                raise

    def close(self) -> None:
        """Unregister; the kernel forgets the event if nobody else has it."""
        try:
            fcntl.ioctl(self._fd, _IOCSUNREG, _UNREG.pack(_UNREG.size, 0, 0, 0, ctypes.addressof(self._enabled)))
        except OSError:
            pass  # the kernel does it when the process ends
        finally:
            os.close(self._fd)
