"""The smaps primitive: parsing, what it answers, and that it needs no privilege."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from pydamon.errors import MachineError
from pydamon.linux.clear_refs import tracks_soft_dirty
from pydamon.linux.process import Process
from pydamon.primitives.base import ACCESSED, UNKNOWN
from pydamon.primitives.smaps import SmapsPrimitive, parse_smaps, uncounted

# proc_pid_smaps(5), shortened; the second mapping's name looks like a line of its own
SMAPS = b"""\
55d0c7a00000-55d0c7a02000 r--p 00000000 fe:00 26723                      /usr/bin/x
Size:                  8 kB
Rss:                   8 kB
Referenced:            4 kB
VmFlags: rd mr mw me sd
7f0000000000-7f0000100000 rw-p 00000000 00:00 0                          [anon:Referenced: 9 kB]
Size:               1024 kB
Referenced:          512 kB
THPeligible:           0
VmFlags: rd wr mr mw me ac sd
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
Size:                  4 kB
Rss:                   0 kB
Referenced:            0 kB
VmFlags: ex
"""


def test_referenced_bytes_of_each_mapping() -> None:
    start, end, referenced, resident = parse_smaps(SMAPS)
    assert start.tolist() == [0x55D0C7A00000, 0x7F0000000000, 0xFFFFFFFFFF600000]
    assert end.tolist() == [0x55D0C7A02000, 0x7F0000100000, 0xFFFFFFFFFF601000]
    assert referenced.tolist() == [4096, 512 * 1024, 0]
    # a mapping that does not say what is resident counts as all resident
    assert resident.tolist() == [8192, 1 << 20, 0]


def test_mappings_of_which_nothing_is_counted() -> None:
    """Huge pages of hugetlbfs (ht) and frames without struct pages (pf); the first mapping, too, can be one."""
    text = SMAPS.replace(b"rd wr mr mw me ac sd", b"rd wr mr mw me ht sd").replace(b"VmFlags: ex", b"VmFlags: ex pf")
    assert uncounted(text).tolist() == [0x7F0000000000, 0xFFFFFFFFFF600000]
    assert uncounted(SMAPS.replace(b"rd mr mw me sd", b"rd pf")).tolist() == [0x55D0C7A00000]
    assert uncounted(SMAPS).tolist() == uncounted(b"").tolist() == []


def test_of_those_mappings_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(os.getpid())
    try:
        primitive = SmapsPrimitive(process)
        text = SMAPS.replace(b"rd wr mr mw me ac sd", b"rd ht")
        monkeypatch.setattr(primitive, "_read", lambda: text)
        addresses = np.array([0x55D0C7A00000, 0x7F0000000000, 0x7F00000FF000, 0x7F0000100000], np.uint64)
        primitive.prepare(addresses)
        for _ in range(5):
            assert (primitive.check() == UNKNOWN).tolist() == [False, True, True, False]
        primitive.close()
    finally:
        process.close()


def test_nothing_of_nothing() -> None:
    assert [len(part) for part in parse_smaps(b"")] == [0, 0, 0, 0]


def test_equals_what_a_plain_reading_of_this_process_says() -> None:
    with open("/proc/self/smaps", "rb") as file:
        text = file.read()
    start, end, referenced, resident = parse_smaps(text)
    plain = [line.split() for line in text.decode(errors="replace").splitlines()]
    assert referenced.tolist() == [int(words[1]) * 1024 for words in plain if words[0] == "Referenced:"]
    assert resident.tolist() == [int(words[1]) * 1024 for words in plain if words[0] == "Rss:"]
    assert (end - start).tolist() == [int(words[1]) * 1024 for words in plain if words[0] == "Size:"]


TOUCHER = """
import mmap, sys
hot = [mmap.mmap(-1, 1 << 20) for _ in range(3)]
import ctypes
a = [ctypes.addressof(ctypes.c_char.from_buffer(m)) for m in hot]
for m in hot:
    for i in range(0, 1 << 20, 4096): m[i] = 1
print(*a, flush=True)
for line in sys.stdin:
    which, pages = map(int, line.split())
    for i in range(pages): hot[which][i * 4096] = 2
    print("done", flush=True)
"""


@pytest.fixture
def toucher(processes: None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", TOUCHER], stdin=-1, stdout=-1, text=True)
    yield process
    process.kill()
    process.communicate()


def touch(process: subprocess.Popen[str], which: int, pages: int) -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{which} {pages}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_the_answer_is_the_referenced_share_of_the_mapping(toucher: subprocess.Popen[str]) -> None:
    assert toucher.stdout
    first = int(toucher.stdout.readline().split()[0])
    process = Process(toucher.pid)
    primitive = SmapsPrimitive(process)
    (span,) = [m for m in process.mappings() if m.start <= first < m.end]
    pages = np.arange(span.start, span.end, 4096, dtype=np.uint64)
    accessed = 0
    for _ in range(40):
        assert primitive.prepare(pages).all()
        touch(toucher, 0, 64)
        answers = primitive.check()
        assert len(set(answers.tolist())) == 1  # one answer for the whole mapping
        accessed += int(answers[0] == ACCESSED)
    # 64 of 256 pages were touched. Where the TLB cannot be flushed (see clear_refs) some of them are not seen.
    expected = 40 * 64 / len(pages)
    assert accessed <= expected + 2
    if not tracks_soft_dirty():
        assert accessed >= expected - 2
    assert primitive.cost.clears == 40
    assert primitive.cost.clear_ns > 0
    primitive.close()
    process.close()


def test_of_resident_pages_it_is_the_referenced_share_of_what_is_resident() -> None:
    with mmap.mmap(-1, 64 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        madvise = getattr(mmap, "MADV_NOHUGEPAGE", None)
        if madvise is not None:
            area.madvise(madvise)
        view = ctypes.c_char.from_buffer(area)
        page = np.array([ctypes.addressof(view)], np.uint64)
        del view
        area[0] = 1
        process = Process(os.getpid())
        primitives = [SmapsPrimitive(process), SmapsPrimitive(process, resident_only=True)]
        counts = [0, 0]
        for _ in range(20):
            for which, primitive in enumerate(primitives):
                primitive.prepare(page)
                area[0] = 2
                counts[which] += int(primitive.check()[0] == ACCESSED)
        # One page of at least 64, and all of what is resident. (Neighbours may have been merged into this mapping.)
        assert counts[0] < counts[1]
        if not tracks_soft_dirty():
            assert counts[1] > 0
        for primitive in primitives:
            primitive.close()
        process.close()


def test_an_ended_process_gives_no_answers(toucher: subprocess.Popen[str]) -> None:
    process = Process(toucher.pid)
    primitive = SmapsPrimitive(process)
    toucher.kill()
    toucher.wait()
    primitive.prepare(np.array([0x1000], np.uint64))
    assert primitive.check().tolist() == [UNKNOWN]
    primitive.update()
    assert primitive.check().tolist() == [UNKNOWN]
    primitive.close()
    process.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.usefixtures("processes")
def test_anothers_process_is_refused_in_one_line() -> None:
    # Runs as nobody (keeping only the right to read this Python's files) and asks for a process of root.
    script = (
        "import os, sys; from pydamon.linux.process import Process; from pydamon.primitives.smaps import *\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: SmapsPrimitive(Process({os.getpid()}))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MachineError")
    assert "run as its owner or as root" in done.stdout
    assert MachineError.exit_status == 3


def test_holes_between_mappings_are_not_accessed() -> None:
    with mmap.mmap(-1, 4096):
        process = Process(os.getpid())
        primitive = SmapsPrimitive(process)
        primitive.prepare(np.array([0, 0x1000, 2**63], np.uint64))
        assert primitive.check().tolist() == [0, 0, 0]
        primitive.close()
        process.close()
