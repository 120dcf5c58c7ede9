"""Actions of schemes on the virtual address spaces of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, located
from pydamon.linux import move_pages
from pydamon.linux.mapping_names import full_name
from pydamon.linux.pagemap import Pagemap
from pydamon.linux.process import Mapping, Process, ProcessGone
from pydamon.linux.work_time import WorkTime
from pydamon.ops.actions import acting
from pydamon.ops.actions.acting import DOINGS, Subject
from pydamon.ops.actions.collapsing import whole_blocks
from pydamon.ops.actions.common import Actions
from pydamon.ops.actions.pages import MappingArrays, Pages, Segments, segments, sizes, survey
from pydamon.ops.actions.plan import Plan
from pydamon.ops.base import Addresses, Applied
from pydamon.ops.membership import command_of
from pydamon.plain import printable
from pydamon.spec import Scheme

Mask = NDArray[np.bool_]


class Targets(Protocol):
    """What is needed of the operations set: processes and what they are asked through, by target."""

    processes: list[Process]

    @property
    def primitives(self) -> Sequence[object]:
        """One per process."""
        ...

    def target_valid(self, target: int) -> bool:
        """Whether the process lives and may be looked at."""
        ...


class VirtualActions(Actions):
    """Applies schemes to processes; see `Actions` for ``dry_run`` and ``remember_homes``."""

    def __init__(self, targets: Targets, *, dry_run: bool = False, remember_homes: bool = False) -> None:
        super().__init__(dry_run=dry_run, remember_homes=remember_homes)
        self._targets = targets

    def check_scheme(self, scheme: Scheme) -> None:
        """Raise MachineError, naming the field, if the action or a filter cannot be done here; changes nothing."""
        if scheme.does.migrates:
            acting.require_nodes(scheme)
        live = [at for at in range(len(self._targets.processes)) if self._targets.target_valid(at)]
        for target in live:
            process = self._targets.processes[target]
            try:
                acting.require(scheme.action, process)
            except MachineError as error:
                if not self.dry_run or not _readable(process):
                    raise MachineError(str(error), where="action") from None
                self.note(f"only a dry run can be made here: {error}")
        primitives = [self._targets.primitives[target] for target in live]
        with located("filters"):
            self._filters.check(scheme.filters, primitives, virtual=True)

    def apply_scheme(
        self, target: int, scheme: Scheme, start: Addresses, end: Addresses, allowed: NDArray[np.bool_]
    ) -> Applied:
        """Apply the scheme's action to the regions [start, end) of a target, less what its page filters reject.

        What ``passed`` is: all of a region that no page filter is for; else the pages in memory (for willneed those in
        swap, too) that the filters let pass. Raises MachineError if a permission was lost.
        """
        work = WorkTime()
        order = np.argsort(start, kind="stable")
        start, end, allowed = start[order], end[order], allowed[order]
        filtered = ~allowed if scheme.ops_filters else np.zeros(len(start), np.bool_)
        applied, passed = np.zeros(len(start), np.uint64), np.where(filtered, np.uint64(0), end - start)
        added = refused = 0
        with self._open(target, len(start)) as subject:
            if subject is not None:
                applied += self._apply(target, subject, scheme, start, end, filtered, passed)
                added, refused = subject.added, subject.refused
        back = np.argsort(order, kind="stable")
        acted = self._take_acted()
        return Applied(np.minimum(applied, passed)[back], passed[back], work.spent_ns(), acted, added, refused)

    @contextmanager
    def _open(self, target: int, regions: int) -> Iterator[Subject | None]:
        """The process as it is now; None if it has ended, or (for this once) may not be looked at."""
        process = self._targets.processes[target]
        if not self._targets.target_valid(target):
            yield None
            return
        try:
            layout = MappingArrays(process.mappings())
            table = Pagemap(process.pid)
        except (ProcessGone, MachineError):
            yield None
            return
        try:
            # The file is this process's only if that still lives.
            alive = process.alive() and bool(layout.mappings)
            yield Subject(process, table, layout, regions, self._homes, self.collapsed) if alive else None
        finally:
            table.close()

    def _apply(
        self,
        target: int,
        subject: Subject,
        scheme: Scheme,
        start: Addresses,
        end: Addresses,
        filtered: Mask,
        passed: NDArray[np.uint64],
    ) -> NDArray[np.uint64]:
        """Apply; adds what filters let pass to ``passed``."""
        wanted = segments(start, end, subject.layout)
        plan = Plan(scheme, target, []) if self.dry_run else None
        owners = _owners(subject) if plan is not None else []
        applied = np.zeros(len(start), np.uint64)
        acts = scheme.does.acts
        if acts and DOINGS[scheme.action].on_ranges is not None:
            # Of filtered regions the pages that pass are advised on, of the others all.
            through = self._filter_ranges(target, subject, scheme, wanted, filtered, passed)
            if plan is not None:
                plan.add_segments(through, owners)
            applied += acting.on_ranges(subject, scheme, through, dry_run=self.dry_run)
        elif acts or filtered.any():
            for pages in survey(subject.table, wanted):
                through_mask = self._pass(target, subject, scheme, pages, filtered)
                passed += sizes(pages, through_mask & filtered[pages.region], len(start))
                if not acts:
                    continue
                chosen = pages.take(through_mask & pages.resident)
                if DOINGS[scheme.action].blocks:
                    rejected = pages.address[~through_mask & pages.resident]
                    chosen = chosen.take(whole_blocks(chosen, rejected, start, end, subject.layout))
                if plan is not None:
                    plan.add_pages(chosen, owners)
                applied += acting.on_pages(subject, scheme, chosen, dry_run=self.dry_run)
        if plan is not None:
            self._keep(plan)
        return applied

    def _pass(self, target: int, subject: Subject, scheme: Scheme, pages: Pages, filtered: Mask) -> Mask:
        """Which pages may be acted on: in memory (or in swap, which only some actions are for) and not rejected."""
        through = pages.resident | (scheme.does.acts and DOINGS[scheme.action].swapped)
        index = np.flatnonzero(through & filtered[pages.region])
        if len(index):
            some = pages.take(index)
            ages = self._targets.primitives[target]
            through[index] = self._filters.decide(
                some, scheme.ops_filters, ages, table=subject.table, nodes=partial(acting.nodes_of, subject.process)
            )
        return through

    def _filter_ranges(
        self,
        target: int,
        subject: Subject,
        scheme: Scheme,
        wanted: Segments,
        filtered: Mask,
        passed: NDArray[np.uint64],
    ) -> Segments:
        mine = filtered[wanted.region]
        if not mine.any():
            return wanted
        parts = [wanted.take(~mine)]
        for pages in survey(subject.table, wanted.take(mine)):
            chosen = pages.take(self._pass(target, subject, scheme, pages, filtered))
            passed += sizes(chosen, np.ones(len(chosen), np.bool_), len(passed))
            # A run of pages that reaches into the next region is cut there.
            edges = np.concatenate([np.zeros(1, np.intp), np.flatnonzero(_breaks(chosen)) + 1])
            ends = np.append(edges[1:], len(chosen))
            if len(chosen):
                ranges = np.stack([chosen.address[edges], chosen.address[ends - 1] + np.uint64(4096)], axis=1)
                parts.append(Segments(ranges, chosen.region[edges], chosen.mapping[edges]))
        ranges = np.concatenate([part.ranges for part in parts])
        order = np.argsort(ranges[:, 0], kind="stable")
        region = np.concatenate([part.region for part in parts])
        mapping = np.concatenate([part.mapping for part in parts])
        return Segments(ranges[order], region[order], mapping[order])

    def node_bytes(self, target: int, start: Addresses, end: Addresses, nid: int) -> int:
        """Bytes of the ranges (sorted) that are in memory of the NUMA node ``nid``."""
        with self._open(target, len(start)) as subject:
            if subject is None:
                return 0
            only = move_pages.memory_nodes() == [nid]
            total = 0
            for pages in survey(subject.table, segments(start, end, subject.layout)):
                if only:
                    total += int(np.count_nonzero(pages.resident)) * 4096
                else:
                    total += acting.node_bytes(subject.process, pages, nid)
            return total


def _readable(process: Process) -> bool:
    """Whether this user is told which pages of the process are in memory: a dry run needs no more."""
    try:
        Pagemap(process.pid).close()
    except MachineError:
        return False
    return True


def _breaks(pages: Pages) -> Mask:
    breaks: Mask = (np.diff(pages.address) != np.uint64(4096)) | (np.diff(pages.region) != 0)
    breaks |= np.diff(pages.mapping) != 0
    return breaks


def _owners(subject: Subject) -> list[str]:
    """Whose memory each mapping is: the command, and what is mapped."""
    command = f"{command_of(subject.process)} (pid {subject.process.pid})"
    return [f"{command} {_name(mapping)}" for mapping in subject.layout.mappings]


def _name(mapping: Mapping) -> str:
    text = printable(full_name(mapping))
    return text if len(text) <= 200 else text[:199] + "…"
