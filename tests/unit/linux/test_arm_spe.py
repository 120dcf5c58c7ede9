"""Arm's SPE: packets built by hand from the manual's layout, a published dump, damage, and the way through AUX areas.

No test machine has SPE: the kernel's side is a file that is mapped where the rings would be, filled as the manual page
perf_event_open(2) says.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.linux import arm_spe, perf_event, perf_pmu
from pydamon.linux.arm_spe import decode
from pydamon.linux.perf_event import Event, Sampling

PAGE = mmap.PAGESIZE
EVENTS, SOURCE, OPERATION, ADDRESS, COUNTER, CONTEXT = 0x42, 0x43, 0x48, 0xB0, 0x98, 0x64
END, PAD = b"\x01", b"\x00"
# The message of Linux' commit "perf tools: Add ARM Statistical Profiling Extensions (SPE) support" shows these bytes of
# a record, and what they are: a load of virtual address 0xffff00000f293bc0, retired, with L1D and TLB access.
DUMP = bytes.fromhex(
    "49 00  b2 c0 3b 29 0f 00 00 ff ff  b3 c0 eb 24 fb 00 00 00 80  9a 00 00  42 16"
    "b0 00 c4 15 08 00 00 ff ff  98 00 00  71 36 6c 21 2c 09 00 00 00"
)


def packet(kind: int, value: int, octets: int, index: int = 0) -> bytes:
    """Header 0bxxSSyyyy, S the length as a power of two; an index beyond 7 is in an extended header."""
    header = kind & ~0x30 | (octets.bit_length() - 1) << 4 | index & 7
    return bytes([0x20 | index >> 3] if index > 7 else []) + bytes([header]) + value.to_bytes(octets, "little")


def record(address: int, *, store: bool = False, events: int = 0x16, source: int = 0, end: bytes = END) -> bytes:
    return (
        packet(ADDRESS, 0xFFFF_8000_1234_0000, 8, 0)  # of the instruction
        + packet(CONTEXT, 4711, 4, 1)
        + packet(OPERATION, int(store), 1, 1)
        + packet(COUNTER, 12, 2, 9)  # extended
        + packet(EVENTS, events, 2)
        + packet(SOURCE, source, 1)
        + packet(ADDRESS, address, 8, 2)
        + end
    )


def branch() -> bytes:
    return packet(OPERATION, 1, 1, 2) + packet(ADDRESS, 0x1000, 8, 0) + packet(ADDRESS, 0x2000, 8, 1) + END


def test_a_published_dump_is_understood() -> None:
    found = decode(DUMP)
    assert [hex(a) for a in found.address.tolist()] == ["0xffff00000f293bc0"]
    assert [hex(a) for a in found.physical.tolist()] == ["0xfb24ebc0"]
    assert (found.is_store.tolist(), found.events.tolist(), found.damaged) == ([False], [0x16], 0)


def test_loads_and_stores_among_others() -> None:
    data = (
        record(0x7F00_1000)
        + branch()
        + PAD * 5
        + record(0x7F00_2000, store=True, events=2, source=0xD, end=packet(0x71, 99, 8))
        + record(0x5A00_0000_7F00_3000)  # with a tag
        + packet(OPERATION, 0, 1, 1)
        + END  # a load without its address
    )
    found = decode(data)
    assert found.address.tolist() == [0x7F00_1000, 0x7F00_2000, 0x0000_0000_7F00_3000]
    assert found.is_store.tolist() == [False, True, False]
    assert found.events.tolist() == [0x16, 2, 0x16]
    assert found.source.tolist() == [0, 0xD, 0]
    assert found.damaged == 0


@pytest.mark.parametrize("before", range(9))
def test_a_record_begins_at_a_multiple_where_it_is_aligned(before: int) -> None:
    """0x20, and the power of two less one: up to a multiple of 64 in the buffer, wherever this piece of it is."""
    gap = (-(before + 2)) % 64
    data = bytes([0x20, 0x05]) + b"\xff" * gap + record(0x1234_5000)
    assert decode(data, before).address.tolist() == [0x1234_5000]


def test_what_is_no_packet_ends_the_piece_and_is_counted() -> None:
    for nonsense in (b"\xff", b"\x20\xff", b"\x20", b"\xb2\x01"):
        found = decode(record(0x1000) + nonsense + b"")
        assert (found.address.tolist(), found.damaged) == ([0x1000], 1), nonsense
    assert decode(record(0x1000) + record(0x2000)[:-1]).damaged == 1  # without its end
    assert decode(b"").damaged == decode(PAD * 100).damaged == 0


KNOWN = (0xFC, 0x48), (0xFC, 0x64), (0xF8, 0xB0), (0xF8, 0x98), (0xCF, 0x42), (0xCF, 0x43), (0xFF, 0x71)


def literally(data: bytes) -> list[tuple[int, bool]]:
    """One packet after the other, as the manual says it: addresses of loads and stores, and whether they stored."""
    found, at = [], 0
    address, operation = 0, -1
    while at < len(data):
        begin, high = at, 0
        header = data[at]
        if header & 0xFC == 0x20:
            if at + 1 >= len(data):
                break
            high, header, at = (header & 3) << 3, data[at + 1], at + 1
            if header & 0xF0 == 0:
                step = 2 << header
                at = -(-(begin + 2) // step) * step
                continue
        elif header == 0:
            at += 1
            continue
        octets = 1 << (header >> 4 & 3)
        known = [header & mask == value for mask, value in KNOWN]
        if header == 1:
            octets = 0
        elif not any(known):
            break
        if at + 1 + octets > len(data):
            break
        value = int.from_bytes(data[at + 1 : at + 1 + octets], "little")
        if known[2] and header & 7 | high == 2:
            address = value
        if known[0] and header & 3 == 1:
            operation = value
        if header in (1, 0x71):
            if operation >= 0 and address:
                upper = address >> 55 & 1
                found.append((address & ~(0xFF << 56) | (0xFF << 56) * upper, bool(operation & 1)))
            address, operation = 0, -1
        at += 1 + octets
    return found


pieces = st.one_of(
    st.builds(record, st.integers(0, 2**64 - 1), store=st.booleans(), events=st.integers(0, 2**16 - 1)),
    st.just(branch()),
    st.binary(max_size=12),
    st.just(PAD * 3),
)


@given(st.lists(pieces, max_size=30))
def test_any_bytes_are_decoded_as_one_packet_after_the_other_would_be(parts: list[bytes]) -> None:
    data = b"".join(parts)
    found = decode(data)
    assert list(zip(found.address.tolist(), found.is_store.tolist(), strict=True)) == literally(data)


# -- through the rings ------------------------------------------------------------------------------------------------


class Wakes:
    """In place of an epoll, which takes no files."""

    closed = False

    def register(self, fd: int, events: int) -> None: ...

    def close(self) -> None:
        self.closed = True


class Kernel:
    """The kernel's side of the mapping: a file with the control page, the ring, and behind it the AUX area."""

    def __init__(self) -> None:
        self.size = (1 + 1024 + perf_event._AUX_PAGES) * PAGE
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, self.size)
        self.memory = mmap.mmap(self.fd, self.size)
        self.control = np.frombuffer(self.memory, np.uint64, PAGE // 8)
        self.attributes = b""

    def open(self, attributes: bytearray, thread: int, cpu: int) -> int:
        self.attributes = bytes(attributes)
        return os.dup(self.fd)

    def write(self, data: bytes, *, at: int, flags: int = 0, pid: int = 7, when: int = 5, length: int = -1) -> None:
        """Data in the AUX area from ``at`` on, and the record that says so (PERF_RECORD_AUX, and struct sample_id)."""
        base, size = int(self.control[1072 // 8]), int(self.control[1080 // 8])
        for number, octet in enumerate(data):
            self.memory[base + (at + number) % size] = octet
        told = struct.pack(
            "=IHHQQQIIQII", 11, 0, 56, at, len(data) if length < 0 else length, flags, pid, 8, when, 3, 0
        )
        head = int(self.control[1024 // 8])
        self.memory[PAGE + head : PAGE + head + 56] = told
        self.control[1024 // 8] = head + 56


@pytest.fixture(name="kernel")
def kernel_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel()
    monkeypatch.setattr(perf_event, "_perf_event_open", kernel.open)
    monkeypatch.setattr(perf_event, "online_cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: 0)
    monkeypatch.setattr(select, "epoll", Wakes)
    yield kernel
    os.close(kernel.fd)


SPE = Event("arm_spe", 9, 7, period=65536, aux=True, cpus=(3,))


def test_what_spe_writes_into_its_buffer_becomes_samples(kernel: Kernel) -> None:
    sampling = Sampling(SPE, [os.getpid()])
    assert list(sampling._cpus) == [3]  # the others do not have it
    data = record(0x7000, store=True) + record(0x8000) + record(0x9000, events=0)
    data += record(0xA000, events=1 << 2)  # not retired
    kernel.write(data, at=0)
    kernel.write(b"", at=len(data))
    found = sampling.read()
    assert found.address.tolist() == [0x7000, 0x8000, 0x9000]
    assert found.is_write.tolist() == [True, False, False]
    assert set(found.pid.tolist()) == {7}
    assert (set(found.thread.tolist()), set(found.when_ns.tolist()), set(found.cpu.tolist())) == ({8}, {5}, {3})
    assert found.lost == 0
    assert int(kernel.control[1064 // 8]) == len(data)  # the room is the kernel's again
    sampling.close()


def test_the_buffer_begins_anew_at_its_end_and_what_was_cut_is_counted(kernel: Kernel) -> None:
    sampling = Sampling(SPE, [os.getpid()])
    data = record(0x7000) + record(0x8000)
    at = 3 * perf_event._AUX_PAGES * PAGE - 30
    kernel.write(data, at=at)
    kernel.write(record(0xB000)[:-5], at=at + len(data), flags=1)
    kernel.write(b"", at=at, length=1 << 60)
    found = sampling.read()
    assert found.address.tolist() == [0x7000, 0x8000]
    assert found.lost == 3
    sampling.close()


def test_the_kernel_is_asked_for_what_documents_say(kernel: Kernel, tmp_path: Path) -> None:
    """perf_event_attr: config by the PMU's format files, sample_id_all (bit 18 of the flags), aux_watermark."""
    for name, text in {
        "type": "9\n",
        "cpumask": "2-3\n",
        "format/load_filter": "config:33\n",
        "format/store_filter": "config:34\n",
        "format/jitter": "config:16\n",
    }.items():
        (tmp_path / "arm_spe_0" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "arm_spe_0" / name).write_text(text)
    event = perf_pmu.event("arm_spe", tmp_path)
    assert (event.type, event.config, event.period, event.aux, event.cpus) == (9, 0x6_0001_0000, 65536, True, (2, 3))
    assert perf_pmu.event("", tmp_path) == event
    Sampling(event, [os.getpid()]).close()
    fields = struct.unpack("=IIQQQQQIIQQQQIiQIHH", kernel.attributes)
    assert (fields[0], fields[2], fields[3]) == (9, 0x6_0001_0000, 65536)
    assert fields[6] >> 18 & 1
    assert fields[16] == 64 * PAGE
    assert arm_spe.RETIRED == 2
