"""Whose memory a page frame is: frame → (process, address), built in user space from the pagemaps of all processes.

What it says is as old as its last refresh; a page may have been moved, freed or swapped since. Frames of the page cache
that nobody maps, and the kernel's own, belong to nobody here. Needs root (frame numbers).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, RequestError
from pydamon.linux import pagemap as pagemap_file
from pydamon.linux.frames import Frames
from pydamon.linux.pagemap import Pagemap, frames_of, is_present
from pydamon.linux.pagemap_scan import resident_ranges
from pydamon.linux.process import Mapping, Process, parse_maps
from pydamon.ops.base import PAGE_SIZE, Addresses, Ranges

_GIB = 1 << 30
_PAGE = np.uint64(PAGE_SIZE)
_PF_KTHREAD = 0x00200000
# An entry's owner in one word: index of the process above, page number of the address below.
_PAGE_BITS = np.uint64(45)
_PAGE_MASK = np.uint64((1 << 45) - 1)
_NEAR = np.uint64(32 * PAGE_SIZE)  # resident ranges this close are read together: cheaper than another read
_BATCH = 1 << 19  # entries that are read before they are sifted: 4 MiB
MAX_PAGES = 1 << 24  # 64 GiB of mapped memory: 256 MiB here, three times that during a refresh


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, by pid and start time (ticks since boot), so that a reused pid is not mistaken for it."""

    pid: int
    start_ticks: int
    command: str


@dataclass(slots=True)
class ReverseMapCost:
    """What the refreshes have cost, in time of this thread's CPU."""

    refreshes: int = 0
    total_ns: int = 0
    last_ns: int = 0
    pages: int = 0  # entries of the last refresh: a shared page has one for each process
    processes: int = 0
    refused: int = 0  # processes that could not be looked at in the last refresh

    @property
    def seconds_per_gib(self) -> float:
        """Cost of the last refresh per GiB of mapped memory; 0 if there was none."""
        return self.last_ns / 1e9 / (self.pages * PAGE_SIZE / _GIB) if self.pages else 0.0


class ReverseMap:
    """The map. Empty until `refresh`.

    ``max_pages`` bounds its memory (16 bytes an entry): what is beyond is left out, and ``truncated`` says so. With
    ``share``, `refresh_if_due` takes no more than that share of the time. ``proc`` and ``pids`` are for tests.
    """

    def __init__(
        self,
        *,
        max_pages: int = MAX_PAGES,
        share: float = 0.05,
        proc: str = "/proc",
        pids: Callable[[], Iterable[int]] | None = None,
    ) -> None:
        self.cost = ReverseMapCost()
        self.owners: list[Owner] = []
        self.truncated = False
        self._max_pages = max_pages
        self._share = share
        self._proc = proc
        self._pids = pids if pids is not None else self._all_pids
        self._frames: Frames = np.empty(0, np.uint64)  # sorted; a shared frame stands there several times
        self._packed: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._due_ns = 0

    def __len__(self) -> int:
        """Number of entries."""
        return len(self._frames)

    def refresh(self) -> None:
        """Build the map anew. Processes that end meanwhile or may not be looked at are left out."""
        began, began_cpu = time.monotonic_ns(), time.thread_time_ns()
        frames: list[Frames] = []
        packed: list[NDArray[np.uint64]] = []
        owners: list[Owner] = []
        left, refused, self.truncated = self._max_pages, 0, False
        for pid in self._pids():
            if left <= 0:
                self.truncated = True
                break
            try:
                looked = self._look(pid)
            except (MachineError, OSError, ValueError) as error:
                refused += isinstance(error, MachineError) and os.path.exists(f"{self._proc}/{pid}")
                continue
            if looked is None:
                continue
            owner, batches = looked
            index = np.uint64(len(owners) << int(_PAGE_BITS))
            owners.append(owner)
            for some, pages in batches:
                self.truncated |= len(some) > left
                frames.append(some[:left])
                packed.append(pages[:left] | index)
                left -= len(frames[-1])
        all_frames = np.concatenate(frames) if frames else np.empty(0, np.uint64)
        all_packed = np.concatenate(packed) if packed else np.empty(0, np.uint64)
        del frames, packed
        order = np.argsort(all_frames, kind="stable")
        self._frames, self._packed, self.owners = all_frames[order], all_packed[order], owners
        cost = self.cost
        cost.last_ns = time.thread_time_ns() - began_cpu
        cost.total_ns += cost.last_ns
        cost.refreshes += 1
        cost.pages, cost.processes, cost.refused = len(self._frames), len(owners), refused
        ended = time.monotonic_ns()
        self._due_ns = ended + int((ended - began) / self._share)

    def refresh_if_due(self) -> bool:
        """`refresh`, unless that would take more than ``share`` of the time; whether it was done."""
        if time.monotonic_ns() < self._due_ns:
            return False
        self.refresh()
        return True

    def lookup(self, frames: Frames) -> tuple[NDArray[np.intp], NDArray[np.uint64], NDArray[np.intp]]:
        """Who maps each frame: index into `owners` (-1: nobody), address in bytes, number of mappings; shape (n,) each.

        Of several that map a frame the one with the lowest pid is told.
        """
        first = np.searchsorted(self._frames, frames, "left")
        count = np.searchsorted(self._frames, frames, "right") - first
        index, addresses = np.full(len(frames), -1, np.intp), np.zeros(len(frames), np.uint64)
        found = np.flatnonzero(count)
        packed = self._packed[first[found]]
        index[found] = (packed >> _PAGE_BITS).astype(np.intp)
        addresses[found] = (packed & _PAGE_MASK) * _PAGE
        return index, addresses, count

    def mappers(self, frame: int) -> list[tuple[Owner, int]]:
        """All processes that map this frame, and where."""
        packed = self._slice(frame * PAGE_SIZE, (frame + 1) * PAGE_SIZE)
        return [
            (self.owners[int(word >> _PAGE_BITS)], int(word & _PAGE_MASK) * PAGE_SIZE)
            for word in packed  # a handful
        ]

    def mapped_bytes(self, start: int, end: int) -> list[tuple[Owner, int]]:
        """How much of the physical range [start, end) (bytes) each process maps, most first.

        A shared page counts for each process that maps it.
        """
        index = (self._slice(start, end) >> _PAGE_BITS).astype(np.intp)
        counts = np.bincount(index, minlength=len(self.owners))
        order = np.argsort(-counts, kind="stable")
        return [(self.owners[at], int(counts[at]) * PAGE_SIZE) for at in order.tolist() if counts[at]]

    def mapped_pages(self, start: int, end: int, most: int) -> list[tuple[Owner, Addresses]]:
        """The ``most`` processes that map most of the physical range [start, end), and where: addresses of pages, (n,).

        As `mapped_bytes`, with the places.
        """
        words = self._slice(start, end)
        index = (words >> _PAGE_BITS).astype(np.intp)
        counts = np.bincount(index, minlength=len(self.owners))
        order = np.argsort(-counts, kind="stable")[:most]
        return [(self.owners[at], (words[index == at] & _PAGE_MASK) * _PAGE) for at in order.tolist() if counts[at]]

    def virtual_ranges(self, start: int, end: int) -> list[tuple[Owner, Ranges]]:
        """Where the physical range [start, end) (bytes) is mapped: for each process ranges of its addresses, (n, 2)."""
        packed = np.sort(self._slice(start, end))
        if not len(packed):
            return []
        # Sorted by process and page: a run ends where the next word is not the next page.
        breaks = np.flatnonzero(np.diff(packed) != 1)
        first = packed[np.concatenate([np.zeros(1, np.intp), breaks + 1])]
        last = packed[np.append(breaks, len(packed) - 1)]
        spans = np.stack([(first & _PAGE_MASK) * _PAGE, ((last & _PAGE_MASK) + np.uint64(1)) * _PAGE], axis=1)
        index = (first >> _PAGE_BITS).astype(np.intp)
        return [(self.owners[at], spans[index == at]) for at in np.unique(index).tolist()]

    def close(self) -> None:
        """Give the memory back."""
        self._frames = self._packed = np.empty(0, np.uint64)
        self.owners = []

    def _slice(self, start: int, end: int) -> NDArray[np.uint64]:
        bounds = np.array([start // PAGE_SIZE, -(-end // PAGE_SIZE)], np.uint64)
        low, high = np.searchsorted(self._frames, bounds, "left").tolist()
        return self._packed[low:high]

    def _all_pids(self) -> Iterator[int]:
        return iter(sorted(int(name) for name in os.listdir(self._proc) if name.isdigit()))

    def _look(self, pid: int) -> tuple[Owner, Iterator[tuple[Frames, NDArray[np.uint64]]]] | None:
        """A process and, in batches, its frames and page numbers; None for one without memory of its own."""
        # Files that are opened through the directory are this process's, even if the pid is reused meanwhile.
        directory = os.open(f"{self._proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stat = _read(directory, "stat")
            command = stat[stat.index(b"(") + 1 : stat.rindex(b")")].decode(errors="replace")
            fields = stat[stat.rindex(b")") + 2 :].split()
            if int(fields[9 - 3]) & _PF_KTHREAD or fields[0] == b"Z":
                return None
            pagemap = Pagemap(pid, path="pagemap", dir_fd=directory)
            try:
                resident = resident_ranges(pagemap.fileno())
            except OSError:  # before Linux 6.7
                try:
                    maps = _read(directory, "maps")
                except BaseException:
                    pagemap.close()
                    raise
                spans = [(m.start, m.end) for m in parse_maps(maps) if m.name != "[vsyscall]"]
                resident = np.array(spans, np.uint64).reshape(-1, 2)
        finally:
            os.close(directory)
        return Owner(pid, int(fields[22 - 3]), command), _batches(pagemap, _joined(resident))


def mappings_now(owner: Owner) -> list[Mapping]:
    """The mappings of the process; empty if it has ended or may not be looked at."""
    try:
        process = Process(owner.pid)
    except RequestError:
        return []
    try:
        return process.mappings() if process.start_ticks == owner.start_ticks else []
    except (MachineError, RequestError, OSError):
        return []
    finally:
        process.close()


class MappingsOf:
    """Names the places of processes' memory; ``look`` is asked once for each process."""

    def __init__(self, look: Callable[[Owner], list[Mapping]]) -> None:
        self._look = look
        self._known: dict[Owner, tuple[list[Mapping], Addresses, Addresses]] = {}

    def most(self, owner: Owner, addresses: Addresses) -> str | None:
        """The name of the mapping in which most of the addresses lie; None if they lie in none that is known."""
        if owner not in self._known:
            mappings = sorted(self._look(owner), key=lambda mapping: mapping.start)
            edges = np.array([(m.start, m.end) for m in mappings], np.uint64).reshape(-1, 2)
            self._known[owner] = (mappings, edges[:, 0], edges[:, 1])
        mappings, starts, ends = self._known[owner]
        place = np.searchsorted(starts, addresses, "right").astype(np.intp) - 1
        place = place[place >= 0] if not len(mappings) else place[(place >= 0) & (addresses < ends[place])]
        if not len(place):
            return None
        sizes: dict[str, int] = {}
        # A file has several mappings: they count as one.
        for at, count in zip(*(part.tolist() for part in np.unique(place, return_counts=True)), strict=True):
            sizes[mappings[at].name] = sizes.get(mappings[at].name, 0) + count
        return max(sizes, key=lambda name: sizes[name])


def _batches(pagemap: Pagemap, spans: Ranges) -> Iterator[tuple[Frames, NDArray[np.uint64]]]:
    """Frames and page numbers of what is present in the spans; closes the pagemap."""
    try:
        parts: list[NDArray[np.uint64]] = []
        firsts: list[int] = []
        read = 0
        for start, end in spans.tolist():
            # A large range comes in pieces: without PAGEMAP_SCAN it may be mostly empty.
            for piece in range(start, end, _BATCH * PAGE_SIZE):
                parts.append(pagemap.span(piece, min(end, piece + _BATCH * PAGE_SIZE)))
                firsts.append(piece // PAGE_SIZE)
                read += len(parts[-1])
                if read >= _BATCH:
                    yield _sift(parts, firsts)
                    parts, firsts, read = [], [], 0
        if parts:
            yield _sift(parts, firsts)
    finally:
        pagemap.close()


def _sift(parts: list[NDArray[np.uint64]], firsts: list[int]) -> tuple[Frames, NDArray[np.uint64]]:
    entries = np.concatenate(parts)
    lengths = np.array([len(part) for part in parts], np.intp)
    before = np.cumsum(lengths) - lengths
    # Page number of each entry: counted on from the first of its part.
    pages = np.arange(len(entries), dtype=np.uint64)
    pages += np.repeat(np.array(firsts, np.uint64) - before.astype(np.uint64), lengths)
    frames = frames_of(entries)
    told = np.flatnonzero(is_present(entries) & (frames != 0))
    return frames[told], pages[told]


def _joined(spans: Ranges) -> Ranges:
    """Sorted ranges that lie close together as one."""
    if not len(spans):
        return spans
    apart = np.flatnonzero(spans[1:, 0] - spans[:-1, 1] > _NEAR)
    first = np.concatenate([np.zeros(1, np.intp), apart + 1])
    last = np.append(apart, len(spans) - 1)
    return np.stack([spans[first, 0], spans[last, 1]], axis=1)


def _read(directory: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        chunks = []
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def probe() -> None:
    """Raise MachineError with the reason if frames cannot be traced back to processes here."""
    pagemap_file.probe()
