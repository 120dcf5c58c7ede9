"""The part of the sampler's BPF program that tells whether MADV_COLD clears a page, and lists what it is to clear.

Its way in is the label ``look_at_page``, with the page's level in r2; its ways out are ``watch``, ``uncleared`` (draw
another one), ``slow`` (not known here) and ``stuck``.
"""

from __future__ import annotations

from pydamon.linux.bpf_assembler import (
    ADD,
    ADD_K,
    AND,
    AND_K,
    DIV_K,
    JA,
    JEQ,
    JEQ_K,
    JGE,
    JGE_K,
    JNE,
    JNE_K,
    JSET_K,
    LDX1,
    LSH_K,
    MOV,
    MOV_K,
    MUL,
    MUL_K,
    R1,
    R2,
    R3,
    R4,
    R5,
    R9,
    RSH,
    RSH_K,
    STX4,
    STX8,
    SUB,
    XOR,
)
from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives.bpf_program import head_of_tail, load_kernel
from pydamon.primitives.bpf_sampler_words import Words
from pydamon.primitives.page_tables import LEVEL_1G, LEVEL_2M

HASH_FACTOR = 0x9E3779B97F4A7C15  # of the panel's filter: 2**64 divided by the golden ratio

_HUGE_PAGES = 512


class Pages(Words):
    """Adds the words about pages."""

    def look_at_page(self) -> None:
        """Whether MADV_COLD clears the page: by its struct page."""
        run, facts = self.run, self.facts
        self.label("look_at_page")
        self.jump(JGE_K, "uncleared", R2, imm=LEVEL_1G)
        self.get(R1, run.vmemmap)
        self.jump(JEQ_K, "slow", R1)
        self.get(R1, run.entry)
        self.frame_number("present_entry")
        self.get(R2, run.level)
        self.jump(JNE_K, "have_frame", R2, imm=LEVEL_2M)
        self.emit(AND_K, R1, imm=-_HUGE_PAGES)
        self.label("have_frame")
        self.put(run.begin, R1)
        self.emit(MUL_K, R1, imm=facts.page_size)
        self.get(R9, run.vmemmap)
        self.emit(ADD, R9, R1)
        self.load_page(facts.page_head)
        self.jump(JSET_K, "tail", R1, imm=1)
        self.load_page(facts.page_flags)
        self.jump(JSET_K, "folio", R1, imm=facts.head)
        self.get(R2, run.level)
        self.jump(JEQ_K, "uncleared", R2, imm=LEVEL_2M)
        self._check_small_if_fresh()
        self._check_flags("small")
        self.load_page_half(facts.page_mapcount)
        self.jump(JNE_K, "uncleared", R1)  # it counts from -1
        self.store(run.length, 4096)
        self.get(R1, run.address)
        self.put(run.begin, R1)
        self.jump(JA, "clearable")

    def _check_small_if_fresh(self) -> None:
        """clear_refs, which was just done in a FRESH run, minds no lock, list, or other mapping: only whether the page
        is mapped memory as the kernel manages it (the zero page is not). The page's flags are in r1."""
        self.get(R2, self.run.flags)
        self.jump(JSET_K, "fresh_page", R2, imm=lay.FRESH)
        self.jump(JA, "not_fresh")
        self.label("fresh_page")
        self.jump(JEQ_K, "uncleared", R1)  # there is no struct page
        self.load_page_half(self.facts.page_mapcount)
        self.emit(RSH_K, R1, imm=31)
        self.jump(JEQ_K, "watch", R1)
        self.jump(JA, "uncleared")
        self.label("not_fresh")

    def _check_flags(self, label: str) -> None:
        """By the page flags in r1: on an LRU list, and not locked; a large folio in a FRESH run: on an LRU list."""
        self.jump(JSET_K, label, R1, imm=self.facts.lru)
        self.jump(JA, "uncleared")
        self.label(label)
        if label == "large":
            self.get(R2, self.run.flags)
            self.jump(JSET_K, "watch", R2, imm=lay.FRESH)
        self.emit(MOV_K, R2, imm=self.facts.locked)
        self.emit(AND, R1, R2)
        self.jump(JNE_K, "uncleared", R1)

    def look_at_folio(self) -> None:
        """The same for a folio of several pages, of which MADV_COLD clears all or, if it is not mapped so, none."""
        run, facts = self.run, self.facts
        self.label("tail")
        head_of_tail(self.asm)
        self.load_page(facts.page_flags)
        self.label("folio")
        self._check_flags("large")
        if facts.folio is None:
            self.jump(JA, "slow")
            return
        nr_pages, mapcount = facts.folio
        self.load_page_half(nr_pages)
        self.jump(JEQ_K, "uncleared", R1)
        self.jump(JGE_K, "uncleared", R1, imm=_HUGE_PAGES + 1)
        self.put(run.length, R1)
        self.load_page_half(mapcount)
        self.emit(ADD_K, R1, imm=1)  # it counts from -1
        self.emit(LSH_K, R1, imm=32)
        self.emit(RSH_K, R1, imm=32)
        self.get(R2, run.length)
        self.get(R3, run.level)
        self.jump(JEQ_K, "huge", R3, imm=LEVEL_2M)
        self.jump(JNE, "uncleared", R1, R2)
        self._parts_of_folio()
        self.label("huge")
        self.jump(JNE_K, "uncleared", R2, imm=_HUGE_PAGES)
        self.jump(JNE_K, "uncleared", R1, imm=1)
        self.get(R1, run.address)
        self.emit(AND_K, R1, imm=-(_HUGE_PAGES << 12))
        self.put(run.begin, R1)
        self.store(run.length, _HUGE_PAGES << 12)
        self.jump(JA, "clearable")

    def _parts_of_folio(self) -> None:
        """A page of the folio at r9, which has r2 pages and r2 mappings: all of it, if the table has it in order.

        The first and the last page are looked at: with the number of mappings right, only a folio that is mapped
        piecemeal in several places could deceive.
        """
        run = self.run
        self.emit(MOV, R1, R9)
        self.get(R3, run.vmemmap)
        self.emit(SUB, R1, R3)
        self.emit(DIV_K, R1, imm=self.facts.page_size)
        self.get(R4, run.begin)
        self.emit(SUB, R4, R1)  # which page of the folio it is
        self.jump(JGE, "uncleared", R4, R2)
        self.put(run.entry, R1)  # from here on: the folio's first frame
        self.get(R3, run.slot)
        self.emit(MOV, R5, R4)
        self.emit(LSH_K, R5, imm=3)
        self.emit(SUB, R3, R5)
        self.put(run.slot, R3)  # and the slot of its first page
        self.get(R3, run.address)
        self.emit(LSH_K, R4, imm=12)
        self.emit(SUB, R3, R4)
        self.put(run.begin, R3)
        self.emit(LSH_K, R2, imm=12)
        self.put(run.length, R2)
        self.emit(ADD, R2, R3)
        self.emit(ADD_K, R2, imm=-1)
        self.emit(XOR, R2, R3)
        self.emit(RSH_K, R2, imm=21)
        self.jump(JNE_K, "uncleared", R2)  # in two page tables
        for name in ("first", "last"):
            self.get(R3, run.slot)
            if name == "last":
                self._pages_behind_first(R2)
                self.emit(LSH_K, R2, imm=3)
                self.emit(ADD, R3, R2)
            load_kernel(self.asm, self.facts.walk, R3)
            self.jump(JSET_K, f"{name}_mapped", R1, imm=self.tables.mapped)
            self.jump(JA, "uncleared")
            self.label(f"{name}_mapped")
            self.frame_number(f"{name}_present")
            self.get(R3, run.entry)
            if name == "last":
                self._pages_behind_first(R2)
                self.emit(ADD, R3, R2)
            self.jump(JNE, "uncleared", R1, R3)
        self.count(run.parts)
        self.jump(JA, "clearable")

    def _pages_behind_first(self, register: int) -> None:
        self.get(register, self.run.length)
        self.emit(RSH_K, register, imm=12)
        self.emit(ADD_K, register, imm=-1)

    # -- what follows from it ---------------------------------------------------------------------------------------

    def list_range(self) -> None:
        """Append the range to the iovecs, unless it is the last one once more."""
        run, target, layout = self.run, self.target, self.layout
        self.label("clearable")
        self.get(R1, run.young)
        self.jump(JEQ_K, "watch", R1)
        self.get(R1, run.begin)
        self.get(R2, run.last)
        self.jump(JEQ, "watch", R1, R2)
        self.put(run.last, R1)
        self.get(R3, run.ranges)
        self.jump(JGE_K, "stuck", R3, imm=layout.regions)
        self.emit(MOV, R4, R3)
        self.emit(ADD_K, R4, imm=1)
        self.put(run.ranges, R4)
        self.element(R4, R3, lay.IOVEC.itemsize, layout.iovecs_at)
        self.emit(STX8, R4, R1, 0)
        self.get(R2, run.length)
        self.emit(STX8, R4, R2, 8)
        self.get(R3, target.bytes)
        self.emit(ADD, R3, R2)
        self.put(target.bytes, R3)
        self._note()

    def _note(self) -> None:
        """Note the range (r1, r2 bytes) for the page panel, if its filter lets it pass. Larger ones always pass."""
        run, layout = self.run, self.layout
        self.get(R3, run.panel)
        self.jump(JEQ_K, "watch", R3)
        self.jump(JNE_K, "note", R2, imm=4096)
        self.emit(MOV, R3, R1)
        self.emit(RSH_K, R3, imm=12)
        self.constant(R4, HASH_FACTOR)
        self.emit(MUL, R3, R4)
        self.emit(RSH_K, R3, imm=64 - lay.FILTER_BITS)
        self.emit(MOV, R5, R3)
        self.emit(RSH_K, R5, imm=3)
        self.element(R4, R5, 1, layout.filter_at)
        self.emit(LDX1, R4, R4)
        self.emit(AND_K, R3, imm=7)
        self.emit(RSH, R4, R3)
        self.emit(AND_K, R4, imm=1)
        self.jump(JEQ_K, "watch", R4)
        self.label("note")
        self.get(R3, run.noted)
        self.emit(MOV, R4, R3)
        self.emit(ADD_K, R4, imm=1)
        self.put(run.noted, R4)
        self.jump(JGE_K, "watch", R3, imm=lay.NOTED)
        self.element(R4, R3, lay.NOTE.itemsize, layout.noted_at)
        self.emit(STX8, R4, R1, 0)
        self.emit(RSH_K, R2, imm=12)
        self.emit(STX4, R4, R2, 8)
        self.get(R3, run.target)
        self.emit(STX4, R4, R3, 12)
        self.jump(JA, "watch")
