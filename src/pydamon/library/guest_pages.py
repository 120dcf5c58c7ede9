"""Which pages of a virtual machine's memory were accessed: all of them, told by the machine monitor's userfaultfd.

The monitor (VMM) hands over a userfaultfd of its own and where its guest's memory is, through a Unix socket: one
message with the descriptor (SCM_RIGHTS) and a list in JSON, as Firecracker sends it to a handler of page faults
(`LAYOUT`; docs/sources.md). From then on pages of the guest are protected and asked here, from outside; the guest
runs on, and pays one fault for each page that it accesses in an interval.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from pydamon import spans
from pydamon.errors import MachineError, RequestError, located
from pydamon.learned import learned
from pydamon.library.own_pages import PAGE_SIZE, ProtectedPages, Ranges
from pydamon.linux import userfaultfd
from pydamon.linux.causes import cause
from pydamon.linux.process import Process
from pydamon.linux.userfaultfd import ReadWriteProtection

WHERE = "guest memory"
MOST_BYTES = 1 << 16  # of a message
MOST_REGIONS = 256
_MOST_FDS = 8  # more than one are refused; they are taken so that they can be closed
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class Region(msgspec.Struct, frozen=True):
    """A part of the guest's memory: ``size`` bytes at ``offset`` of its memory, mapped in the VMM at an address."""

    base_host_virt_addr: int
    size: int
    offset: int


class GuestPages(ProtectedPages):
    """Watches the memory of a guest; see `ProtectedPages`. What it tells are offsets in the guest's memory, in bytes.

    ``fd`` is a userfaultfd of the process ``pid``, the VMM, and is taken over; `received` gets both from it. Raises
    RequestError for a layout that is none, MachineError where this kernel cannot, or the VMM may not be looked at.
    """

    def __init__(self, fd: int, regions: Sequence[Region], pid: int) -> None:
        try:
            _validate(regions)
            if not userfaultfd.is_one(fd):
                raise RequestError("the descriptor is no userfaultfd", where=WHERE)
            pagemap = _pagemap(pid)
        except BaseException:
            os.close(fd)
            raise
        self.regions = sorted(regions, key=lambda region: region.base_host_virt_addr)
        self.pid = pid
        held = [(r.base_host_virt_addr, r.base_host_virt_addr + r.size) for r in self.regions]
        try:
            super().__init__(ReadWriteProtection(held, fd), pagemap)
        except BaseException:
            os.close(pagemap)
            raise

    @classmethod
    def received(cls, path: str, *, patience_s: float = 60.0) -> GuestPages:
        """Listen at ``path`` (a new socket that only this user can connect to, removed again) for one VMM.

        It may belong to this user, or anybody's if this is root. Raises RequestError for a message that is none,
        MachineError if nobody comes, or not all of the message, within the time.
        """
        deadline = time.monotonic() + patience_s
        with _listening(path) as listener:
            try:
                listener.settimeout(max(patience_s, 0.001))  # 0 would be another mode
                connection, _ = listener.accept()
            except TimeoutError:
                raise MachineError(f"no machine monitor has come within {patience_s:g} s", where=path) from None
        with connection, located(path, ": "):
            pid, uid, _ = _CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if os.geteuid() not in (0, uid):
                raise RequestError(f"whoever has connected is another user ({uid})")
            if pid <= 0:
                raise MachineError("the process that has connected is not to be seen from here")
            fd, data = _message(connection, deadline)
            try:
                regions = _regions(data)
            except BaseException:
                os.close(fd)
                raise
            return cls(fd, regions, pid)

    def set_async(self, on: bool) -> None:
        """False: the guest waits at protected pages, so that what is cold can be taken away without racing it."""
        self._protection.set_async(on)

    def _told(self, ranges: Ranges) -> Ranges:
        parts = [np.empty((0, 2), np.uint64)]
        for region in sorted(self.regions, key=lambda region: region.offset):
            window = np.array([[region.base_host_virt_addr, region.base_host_virt_addr + region.size]], np.uint64)
            inside = spans.clipped(ranges, window)
            parts.append(inside - np.uint64(region.base_host_virt_addr) + np.uint64(region.offset))
        return spans.joined(np.concatenate(parts))


def _validate(regions: Sequence[Region]) -> None:
    if not 1 <= len(regions) <= MOST_REGIONS:
        raise RequestError(f"has {len(regions)} regions; it must be 1 to {MOST_REGIONS}", where=WHERE)
    for number, region in enumerate(regions):
        for name in ("base_host_virt_addr", "size", "offset"):
            value, least = getattr(region, name), int(name == "size")
            if not least <= value < 1 << 62 or value % PAGE_SIZE:
                said = str(value) if abs(value) < 1 << 64 else "far too large"
                raise RequestError(
                    f"is {said}; it must be whole pages of {PAGE_SIZE} bytes" + (", and one at least" if least else ""),
                    where=f"{WHERE}: [{number}].{name}",
                )
    for name in ("base_host_virt_addr", "offset"):
        held = sorted((getattr(region, name), region.size) for region in regions)
        if any(start < before + size for (before, size), (start, _) in pairwise(held)):
            raise RequestError(f"two regions overlap by their {name}", where=WHERE)


def _regions(data: bytes) -> list[Region]:
    try:
        return msgspec.json.decode(data, type=learned(list[Region]))
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestError(
            f"what was sent is no list of regions with base_host_virt_addr, size and offset: {error}"
        ) from None


def _pagemap(pid: int) -> int:
    """The pagemap of a process, by a descriptor that stays its own whatever its pid comes to stand for."""
    process = Process(pid)
    try:
        path = f"/proc/{pid}/pagemap"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            text = cause(error, "run as root or as its user", "it has ended")
            raise MachineError(f"cannot be opened: {text}", where=path) from None
        if not process.alive():
            os.close(fd)
            raise MachineError(f"process {pid} has ended", where=WHERE)
        return fd
    finally:
        process.close()


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    """A socket at ``path``, where nothing may be so far; removed in the end if it is still that one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        os.fchmod(listener.fileno(), 0o600)  # what is bound has the mode of the socket
        try:
            listener.bind(path)
        except (OSError, ValueError) as error:
            text = getattr(error, "strerror", None) or str(error)
            raise RequestError(f"cannot be listened at: {text}; name a path where nothing is", where=path) from None
        made = os.lstat(path)
        try:
            listener.listen(1)
            yield listener
        finally:
            with contextlib.suppress(OSError):
                now = os.lstat(path)
                if stat.S_ISSOCK(now.st_mode) and (now.st_dev, now.st_ino) == (made.st_dev, made.st_ino):
                    os.unlink(path)


def _message(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """The descriptor and the text: all of it once it is a whole value of JSON, however many pieces it comes in."""
    fds: list[int] = []
    data = b""
    try:
        while True:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                piece, more, flags, _ = socket.recv_fds(
                    connection, MOST_BYTES + 1 - len(data), _MOST_FDS, socket.MSG_CMSG_CLOEXEC
                )
            except TimeoutError:
                raise MachineError("the message was not complete in time", where=WHERE) from None
            fds += more
            data += piece
            if len(fds) > 1 or flags & socket.MSG_CTRUNC:
                raise RequestError("more than one descriptor was sent; it must be one, a userfaultfd", where=WHERE)
            if len(data) > MOST_BYTES:
                raise RequestError(f"the message has more than {MOST_BYTES} bytes", where=WHERE)
            if not piece or _whole(data):
                break
        if not fds:
            raise RequestError("no descriptor was sent; it must be one, a userfaultfd (SCM_RIGHTS)", where=WHERE)
        return fds.pop(), data
    finally:
        for fd in fds:
            os.close(fd)


def _whole(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
