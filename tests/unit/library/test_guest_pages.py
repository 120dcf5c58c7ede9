"""A virtual machine's memory by its monitor's userfaultfd: a child plays the monitor, and the kernel is a fake."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.waiting import listens, wait_until
from tests.unit.library.test_own_pages import AT, PAGE, Kernel

from pydamon import AccessReports, GuestPages
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.library.guest_pages import MOST_BYTES, Region
from pydamon.linux import pagemap_scan, userfaultfd
from pydamon.ops.reported.reports import NOT_ACCESSED_RANGE

pytestmark = pytest.mark.usefixtures("processes")
GIB = 1 << 30
# Two parts of a guest: the second half of its memory is mapped below the first. Unknown keys are Firecracker's.
LAYOUT = [
    {"base_host_virt_addr": AT + 32 * PAGE, "size": 16 * PAGE, "offset": 0, "page_size": PAGE},
    {"base_host_virt_addr": AT, "size": 16 * PAGE, "offset": 4 * GIB, "page_size_kib": 4096},
]
# Says "x" once its memory (of so many pages) is there, connects, and hands over a userfaultfd and where the memory is,
# or the layout that it is given; then it reads one page for each number that it is told.
MONITOR = """
import ctypes, fcntl, json, mmap, os, platform, socket, struct, sys
path, layout, pages = sys.argv[1], sys.argv[2], int(sys.argv[3])
memory = mmap.mmap(-1, pages * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(b"x" * pages * 4096)
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
number = 282 if platform.machine() == "aarch64" else 323
libc = ctypes.CDLL(None, use_errno=True)
fd = -1
for mode in (0, 1):
    if fd < 0:
        fd = libc.syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | mode)
if fd < 0:
    sys.exit(77)
text = layout or json.dumps([{"base_host_virt_addr": base, "size": pages * 4096, "offset": 1 << 20}])
with socket.socket(socket.AF_UNIX) as s:
    s.connect(path)
    half = len(text) // 2
    socket.send_fds(s, [text[:half].encode()], [fd])
    s.sendall(text[half:].encode())
    print("sent", flush=True)
    for line in sys.stdin:
        _ = memory[int(line) * 4096]
        print("read", flush=True)
"""


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    fake = Kernel()
    monkeypatch.setattr(userfaultfd, "fcntl", fake)
    monkeypatch.setattr(pagemap_scan, "fcntl", fake)
    yield fake
    assert fake.registered == []
    assert fake.protected == set()


@contextlib.contextmanager
def monitor(path: Path, layout: str, pages: int = 1) -> Iterator[subprocess.Popen[str]]:
    """A child that plays it, once somebody listens."""
    held: list[subprocess.Popen[str]] = []

    def begin() -> None:
        wait_until(lambda: listens(path))
        command = [sys.executable, "-c", MONITOR, str(path), layout, str(pages)]
        held.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    starter = threading.Thread(target=begin)
    starter.start()
    try:
        yield Waiting(starter, held)  # type: ignore[misc]
    finally:
        starter.join()
        for child in held:
            child.kill()
            child.communicate()


class Waiting:
    """The child, as soon as there is one."""

    def __init__(self, starter: threading.Thread, held: list[subprocess.Popen[str]]) -> None:
        self._starter, self._held = starter, held

    def __getattr__(self, name: str) -> Any:
        self._starter.join()
        return getattr(self._held[0], name)


def needs_userfaultfd() -> None:
    try:
        os.close(userfaultfd._open())
    except MachineError as error:
        pytest.skip(str(error))


def test_a_monitor_hands_over_and_pages_of_its_guest_tell(kernel: Kernel, tmp_path: Path) -> None:
    needs_userfaultfd()
    path = tmp_path / "s"
    kernel.touch(*range(4), *range(32, 40))
    reports = AccessReports()
    with monitor(path, json.dumps(LAYOUT)) as child, GuestPages.received(str(path)) as pages:
        assert pages.pid == child.pid
        assert not path.exists()
        pages.begin()
        kernel.touch(1, 32, 33)
        assert pages.accessed().tolist() == [[0, 2 * PAGE], [4 * GIB + PAGE, 4 * GIB + 2 * PAGE]]
        assert pages.cold().tolist() == [
            [2 * PAGE, 8 * PAGE],
            [4 * GIB, 4 * GIB + PAGE],
            [4 * GIB + 2 * PAGE, 4 * GIB + 4 * PAGE],
        ]
        pages.report(reports)
        assert pages.accessed().tolist() == []
    rows, _ = reports.take()
    told = sorted(zip(rows.address.tolist(), rows.size.tolist(), rows.flags.tolist(), strict=True))
    assert told[:2] == [(0, 2 * PAGE, 0), (2 * PAGE, 6 * PAGE, NOT_ACCESSED_RANGE)]


def sent(path: Path, send: Callable[[socket.socket], object], *, patience_s: float = 60) -> str:
    """What is said of a message that is none."""
    failed: list[PydamonError] = []

    def receive() -> None:
        try:
            GuestPages.received(str(path), patience_s=patience_s).close()
        except PydamonError as error:
            failed.append(error)

    receiver = threading.Thread(target=receive)
    receiver.start()
    wait_until(lambda: listens(path) or failed)
    with socket.socket(socket.AF_UNIX) as connection:
        with contextlib.suppress(OSError):  # it may have heard enough
            connection.connect(str(path))
            send(connection)
        receiver.join()
    assert not path.exists()
    (error,) = failed
    assert "\n" not in str(error)
    return str(error)


def with_layout(layout: object) -> Callable[[socket.socket], object]:
    def send(connection: socket.socket) -> None:
        fd = userfaultfd._open()
        socket.send_fds(connection, [json.dumps(layout).encode()], [fd])
        os.close(fd)

    return send


def one(**fields: object) -> list[dict[str, object]]:
    return [{"base_host_virt_addr": AT, "size": PAGE, "offset": 0} | fields]


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        ({}, "what was sent is no list of regions"),
        ([{"size": 1}], "what was sent is no list of regions"),
        (one(size="4096"), "what was sent is no list of regions"),
        (one(size=2**70), "[0].size: is far too large"),
        (one(size=10**4200), "[0]"),
        ([], "has 0 regions; it must be 1 to 256"),
        (one() * 257, "has 257 regions"),
        (one(size=0), "[0].size: is 0; it must be whole pages of 4096 bytes, and one at least"),
        (one(size=100), "[0].size: is 100"),
        (one(offset=-PAGE), "[0].offset: is -4096"),
        (one(base_host_virt_addr=2**62), "[0].base_host_virt_addr: is 4611686018427387904"),
        (one() * 2, "two regions overlap by their base_host_virt_addr"),
        (one() + one(base_host_virt_addr=AT + PAGE), "two regions overlap by their offset"),
    ],
)
def test_a_layout_that_is_none_is_refused_in_one_line(kernel: Kernel, tmp_path: Path, layout: object, why: str) -> None:
    needs_userfaultfd()
    assert why in sent(tmp_path / "s", with_layout(layout))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_messages_that_are_none_are_refused_and_no_descriptor_stays(kernel: Kernel, tmp_path: Path) -> None:
    needs_userfaultfd()
    before = descriptors()
    text = json.dumps(one()).encode()
    null = os.open(os.devnull, os.O_RDONLY)
    for send, why in (
        (lambda s: s.sendall(text), "no descriptor was sent"),
        (lambda s: socket.send_fds(s, [text], [null, null]), "more than one descriptor was sent"),
        (lambda s: socket.send_fds(s, [text], [null]), "the descriptor is no userfaultfd"),
        (lambda s: socket.send_fds(s, [text], [null] * 20), "more than one descriptor was sent"),
        (lambda s: socket.send_fds(s, [b"[" + b" " * MOST_BYTES], [null]), "has more than 65536 bytes"),
        (lambda s: (socket.send_fds(s, [b"[{"], [null]), s.shutdown(socket.SHUT_WR)), "is no list of regions"),
        (lambda s: s.shutdown(socket.SHUT_WR), "no descriptor was sent"),
    ):
        assert why in sent(tmp_path / "s", send)
    for patience_s in (0.5, 5, 30):  # on a busy machine its patience may be over before anybody comes
        said = sent(tmp_path / "s", lambda s: socket.send_fds(s, [b"[{"], [null]), patience_s=patience_s)
        if "no machine monitor has come" not in said:
            break
    assert "was not complete in time" in said
    os.close(null)
    assert descriptors() == before


def test_nobody_comes_and_a_path_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"no machine monitor has come within 0.01 s"):
        GuestPages.received(str(tmp_path / "s"), patience_s=0.01)
    with pytest.raises(MachineError, match=r"no machine monitor has come within 0 s"):
        GuestPages.received(str(tmp_path / "s"), patience_s=0)
    (tmp_path / "t").write_text("mine")
    with pytest.raises(RequestError, match="name a path where nothing is"):
        GuestPages.received(str(tmp_path / "t"))
    assert (tmp_path / "t").read_text() == "mine"
    with pytest.raises(RequestError, match="path"):
        GuestPages.received(str(tmp_path / ("x" * 200)))


def test_only_this_user_can_connect(tmp_path: Path) -> None:
    modes: list[int] = []

    def look() -> None:
        wait_until(lambda: listens(tmp_path / "s"))
        modes.append((tmp_path / "s").stat().st_mode & 0o777)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "s"))

    looker = threading.Thread(target=look)
    looker.start()
    with pytest.raises(RequestError, match="no descriptor was sent"):
        GuestPages.received(str(tmp_path / "s"))
    looker.join()
    assert modes == [0o600]


def test_a_kernel_without_it_says_so_and_nothing_stays_open(kernel: Kernel) -> None:
    needs_userfaultfd()
    kernel.offered = 0
    before = descriptors()
    with pytest.raises(MachineError, match="does not protect"):
        GuestPages(userfaultfd._open(), [Region(AT, PAGE, 0)], os.getpid())
    assert descriptors() == before


def test_the_real_kernel_tells_what_another_process_accesses(tmp_path: Path) -> None:
    """Linux 7.3, as in the lab; the child agrees on no features: that is done here."""
    try:
        userfaultfd.probe()
    except MachineError as error:
        pytest.skip(str(error))
    path = tmp_path / "s"
    with monitor(path, "", pages=16) as child, GuestPages.received(str(path)) as pages:
        to_child, from_child = child.stdin, child.stdout
        assert to_child is not None
        assert from_child is not None
        from_child.readline()
        pages.begin()
        for number in (3, 9):
            to_child.write(f"{number}\n")
            to_child.flush()
            from_child.readline()
        at = np.uint64(1 << 20)
        assert ((pages.accessed() - at) // PAGE).tolist() == [[3, 4], [9, 10]]
        assert ((pages.cold() - at) // PAGE).tolist() == [[0, 3], [4, 9], [10, 16]]
