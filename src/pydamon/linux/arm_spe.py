"""What Arm's Statistical Profiling Extension writes into its buffer: packets, which make a record of each operation.

From the sample record specification in the Arm Architecture Reference Manual. A packet is one header byte (two in the
extended format) and a payload of 1, 2, 4 or 8 bytes; a record ends with a timestamp or an end packet. Where packets
begin is only known from those before them: here the length of a packet is looked up for each byte of a buffer at once,
and the way from the first is followed by doubling steps, so that no packet is looked at alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

RETIRED = 1 << 1  # of the events: the operation was completed; others were begun in vain
_PAD, _END, _TIMESTAMP = 0x00, 0x01, 0x71
_EXTENDED = range(0x20, 0x24)  # another header byte follows
_DATA_VIRTUAL, _DATA_PHYSICAL = 2, 3  # indices of address packets
_MEMORY = 1  # the class of operations that load or store
_STORE = 1
_NONE, _KIND_END, _KIND_ADDRESS, _KIND_OPERATION, _KIND_EVENTS, _KIND_SOURCE = range(6)
_TAG = np.uint64(0xFF << 56)  # what an address has above bit 55 is a tag
_UPPER = np.uint64(1 << 55)
_PHYSICAL = np.uint64((1 << 56) - 1)
_MOST_PAYLOAD = 8


class Records(NamedTuple):
    """Operations that accessed memory, shape (n,): 0 stands for what a record does not have.

    ``address`` without its tag; ``events``: bits as the manual numbers them; ``source``: where data came from, by a
    number that each processor has its own of. ``damaged``: how often something was no packet (what came behind it is
    left out) or a record was cut off.
    """

    address: U64
    physical: U64
    is_store: NDArray[np.bool_]
    events: U64
    source: U64
    damaged: int = 0


def _table() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """By header byte: the length of the packet (0: there is none like it), and its kind."""
    length, kind = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    length[[_PAD, _END]] = 1
    kind[[_END, _TIMESTAMP]] = _KIND_END
    for header in range(256):
        # Bits 5 and 4 are the length of the payload, as a power of two.
        whole = 1 + (1 << (header >> 4 & 3))
        operation, context = header & 0xFC == 0x48, header & 0xFC == 0x64
        address, counter = header & 0xF8 == 0xB0, header & 0xF8 == 0x98
        events, source = header & 0xCF == 0x42, header & 0xCF == 0x43
        if operation or context or address or counter or events or source or header == _TIMESTAMP:
            length[header] = whole
        if operation:
            kind[header] = _KIND_OPERATION
        elif address:
            kind[header] = _KIND_ADDRESS
        elif events:
            kind[header] = _KIND_EVENTS
        elif source:
            kind[header] = _KIND_SOURCE
    return length, kind


_LENGTH, _KIND = _table()


def decode(data: bytes, offset: int = 0) -> Records:
    """The records of a piece of the buffer, which begins with a packet; ``offset`` is where the piece is."""
    size = len(data)
    octets = np.frombuffer(data + bytes(2 + _MOST_PAYLOAD), np.uint8)
    first = octets[:size]
    extended = (first >= _EXTENDED.start) & (first < _EXTENDED.stop)
    second = octets[1 : size + 1]
    header = np.where(extended, second, first)
    length = _LENGTH[header].astype(np.int64) + extended
    length[extended & (_LENGTH[second] == 0)] = 0
    aligning = extended & (second & 0xF0 == 0)  # up to a multiple of a power of two behind the beginning
    if aligning.any():
        at = np.flatnonzero(aligning)
        step = np.int64(1) << (second[at].astype(np.int64) + 1)
        length[at] = -(-(at + offset + 2) // step) * step - at - offset
    places = np.arange(size, dtype=np.int64)
    behind = places + length
    bad = (length == 0) | (behind > size)
    starts = _reached(np.where(bad, size, behind), size)
    damaged = bool(len(starts) and bad[starts[-1]])
    if damaged:
        starts = starts[:-1]
    starts = starts[~aligning[starts]]
    index = (header[starts] & 7) | np.where(extended[starts], (first[starts] & 3) << 3, 0).astype(np.uint8)
    kinds = _KIND[header[starts]]
    return _records(octets, starts + 1 + extended[starts], header[starts], index, kinds, damaged)


def _reached(behind: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Which places follow one from another, from 0 on; ``behind``: where each leads, ``size``: nowhere."""
    if not size:
        return np.empty(0, np.int64)
    jump = np.append(behind, size)
    found = np.zeros(size + 1, np.bool_)
    found[0] = True
    for _ in range(size.bit_length()):
        found[jump[np.flatnonzero(found)]] = True
        jump = jump[jump]
    return np.flatnonzero(found[:size])


def _records(
    octets: NDArray[np.uint8],
    payload: NDArray[np.int64],
    header: NDArray[np.uint8],
    index: NDArray[np.uint8],
    kinds: NDArray[np.uint8],
    damaged: bool,
) -> Records:
    ends = kinds == _KIND_END
    count = int(np.count_nonzero(ends))
    record = np.cumsum(ends) - ends  # those of what follows the last end have the number ``count``
    cut = bool(((header != _PAD) & (record == count)).any())
    words = _payloads(octets, payload, header)

    def column(chosen: NDArray[np.bool_]) -> U64:
        """The payloads of packets by record."""
        values = np.zeros(count + 1, np.uint64)
        values[record[chosen]] = words[chosen]
        return values[:count]

    addresses = kinds == _KIND_ADDRESS
    operations = (kinds == _KIND_OPERATION) & (header & 3 == _MEMORY)
    memory = np.zeros(count + 1, np.bool_)
    memory[record[operations]] = True
    virtual = column(addresses & (index == _DATA_VIRTUAL))
    kept = memory[:count] & (virtual != 0)
    virtual = np.where(virtual & _UPPER != 0, virtual | _TAG, virtual & ~_TAG)
    return Records(
        address=virtual[kept],
        physical=(column(addresses & (index == _DATA_PHYSICAL)) & _PHYSICAL)[kept],
        is_store=(column(operations) & np.uint64(_STORE) != 0)[kept],
        events=column(kinds == _KIND_EVENTS)[kept],
        source=column(kinds == _KIND_SOURCE)[kept],
        damaged=int(damaged or cut),
    )


def _payloads(octets: NDArray[np.uint8], at: NDArray[np.int64], header: NDArray[np.uint8]) -> U64:
    """The payloads as numbers, little-endian."""
    if not len(at):
        return np.empty(0, np.uint64)
    taken = np.lib.stride_tricks.sliding_window_view(octets, _MOST_PAYLOAD)[at]
    words: U64 = np.ascontiguousarray(taken).view("<u8").ravel().astype(np.uint64)
    bits = np.uint64(8) << (header >> 4 & 3).astype(np.uint64)
    return words & (np.uint64(2**64 - 1) >> (np.uint64(64) - bits))
