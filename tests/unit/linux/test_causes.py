"""What is said of a file that the kernel refuses is the real cause, and helps."""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pydamon
from pydamon.errors import PydamonError
from pydamon.linux.causes import about, cause
from pydamon.linux.idle_bitmap import IdleBitmap, require_frame_flags
from pydamon.linux.page_flags import FrameFile
from pydamon.linux.pagemap import Pagemap
from pydamon.linux.process import Process
from pydamon.primitives.smaps import SmapsPrimitive

ROOT = Path(pydamon.__file__).parent


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_permission_is_the_remedy_for_a_lack_of_it_only() -> None:
    for number in errno.errorcode:
        told = cause(error(number), "run as root")
        assert told.startswith(os.strerror(number))
        assert ("run as root" in told) == (number in (errno.EPERM, errno.EACCES))
    assert cause(error(errno.ENOENT), "a", "it needs /proc") == "No such file or directory; it needs /proc"
    assert cause(error(errno.EMFILE), "").endswith("(ulimit -n)")
    assert cause(error(errno.ENFILE), "").endswith("(sysctl fs.file-max)")
    assert cause(error(errno.ENOSPC), "") == "No space left on device; the file system is full"


def test_an_error_of_a_descriptor_gets_a_path() -> None:
    with pytest.raises(OSError, match="'standard output'"), about("standard output"):
        raise error(errno.ENOSPC)
    with pytest.raises(FileNotFoundError, match="'a'"), about("standard output"):
        raise FileNotFoundError(errno.ENOENT, "No such file", "a")


@pytest.fixture(name="no_files_left")
def no_files_left_fixture() -> Iterator[None]:
    """This process may open nothing more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(highest + 8, before[0]), before[1]))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(name="process")
def process_fixture() -> Iterator[Process]:
    process = Process(os.getpid())
    yield process
    process.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda process: Process(process.pid),
        lambda process: Pagemap(process.pid),
        lambda process: SmapsPrimitive(process),
        lambda process: FrameFile("/proc/kpageflags"),
        lambda process: IdleBitmap("/proc/self/maps"),
        lambda process: require_frame_flags("/proc/self/maps"),
        lambda process: process.mappings(),
        lambda process: process.check_readable(),
    ],
)
def test_too_many_open_files_are_no_lack_of_permission(
    make: Callable[[Process], object], process: Process, no_files_left: None
) -> None:
    with pytest.raises((PydamonError, OSError), match="Too many open files") as caught:
        make(process)
    assert "run as" not in str(caught.value)


def test_nobody_gives_permission_as_the_remedy_for_everything() -> None:
    wrong = re.compile(r"error\.strerror\}[^\"]*(run as|needs|mount)")
    found = [str(file.relative_to(ROOT)) for file in sorted(ROOT.rglob("*.py")) if wrong.search(file.read_text())]
    assert found == []
