"""What the sampler's BPF program does, written down literally in Python over the memory of a `bpf_machine`; and a
machine with struct pages, whose accessed bits can be set and cleared as a processor and the kernel do.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
from tests.unit.primitives.bpf_machine import (
    ACCESSED,
    BASE,
    FACTS,
    LIMIT,
    MAP_FD,
    MASK,
    PRESENT,
    PROTNONE,
    U64,
    Machine,
)

from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives.bpf_facts import SamplerFacts
from pydamon.primitives.bpf_sampler_program import sampler_program
from pydamon.primitives.page_tables import LEVEL_1G, LEVEL_2M, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN, X86_4, PageTables

VMEMMAP = 0xFFFF_EA00_0000_0000
LRU, HEAD, LOCKED, UPTODATE = 1 << 5, 1 << 6, 1 << 20, 1 << 3
SAMPLER_FACTS = SamplerFacts(
    walk=FACTS,
    task_start=1560,
    task_exec=2016,
    page_size=64,
    page_flags=0,
    page_mapcount=48,
    page_head=8,
    lru=LRU,
    head=HEAD,
    locked=LOCKED | 1 << 18,
    idle=1 << 22,
    folio=(120, 80),
    files=(0, 0, 0, 0, 0),
    reverse=None,
)
PAGE, HUGE = 4096, 2 << 20
_KINDS = (
    *("small", "small", "small", "shared", "locked", "fresh", "zero", "absent", "swapped", "inverted"),
    *("folio", "part", "apart", "huge"),
)


class PagedMachine(Machine):
    """A machine with struct pages and several processes. With ``masks`` tails tell of their head as in Linux 7.3."""

    def __init__(self, tables: PageTables = X86_4, *, masks: bool = False) -> None:
        super().__init__(tables)
        self.masks = masks
        self.tasks.clear()
        self.tops: dict[int, int] = {}  # pid -> physical address of the top table

    def add_task(self, pid: int, start: int = 1000) -> None:
        """A process with an empty address space."""
        task = 0xFFFF_9000_0001_0000 + pid * 0x10000
        self.tasks[pid] = task
        self.memory[task + 1560], self.memory[task + 2016] = start, 1
        self.execute(pid)

    def execute(self, pid: int) -> None:
        """Give the process a new, empty address space."""
        task = self.tasks[pid]
        top = self.table()
        mm = 0xFFFF_9100_0000_0000 + top
        self.memory[task + 1136], self.memory[mm + 120] = mm, BASE + top
        self.memory[task + 2016] += 1
        self.tops[pid] = top

    def page(self, frame: int, flags: int = LRU, mapcount: int = 1, head: int | None = None, order: int = 0) -> None:
        """Let ``frame`` have that struct page; ``mapcount`` of a folio's head is the folio's, ``head`` is of a tail."""
        at = VMEMMAP + 64 * frame
        self.memory[at] = flags | (HEAD if order else 0)
        self.memory[at + 8] = 0 if head is None else VMEMMAP + 64 * head | 1
        self.memory[at + 48] = mapcount - 1 & 0xFFFF_FFFF | 0xABCD << 32 if head is None and not order else U64
        if order:
            for tail in range(frame + 1, frame + (1 << order)):
                self.page(tail, 0, head=frame)
                if self.masks:  # all but the bits in which the struct pages of such a folio differ
                    self.memory[VMEMMAP + 64 * tail + 8] = -(64 << order) & U64 | 1
            self.memory[at + 80] = mapcount - 1 & 0xFFFF_FFFF | 7 << 32
            self.memory[at + 120] = 1 << order | 9 << 32

    def touch(self, pid: int, address: int) -> None:
        """Set the accessed bit as the processor does."""
        _, level, slot = walk(self, self.top(pid), address)
        if level in (LEVEL_4K, LEVEL_2M, LEVEL_1G):
            self.memory[slot] |= self.format.accessed

    def top(self, pid: int) -> int:
        """Virtual address of the process's top table."""
        return BASE + self.tops[pid]

    def clear(self, pid: int, base: int, length: int) -> None:
        """Clear the accessed bits of a range."""
        address = base
        while address < base + length:
            _, level, slot = walk(self, self.top(pid), address)
            if level in (LEVEL_4K, LEVEL_2M):
                self.memory[slot] &= ~self.format.accessed
            address += HUGE if level == LEVEL_2M else PAGE


def walk(machine: Machine, top: int, address: int) -> tuple[int, int, int]:
    """Entry, level and place of the entry."""
    tables, table = machine.format, top
    if address >> tables.address_bits:
        return 0, LEVEL_UNKNOWN, top
    for shift, leaf in tables.levels:
        slot = table + 8 * (address >> shift & 0x1FF)
        entry = machine.read(slot)
        if entry is None:
            return 0, LEVEL_UNKNOWN, slot
        if leaf == LEVEL_4K:
            return gathered(machine, entry, slot), LEVEL_4K if entry & tables.mapped else LEVEL_ABSENT, slot
        if leaf is not None and entry & tables.leaf[0] == tables.leaf[1]:
            return entry, leaf, slot
        if entry & tables.table[0] != tables.table[1]:
            return entry, LEVEL_ABSENT, slot
        if entry & MASK >= LIMIT:
            return 0, LEVEL_UNKNOWN, slot
        table = BASE + (entry & MASK)
    raise AssertionError("the loop returns")


def gathered(machine: Machine, entry: int, slot: int) -> int:
    """The entry with the accessed bit of its group, if it belongs to one."""
    bit, accessed = machine.format.contiguous, machine.format.accessed
    if bit is None or not entry & bit or not entry & machine.format.mapped:
        return entry
    group = range(slot & -128, (slot & -128) + 128, 8)
    return entry | (accessed if any((machine.read(at) or 0) & accessed for at in group) else 0)


def frame_in(machine: Machine, entry: int) -> int:
    if machine.format.inverted and not entry & PRESENT:
        entry = ~entry & U64
    return (entry & MASK) >> 12


@dataclass
class Region:
    start: int
    pages: int
    rank: int = 0
    resident: int = 0
    watched: int = 0
    level: int = 0
    accessed: int = 0
    unknown: int = 0
    drawn: int = 0
    flags: int = 0


@dataclass
class Target:
    pid: int
    regions: list[Region]
    refused: list[tuple[int, int]] = field(default_factory=list)
    identity: int = 0
    space: int = 0
    status: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    unwatched: int = 0
    absent: int = 0


class Model:
    """The program, literally. ``runs``: the resident pages in the order of their ranks, for all targets."""

    def __init__(self, machine: PagedMachine, targets: list[Target], seed: int, resident: list[int]) -> None:
        self.machine, self.targets, self.state, self.resident = machine, targets, seed, resident
        self.vmemmap = VMEMMAP
        self.panel: set[int] | None = None  # hashes
        self.slow: list[int] = []
        self.noted: list[tuple[int, int, int]] = []
        self.parts = self.bad = self.failed = 0

    def random(self) -> int:
        state = self.state
        state ^= state >> 12
        state = (state ^ state << 25) & U64
        state ^= state >> 27
        self.state = state
        return (state * 0x2545F4914F6CDD1D & U64) >> 11

    def run(self, flags: int) -> None:
        self.slow, self.parts, self.bad, self.failed = [], 0, 0, 0
        number = 0
        for place, target in enumerate(self.targets):
            target.ranges, target.unwatched, target.status = [], 0, lay.OK
            top, stale = self.open(target)
            for region in target.regions:
                if flags & lay.CHECK:
                    self.check(region, top, stale)
                if not flags & lay.DRAW:
                    region.watched = 0
                elif not (flags & lay.FRESH and region.watched):
                    self.draw(target, place, number, region, top, bool(flags & lay.FRESH))
                number += 1

    def open(self, target: Target) -> tuple[int, bool]:
        """Top table (0: none) and whether windows say nothing."""
        memory = self.machine.memory
        task = self.machine.tasks.get(target.pid, 0)
        start = memory[task + 1560] if task else 0
        if task and not target.identity:
            target.identity = start
        if not task or start != target.identity:
            target.status = lay.GONE
        elif not memory[task + 1136]:
            target.status = lay.NO_MM
        if target.status:
            self.bad += 1
            target.space = 0
            return 0, True
        top = memory[memory[task + 1136] + 120]
        space = top + memory[task + 2016]
        stale, target.space = space != target.space, space
        return top, stale

    def check(self, region: Region, top: int, stale: bool) -> None:
        if not region.watched or stale:
            region.unknown += 1
            return
        entry, level, _ = walk(self.machine, top, region.watched)
        region.watched = 0
        if level == LEVEL_UNKNOWN:
            self.failed += 1
        young = bool(entry & self.machine.format.accessed)
        lost = level == LEVEL_ABSENT and region.level != LEVEL_ABSENT
        collapsed = level == LEVEL_2M and region.level == LEVEL_4K and young
        if level == LEVEL_UNKNOWN or lost or collapsed:
            region.unknown += 1
        elif level >= LEVEL_4K and young:
            region.accessed += 1

    def draw(self, target: Target, place: int, number: int, region: Region, top: int, fresh: bool) -> None:
        region.watched = 0
        if not top:
            target.unwatched += 1
            return
        absent = False
        for attempt in range(3):
            address = region.start + self.random() % region.pages * PAGE
            if not attempt:
                region.drawn = address
            decision, absent = self.settle(target, place, number, region, address, top, fresh, last=False)
            if decision:
                return
            if absent:
                break
        if absent:
            for _ in range(2):
                address = self.resident[region.rank + self.random() % region.resident]
                decision, _ = self.settle(target, place, number, region, address, top, fresh, last=True)
                if decision:
                    return
        target.unwatched += 1

    def settle(
        self, target: Target, place: int, number: int, region: Region, address: int, top: int, fresh: bool, last: bool
    ) -> tuple[bool, bool]:
        """Whether the page is watched; and whether a resident one is to be drawn instead of it."""
        if any(start <= address < start + length for start, length in target.refused):
            return False, False
        entry, level, slot = walk(self.machine, top, address)
        if level == LEVEL_UNKNOWN:
            self.failed += 1
            return False, False
        if level == LEVEL_ABSENT and region.resident and not last:
            return False, True
        target.absent += level == LEVEL_ABSENT and not last
        young = level >= LEVEL_4K and bool(entry & self.machine.format.accessed)
        if level >= LEVEL_4K and (young or region.flags & lay.CAREFUL or fresh):
            verdict = self.clearable(address, entry, level, slot, fresh)
            if verdict is False:
                region.flags |= lay.CAREFUL | lay.MET
                return False, False
            if verdict == "slow" and young:
                self.slow.append(number)
            if isinstance(verdict, tuple):
                if verdict[1] not in (PAGE, HUGE):
                    self.parts += 1
                if young and (not target.ranges or target.ranges[-1][0] != verdict[0]):
                    target.ranges.append(verdict)
                    self.note(place, *verdict)
        region.watched, region.level = address, level
        return True, False

    def clearable(self, address: int, entry: int, level: int, slot: int, fresh: bool) -> tuple[int, int] | bool | str:
        """The range that clears it, "slow" if that is not known, True if it need not be cleared, or False."""
        read = self.machine.read
        if level == LEVEL_1G:
            return False
        if not self.vmemmap:
            return "slow"
        frame = frame_in(self.machine, entry) & (-512 if level == LEVEL_2M else -1)
        page = self.vmemmap + 64 * frame
        head_word = read(page + 8) or 0
        if not head_word & 1:
            head = page
        else:
            head = page & head_word if self.machine.masks else head_word - 1
        flags = read(head) or 0
        large = bool(head_word & 1 or flags & HEAD)
        if not large and level == LEVEL_2M:
            return False
        if fresh and not large:
            return bool(flags) and (read(page + 48) or 0) >> 31 & 1 == 0
        if not flags & LRU:
            return False
        if fresh:
            return True
        if flags & (LOCKED | 1 << 18):
            return False
        if not large:
            return (address, PAGE) if (read(page + 48) or 0) & 0xFFFF_FFFF == 0 else False
        nr = (read(head + 120) or 0) & 0xFFFF_FFFF
        mapped = ((read(head + 80) or 0) + 1) & 0xFFFF_FFFF
        if not 1 <= nr <= 512:
            return False
        if level == LEVEL_2M:
            return (address & -HUGE, HUGE) if nr == 512 and mapped == 1 else False
        first = (head - self.vmemmap) // 64
        begin = address - (frame - first) * PAGE
        if mapped != nr or frame - first >= nr or begin // HUGE != (begin + nr * PAGE - 1) // HUGE:
            return False
        for at in (0, nr - 1):
            other = read(slot + 8 * (at - (frame - first))) or 0
            if not other & self.machine.format.mapped or frame_in(self.machine, other) != first + at:
                return False
        return begin, nr * PAGE

    def note(self, place: int, base: int, length: int) -> None:
        if self.panel is not None and (length != PAGE or page_hash(base) in self.panel):
            self.noted.append((base, length // PAGE, place))


def page_hash(address: int) -> int:
    """The bit of a page in the panel's filter."""
    return (address // PAGE * 0x9E3779B97F4A7C15 & U64) >> 48


class Program:
    """The real program over the same machine: fills the map's value, runs it, reads it back."""

    def __init__(self, machine: PagedMachine, targets: list[Target], seed: int, resident: list[int]) -> None:
        self.machine, self.layout = machine, lay.SamplerLayout(targets=4, regions=64, run_bits=6)
        self.code = sampler_program(SAMPLER_FACTS, machine.format, self.layout, MAP_FD)
        self.value = bytearray(self.layout.size)
        layout = self.layout
        self.header = np.frombuffer(self.value, lay.HEADER, 1)[0:1]
        self.targets = np.frombuffer(self.value, lay.TARGET, layout.targets, layout.targets_at)
        self.regions = np.frombuffer(self.value, lay.REGION, layout.regions, layout.regions_at)
        self.iovecs = np.frombuffer(self.value, lay.IOVEC, layout.regions, layout.iovecs_at)
        self.slow = np.frombuffer(self.value, np.uint32, layout.regions, layout.slow_at)
        self.noted = np.frombuffer(self.value, lay.NOTE, lay.NOTED, layout.noted_at)
        header = self.header
        header["base"], header["mask"], header["limit"], header["vmemmap"] = BASE, MASK, LIMIT, VMEMMAP
        header["random"], header["end_target"] = seed, len(targets)
        before = np.frombuffer(self.value, np.uint64, layout.runs, layout.before_at)
        starts = np.frombuffer(self.value, np.uint64, layout.runs, layout.starts_at)
        before[:] = lay.BEHIND_ALL
        begins = [at for at, page in enumerate(resident) if not at or page != resident[at - 1] + PAGE]
        before[: len(begins)] = begins
        starts[: len(begins)] = [resident[at] for at in begins]
        self.load(targets)

    def load(self, targets: list[Target]) -> None:
        first = 0
        for place, target in enumerate(targets):
            record = self.targets[place : place + 1]
            record["pid"], record["first"], record["count"] = target.pid, first, len(target.regions)
            record["refusals"] = len(target.refused)
            for at, (start, length) in enumerate(target.refused):
                record["refused"][0, at] = start, length
            for region in target.regions:
                for name in ("start", "pages", "rank", "resident", "flags"):
                    self.regions[name][first] = getattr(region, name)
                first += 1

    def watch_panel(self, hashes: set[int]) -> None:
        at = self.layout.filter_at
        for number in hashes:
            self.value[at + number // 8] |= 1 << number % 8
        self.header["panel"] = 1

    def run(self, flags: int) -> None:
        self.header["flags"] = flags | lay.BEGIN
        self.machine.run(self.code, self.value)


def agree(program: Program, model: Model) -> None:
    """Assert that the program left in its memory what the model says."""
    number, ranges = 0, 0
    for place, target in enumerate(model.targets):
        record = program.targets[place]
        for region in target.regions:
            found = program.regions[number]
            assert {name: int(found[name]) for name in vars(region)} == vars(region) | (
                {} if region.watched else {"level": int(found["level"])}
            ), f"region {number}"
            number += 1
        listed = program.iovecs[ranges : ranges + len(target.ranges)].tolist()
        assert listed == target.ranges
        for name, value in (
            ("status", target.status),
            ("space", target.space),
            ("identity", target.identity),
            ("unwatched", target.unwatched),
            ("absent", target.absent),
            ("first_range", ranges),
            ("ranges", len(target.ranges)),
            ("bytes", sum(length for _, length in target.ranges)),
        ):
            assert int(record[name]) == value, name
        ranges += len(target.ranges)
    header = program.header[0]
    assert int(header["random"]) == model.state
    assert int(header["ranges"]) == ranges
    assert program.slow[: int(header["slow"])].tolist() == model.slow
    assert int(header["unwatched"]) == sum(target.unwatched for target in model.targets)
    assert [int(header[name]) for name in ("parts", "bad", "failed")] == [model.parts, model.bad, model.failed]
    assert program.noted[: int(header["noted"])].tolist() == model.noted


def random_memory(machine: PagedMachine, pid: int, start: int, pages: int, chance: random.Random) -> list[int]:
    """Map pages of every kind into [start, start + pages): returns the addresses of those that are resident."""
    frame = 0x10000 * pid
    resident: list[int] = []
    at, end = start, start + pages * PAGE
    top = machine.tops[pid]
    while at < end:
        frame += 1
        kind = chance.choice(_KINDS)
        young = chance.random() < 0.5
        if kind in ("absent", "swapped"):
            machine.map(at, 0 if kind == "absent" else 0x1234_0000_0020, top=top)
            at += PAGE
            continue
        if kind == "huge" and at % HUGE == 0 and end - at >= HUGE:
            frame = (frame + 511) & -512
            machine.page(frame, mapcount=chance.choice((1, 1, 2)), order=9)
            machine.map(at, machine.entry(frame, young, 2), 2, top)
            resident += range(at, at + HUGE, PAGE)
            frame, at = frame + 512, at + HUGE
            continue
        if kind in ("folio", "part", "apart"):
            order = chance.choice((1, 2, 4))
            frame = (frame + 31) & -32
            machine.page(frame, mapcount=chance.choice((1 << order, 1 << order, 3)), order=order)
            for tail in range(1 << order):
                there = frame + tail + (chance.choice((0, 1)) if kind == "apart" else 0)
                if (kind != "part" or chance.random() < 0.8) and at < end:
                    machine.map(at, machine.entry(there, young), top=top)
                    resident.append(at)
                at += PAGE
            frame += 32
            continue
        flags = {"locked": LRU | LOCKED, "fresh": UPTODATE, "zero": UPTODATE}.get(kind, LRU)
        machine.page(frame, flags, mapcount={"shared": 2, "zero": 0}.get(kind, 1))
        entry = machine.entry(frame, young)
        if kind == "inverted" and machine.format.inverted:
            entry = (~(frame << 12) & MASK) | PROTNONE | entry & ACCESSED
        machine.map(at, entry, top=top)
        resident.append(at)
        at += PAGE
    return resident
