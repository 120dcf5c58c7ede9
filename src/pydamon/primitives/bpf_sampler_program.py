"""The BPF program that takes a whole sample of all regions of all targets.

For each region it looks at the page that was drawn last, counts, draws the next one, and lists what must be cleared.

It never clears anything itself: the caller gives the listed ranges to process_madvise. What is listed is surely
cleared by that, because the program looks at the page's struct page before: it is on an LRU list, not locked, and
mapped once (a large folio as a whole, in order, within one page table). So a page that shows its bit at the next look
was accessed.

Another page is drawn only on grounds that do not depend on the accessed bit. A page whose bit is clear can be watched
whatever it is, so its struct page need not be looked at, until a page that cannot be cleared was met in the region:
from then on (CAREFUL) all of them are looked at, or pages with a clear bit would be preferred.

There is one page-table walk in the program; values pass through the map, so that the verifier forgets constants; and
there are no subprograms. Each of these saves the verifier a multiple of its time.
"""

from __future__ import annotations

from pydamon.linux.bpf_assembler import (
    ADD,
    ADD_K,
    AND_K,
    ARSH_K,
    EXIT,
    JA,
    JEQ,
    JEQ_K,
    JGE,
    JGE_K,
    JNE,
    JNE_K,
    JSET_K,
    LD_IMM64,
    LDX4,
    LDX8,
    LSH_K,
    MOD,
    MOV,
    MOV_K,
    MUL,
    MUL_K,
    OR,
    OR_K,
    PSEUDO_MAP_VALUE,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    RSH_K,
    STX4,
    SUB,
    XOR,
)
from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives.bpf_facts import SamplerFacts
from pydamon.primitives.bpf_program import kfunc, walk_levels
from pydamon.primitives.bpf_sampler_pages import Pages
from pydamon.primitives.bpf_sampler_words import READ
from pydamon.primitives.page_tables import LEVEL_2M, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN, PageTables

RANDOM_FACTOR = 0x2545F4914F6CDD1D  # of xorshift64* (Vigna, "An experimental exploration of Marsaglia's generators")

# Steps of a region within a run. A page is drawn up to three times, and up to twice more among the resident ones.
_LOOK, _FIRST_DRAW, _LAST_DRAW, _FIRST_RESIDENT, _LAST_RESIDENT = 0, 1, 3, 4, 5
_MOST_STEPS = 6

_TARGETS, _STEPS = -8, -16  # stack slots of the iterators


def sampler_program(facts: SamplerFacts, tables: PageTables, layout: lay.SamplerLayout, map_fd: int) -> bytes:
    """The program's instructions, for a map with one value of ``layout.size`` bytes."""
    return _Program(facts, tables, layout).assemble(map_fd)


class _Program(Pages):
    """Assembles it, section by section."""

    def assemble(self, map_fd: int) -> bytes:
        self.emit(LD_IMM64, R7, PSEUDO_MAP_VALUE, imm=map_fd)
        self.emit(0)  # second half: offset 0 in the value
        # Page tables are freed after an RCU grace period: inside this section none is freed under the walk.
        if self.facts.walk.rcu is not None:
            kfunc(self.asm, self.facts.walk.rcu[0])
        run = self.run
        self.wants(lay.BEGIN, "begin")
        self.jump(JA, "begun")
        self.label("begin")
        for field in (run.ranges, run.parts, run.slow, run.unwatched, run.bad, run.failed):
            self.store(field, 0)
        self.label("begun")
        self.get(R2, self.run.first_target)
        self.get(R3, self.run.end_target)
        self.iterate(_TARGETS)
        self._open_target()
        self._next_step()
        self._draw_address()
        self.label("walk")
        walk_levels(
            self.asm,
            self.facts.walk,
            self.tables,
            address=self.run.address.place,
            pgd=self.run.pgd.place,
            mask=self.run.mask.place,
            limit=self.run.limit.place,
            base=self.run.base.place,
            read=READ,
            done="walked",
        )
        self._walked()
        self._answer()
        self._settle()
        self.look_at_page()
        self.look_at_folio()
        self.list_range()
        self._end_of_step()
        self._close_target()
        self.label("end")
        self.end_iterator(_TARGETS)
        if self.facts.walk.rcu is not None:
            kfunc(self.asm, self.facts.walk.rcu[1])
        self.emit(MOV_K, R0)
        self.emit(EXIT)
        return self.asm.code()

    # -- targets ----------------------------------------------------------------------------------------------------

    def _open_target(self) -> None:
        """Find the next target's task and address space. Without one, all that is watched there is unknown."""
        run, target, facts = self.run, self.target, self.facts
        self.label("next_target")
        self.advance(_TARGETS, "end")
        self.emit(LDX4, R1, R0)
        self.jump(JGE_K, "end", R1, imm=self.layout.targets)
        self.put(run.target, R1)
        self.element(R6, R1, lay.TARGET.itemsize, self.layout.targets_at)
        for field in (target.status, target.bytes, target.unwatched, run.last, run.mm, run.pgd, run.begin):
            self.store(field, 0)
        self.store(run.stale, 1)
        self.get(R1, target.pid)
        kfunc(self.asm, facts.walk.task_from_pid)
        self.jump(JEQ_K, "gone", R0)
        self.emit(MOV, R8, R0)
        self.read_task(facts.task_start, "not_it")
        self.get(R2, target.identity)
        self.jump(JNE_K, "known", R2)
        self.put(target.identity, R1)
        self.jump(JA, "it")
        self.label("known")
        self.jump(JNE, "not_it", R1, R2)
        self.label("it")
        if facts.task_exec is not None:
            self.read_task(facts.task_exec, "no_mm")
            self.put(run.begin, R1)
        self.read_task(facts.walk.task_mm, "no_mm")
        self.jump(JEQ_K, "no_mm", R1)
        self.put(run.mm, R1)
        self.emit(MOV, R3, R1)
        self.emit(ADD_K, R3, imm=facts.walk.mm_pgd)
        self.read("no_mm")
        self.put(run.pgd, R1)
        self._release()
        # The address of a top table may be used again after two execs; their number may not.
        self.get(R1, run.pgd)
        self.get(R2, run.begin)
        self.emit(ADD, R1, R2)
        self.get(R2, target.space)
        self.put(target.space, R1)
        self.jump(JNE, "regions", R1, R2)
        self.store(run.stale, 0)
        self.jump(JA, "regions")
        self.label("not_it")
        self._release()
        self.label("gone")
        self.store(target.status, lay.GONE)
        self.jump(JA, "bad")
        self.label("no_mm")
        self._release()
        self.store(target.status, lay.NO_MM)
        self.label("bad")
        self.store(target.space, 0)
        self.store(run.pgd, 0)
        self.count(run.bad)
        self.label("regions")
        self.get(R1, run.ranges)
        self.put(target.first_range, R1)
        self.get(R1, target.first)
        self.put(run.cursor, R1)
        self.get(R2, target.count)
        self.emit(ADD, R1, R2)
        self.put(run.end, R1)
        self.store(run.step, _LOOK)
        self.emit(MOV_K, R2)
        self.get(R3, target.count)
        self.emit(MUL_K, R3, imm=_MOST_STEPS)
        self.iterate(_STEPS)

    def _release(self) -> None:
        self.emit(MOV, R1, R8)
        kfunc(self.asm, self.facts.walk.task_release)

    def _close_target(self) -> None:
        """exit and exec take the address space off the task before they free it. If it is there no more, the windows
        that were opened will say nothing; what was counted is not taken back."""
        run, target, facts = self.run, self.target, self.facts
        self.label("target_done")
        self.end_iterator(_STEPS)
        self.get(R1, run.ranges)
        self.get(R2, target.first_range)
        self.emit(SUB, R1, R2)
        self.put(target.ranges, R1)
        self.get(R1, run.pgd)
        self.jump(JEQ_K, "next_target", R1)
        self.get(R1, target.pid)
        kfunc(self.asm, facts.walk.task_from_pid)
        self.jump(JEQ_K, "changed", R0)
        self.emit(MOV, R8, R0)
        self.store(run.begin, 0)
        self.read_task(facts.walk.task_mm, "release")
        self.put(run.begin, R1)
        self.label("release")
        self._release()
        self.get(R1, run.begin)
        self.get(R2, run.mm)
        self.jump(JNE, "changed", R1, R2)
        self.emit(MOV, R3, R1)
        self.emit(ADD_K, R3, imm=facts.walk.mm_pgd)
        self.read("changed")
        self.get(R2, run.pgd)
        self.jump(JEQ, "next_target", R1, R2)
        self.label("changed")
        self.store(target.space, 0)
        self.store(target.status, lay.CHANGED)
        self.jump(JA, "next_target")

    # -- a step of a region: look, or draw --------------------------------------------------------------------------

    def _next_step(self) -> None:
        run, region = self.run, self.region
        self.label("next_step")
        self.advance(_STEPS, "target_done")
        self.get(R1, run.cursor)
        self.get(R2, run.end)
        self.jump(JGE, "target_done", R1, R2)
        self.jump(JGE_K, "target_done", R1, imm=self.layout.regions)
        self.element(R8, R1, lay.REGION.itemsize, self.layout.regions_at)
        self.get(R1, run.step)
        self.jump(JNE_K, "draw", R1, imm=_LOOK)
        self.wants(lay.CHECK, "look")
        self.jump(JA, "begin_draw")
        self.label("look")
        self.get(R1, region.watched)
        self.jump(JEQ_K, "cannot_tell", R1)
        self.get(R2, run.stale)
        self.jump(JNE_K, "cannot_tell", R2)
        self.put(run.address, R1)
        self.jump(JA, "walk")

    def _draw_address(self) -> None:
        """Draw a page of the region, into ``address``."""
        run, region, target = self.run, self.region, self.target
        self.label("cannot_tell")
        self.count(region.unknown)
        self.label("begin_draw")
        self.wants(lay.DRAW, "wanted")
        self.store(region.watched, 0)
        self.jump(JA, "next_region")
        self.label("wanted")
        self.jump(JSET_K, "only_unwatched", R1, imm=lay.FRESH)
        self.jump(JA, "unwatch")
        self.label("only_unwatched")
        self.get(R1, region.watched)
        self.jump(JNE_K, "next_region", R1)
        self.label("unwatch")
        self.store(region.watched, 0)
        self.store(run.step, _FIRST_DRAW)
        self.get(R1, run.pgd)
        self.jump(JEQ_K, "stuck", R1)

        self.label("draw")
        self._random_number()
        self.get(R2, run.step)
        self.jump(JGE_K, "draw_resident", R2, imm=_FIRST_RESIDENT)
        self.get(R3, region.pages)
        self.emit(MOD, R1, R3)
        self.emit(LSH_K, R1, imm=12)
        self.get(R3, region.start)
        self.emit(ADD, R1, R3)
        self.jump(JNE_K, "drawn", R2, imm=_FIRST_DRAW)
        self.put(region.drawn, R1)
        self.jump(JA, "drawn")
        self.label("draw_resident")
        self._resident_address()
        self.label("drawn")
        self.put(run.address, R1)
        self.get(R2, target.refusals)
        self.jump(JEQ_K, "walk", R2)
        for at in range(target.refused.offset, target.refused.offset + 16 * lay.REFUSED_RANGES, 16):
            self.emit(MOV, R2, R1)
            self.emit(LDX8, R3, R6, at)
            self.emit(SUB, R2, R3)
            self.emit(LDX8, R3, R6, at + 8)
            self.jump(JGE, f"outside_{at}", R2, R3)
            self.jump(JA, "retry")
            self.label(f"outside_{at}")

    def _random_number(self) -> None:
        """r1 = a random number of 53 bits; r2 is lost."""
        self.get(R1, self.run.random)
        for opcode, shift in ((RSH_K, 12), (LSH_K, 25), (RSH_K, 27)):
            self.emit(MOV, R2, R1)
            self.emit(opcode, R2, imm=shift)
            self.emit(XOR, R1, R2)
        self.put(self.run.random, R1)
        self.constant(R2, RANDOM_FACTOR)
        self.emit(MUL, R1, R2)
        self.emit(RSH_K, R1, imm=11)

    def _resident_address(self) -> None:
        """r1 = the address of one of the region's resident pages, chosen by the random number r1.

        Its rank among all resident pages is looked for in ``before`` bit by bit, without a branch: the verifier would
        follow all of them.
        """
        region, layout = self.region, self.layout
        self.get(R3, region.resident)
        self.emit(MOD, R1, R3)
        self.get(R3, region.rank)
        self.emit(ADD, R1, R3)
        self.emit(MOV_K, R2)  # the run
        for bit in reversed(range(layout.run_bits)):
            self.emit(MOV, R3, R2)
            self.emit(OR_K, R3, imm=1 << bit)
            self.element(R4, R3, 8, layout.before_at)
            self.emit(LDX8, R4, R4)
            self.emit(MOV, R5, R1)
            self.emit(SUB, R5, R4)
            self.emit(ARSH_K, R5, imm=63)  # all ones if the rank is below
            self.emit(MOV_K, R4, imm=-1)
            self.emit(XOR, R5, R4)
            self.emit(AND_K, R5, imm=1 << bit)
            self.emit(OR, R2, R5)
        self.emit(MOV, R3, R2)
        self.element(R4, R3, 8, layout.before_at)
        self.emit(LDX8, R4, R4)
        self.emit(SUB, R1, R4)
        self.emit(LSH_K, R1, imm=12)
        self.element(R4, R2, 8, layout.starts_at)
        self.emit(LDX8, R4, R4)
        self.emit(ADD, R1, R4)

    def _walked(self) -> None:
        """Keep what the walk found, and go on by what it was for."""
        run = self.run
        self.label("walked")
        self.put(run.entry, R1)
        self.put(run.level, R2)
        self.put(run.slot, R9)
        self.emit(AND_K, R1, imm=self.tables.accessed)
        self.put(run.young, R1)
        self.get(R3, run.step)
        self.jump(JNE_K, "settle", R3, imm=_LOOK)

    def _answer(self) -> None:
        """Count what the window says: by its page's level at its start and now, and the accessed bit."""
        run, region = self.run, self.region
        self.jump(JNE_K, "was_read", R2, imm=LEVEL_UNKNOWN)
        self.count(run.failed)
        self.jump(JA, "unknown_answer")
        self.label("was_read")
        self.jump(JNE_K, "is_mapped", R2, imm=LEVEL_ABSENT)
        self.get(R3, region.level)
        self.jump(JEQ_K, "answered", R3, imm=LEVEL_ABSENT)
        self.jump(JA, "unknown_answer")  # unmapped since, and the bit is lost
        self.label("is_mapped")
        self.get(R1, run.young)
        self.jump(JEQ_K, "answered", R1)
        self.jump(JNE_K, "accessed", R2, imm=LEVEL_2M)
        self.get(R3, region.level)
        self.jump(JNE_K, "accessed", R3, imm=LEVEL_4K)
        # Put into a huge page by the kernel, which sets the new bit.
        self.label("unknown_answer")
        self.count(region.unknown)
        self.jump(JA, "answered")
        self.label("accessed")
        self.count(region.accessed)
        self.label("answered")
        self.store(region.watched, 0)
        self.store(run.step, _FIRST_DRAW)
        self.wants(lay.DRAW, "next_step")
        self.jump(JA, "next_region")

    def _settle(self) -> None:
        """Decide about the page that was drawn: watch it, watch it once it is cleared, or draw another one."""
        run, region = self.run, self.region
        self.label("settle")
        self.jump(JNE_K, "can_be_read", R2, imm=LEVEL_UNKNOWN)
        self.count(run.failed)
        self.jump(JA, "retry")
        self.label("can_be_read")
        self.jump(JNE_K, "mapped", R2, imm=LEVEL_ABSENT)
        self.jump(JGE_K, "watch", R3, imm=_FIRST_RESIDENT)
        self.get(R1, region.resident)
        self.jump(JNE_K, "prefer_resident", R1)
        self.count(self.target.absent)
        self.jump(JA, "watch")
        self.label("prefer_resident")
        self.store(run.step, _FIRST_RESIDENT)
        self.jump(JA, "next_step")
        self.label("mapped")
        self.get(R1, run.young)
        self.jump(JNE_K, "look_at_page", R1)
        self.get(R1, region.flags)
        self.jump(JSET_K, "look_at_page", R1, imm=lay.CAREFUL)
        self.wants(lay.FRESH, "look_at_page")
        self.jump(JA, "watch")

    def _end_of_step(self) -> None:
        run, target, region = self.run, self.target, self.region
        self.label("slow")
        self.get(R1, run.young)
        self.jump(JEQ_K, "watch", R1)
        self.get(R1, run.slow)
        self.jump(JGE_K, "stuck", R1, imm=self.layout.regions)
        self.emit(MOV, R2, R1)
        self.emit(ADD_K, R2, imm=1)
        self.put(run.slow, R2)
        self.element(R4, R1, 4, self.layout.slow_at)
        self.get(R2, run.cursor)
        self.emit(STX4, R4, R2, 0)
        self.jump(JA, "watch")

        self.label("uncleared")
        self.get(R1, region.flags)
        self.emit(OR_K, R1, imm=lay.CAREFUL | lay.MET)
        self.put(region.flags, R1)
        self.label("retry")
        self.get(R1, run.step)
        self.jump(JEQ_K, "stuck", R1, imm=_LAST_DRAW)
        self.jump(JGE_K, "stuck", R1, imm=_LAST_RESIDENT)
        self.emit(ADD_K, R1, imm=1)
        self.put(run.step, R1)
        self.jump(JA, "next_step")

        self.label("stuck")
        self.count(run.unwatched)
        self.count(target.unwatched)
        self.jump(JA, "next_region")
        self.label("watch")
        self.get(R1, run.address)
        self.put(region.watched, R1)
        self.get(R1, run.level)
        self.put(region.level, R1)
        self.label("next_region")
        self.count(run.cursor)
        self.store(run.step, _LOOK)
        self.jump(JA, "next_step")
