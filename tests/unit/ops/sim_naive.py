"""A second, literal simulation for comparison: one Python object per page, every rule as docs/simulator.md says it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydamon.spec import Scheme
from pydamon.spec.machine import MachineSpec
from pydamon.workload.layout import Layout
from pydamon.workload.program import Accesses
from pydamon.workload.truth import Schedule

PAGE = 4096
HUGE = 2 << 20
STEPS_S = (1, 4, 16, 64, 256, 1024, 4096)


@dataclass
class Page:
    address: int
    anon: bool
    node: int | None = None
    mapped: bool = True
    huge: bool = False
    active: bool = False
    young: bool = True
    advice: str = ""
    incoming: bool = False

    def lose(self) -> None:
        self.node = None
        self.mapped = self.huge = self.active = self.young = self.incoming = False


class NaiveMachine:
    """One target on a machine with given sizes."""

    def __init__(self, spec: MachineSpec, layout: Layout, model: Accesses, schedule: Schedule, now_ns: int) -> None:
        self.spec, self.layout, self.model, self.schedule, self.now_ns = spec, layout, model, schedule, now_ns
        self.pages = [
            Page(address, place.name not in spec.file_regions, incoming=True)
            for place in layout.regions
            for address in range(place.start, place.end, PAGE)
        ]
        self.faults = self.reclaimed = self.first_touches = 0
        self.admit()

    def node_free(self, node: int) -> int:
        return self.spec.node_bytes[node] // PAGE - sum(page.node == node for page in self.pages)

    def free(self) -> int:
        return sum(self.node_free(node) for node in range(len(self.spec.node_bytes)))

    def swap_free(self) -> int:
        assert self.spec.swap_bytes is not None
        out = sum(page.anon and page.node is None and not page.incoming for page in self.pages)
        return self.spec.swap_bytes // PAGE - out

    def accessed(self, pages: list[Page], start_ns: int, end_ns: int) -> list[bool]:
        addresses = np.array([page.address for page in pages], np.uint64)
        result: list[bool] = self.model.accessed(addresses, self.schedule, start_ns, end_ns).tolist()
        return result

    def block(self, page: Page) -> list[Page]:
        return [other for other in self.pages if other.address // HUGE == page.address // HUGE]

    def put(self, page: Page) -> None:
        page.node = next(node for node in range(len(self.spec.node_bytes)) if self.node_free(node))

    def advance(self, now_ns: int) -> None:
        if now_ns <= self.now_ns:
            return
        start_ns, self.now_ns = self.now_ns, now_ns
        hit = [p for p, yes in zip(self.pages, self.accessed(self.pages, start_ns, now_ns), strict=True) if yes]
        for page in hit:
            if page.node is None:
                self.faults += 1
                page.incoming = page.active = page.mapped = page.young = True
            else:
                self.first_touches += not page.mapped
                for other in self.block(page) if page.huge else [page]:
                    other.mapped = other.young = True
        self.admit()
        self.split()

    def admit(self) -> None:
        missing = sum(page.incoming for page in self.pages) - self.free()
        if missing > 0:
            left, age = list(self.pages), {page.address: len(STEPS_S) for page in self.pages}
            left = [page for page in left if page.node is not None or page.incoming]
            for step in reversed(range(len(STEPS_S))):
                touched = self.accessed(left, self.now_ns - STEPS_S[step] * 10**9, self.now_ns) if left else []
                left = [page for page, yes in zip(left, touched, strict=True) if yes]
                for page in left:
                    age[page.address] = step
            there = [page for page in self.pages if page.node is not None or page.incoming]
            there.sort(key=lambda p: (age[p.address] == 0 or p.incoming, p.active, -age[p.address], p.address))
            room = self.swap_free()
            for page in there:
                if not missing or (page.anon and not room):
                    continue
                missing, room = missing - 1, room - page.anon
                self.reclaimed += page.node is not None
                page.lose()
        for page in self.pages:
            if page.incoming:
                page.incoming = False
                self.put(page)

    def split(self) -> None:
        """Huge pages whose parts have come to differ are no more."""
        for page in self.pages:
            parts = self.block(page) if page.huge else []
            states = {(p.huge, p.node, p.active, p.young, p.mapped, p.advice) for p in parts}
            if len(states) > 1:
                for part in parts:
                    part.huge = False

    # -- schemes --------------------------------------------------------------------------------------------------

    def matches(self, page: Page, item: object) -> bool:
        kind = item.filter_type  # type: ignore[attr-defined]
        if kind == "hugepage_size":
            size = item.hugepage_size  # type: ignore[attr-defined]
            return page.node is not None and size.min <= (HUGE if page.huge else PAGE) <= size.max
        return {
            "anon": page.anon,
            "active": page.active,
            "young": page.young,
            "memcg": item.memcg_path == "/sim/0",  # type: ignore[attr-defined]
            "unmapped": page.node is not None and not page.mapped,
            "node": page.node is not None and page.node == item.nid,  # type: ignore[attr-defined]
        }[kind]

    def apply(self, scheme: Scheme, regions: list[tuple[int, int]], allowed: list[bool]) -> tuple[list[int], list[int]]:
        """Bytes applied and passed per region."""
        clear: list[Page] = []
        chosen: list[list[Page]] = []
        for (start, end), free in zip(regions, allowed, strict=True):
            chosen.append([])
            for page in (p for p in self.pages if start <= p.address < end):
                verdict = True
                for item in () if free else scheme.ops_filters:
                    yes = self.matches(page, item)
                    if item.filter_type == "young" and yes:
                        clear.append(page)
                    verdict = item.allow if yes == item.matching else not item.allow
                    if yes == item.matching:
                        break
                if verdict:
                    chosen[-1].append(page)
        for page in clear:
            for part in self.block(page) if page.huge else [page]:
                part.young = False
        applied = self.act(scheme, chosen)
        self.split()
        return [n * PAGE for n in applied], [len(pages) * PAGE for pages in chosen]

    def act(self, scheme: Scheme, chosen: list[list[Page]]) -> list[int]:
        action = scheme.action
        applied = [0] * len(chosen)
        if action in ("collapse", "hugepage", "nohugepage"):
            for number, pages in enumerate(chosen):
                applied[number] = self.huge_action(action, pages)
            return applied
        if action in ("migrate_hot", "migrate_cold"):
            owners = {id(page): self.destination(page, scheme) for pages in chosen for page in pages}
            for dest_number, dest in enumerate(scheme.destinations):
                for number, pages in enumerate(chosen):
                    for page in pages:
                        mine = owners[id(page)] == dest_number and page.node not in (None, dest.id)
                        if mine and self.node_free(dest.id):
                            page.node = dest.id
                            applied[number] += 1
            return applied
        for number, pages in enumerate(chosen):
            for page in pages:
                if action == "willneed" and page.node is None and self.free():
                    self.put(page)
                    applied[number] += 1
                if page.node is None or action in ("willneed", "stat"):
                    continue
                if action == "pageout" and (not page.anon or self.swap_free()):
                    page.lose()
                    applied[number] += 1
                if action in ("cold", "lru_deprio", "lru_prio"):
                    page.active = action == "lru_prio"
                    page.young = page.young and action != "cold"
                    applied[number] += 1
        return applied

    def destination(self, page: Page, scheme: Scheme) -> int:
        place = next(m for m in self.layout.mappings if m.start <= page.address < m.end)
        unit = HUGE if page.huge else PAGE
        base = place.start // HUGE * HUGE if page.huge else place.start
        rest = (page.address - base) // unit % sum(dest.weight for dest in scheme.destinations)
        for number, dest in enumerate(scheme.destinations):
            if rest < dest.weight or len(scheme.destinations) == 1:
                return number
            rest -= dest.weight
        raise AssertionError

    def huge_action(self, action: str, pages: list[Page]) -> int:
        blocks: dict[int, list[Page]] = {}
        for page in pages:
            if page.anon:
                blocks.setdefault(page.address // HUGE, []).append(page)
        done = 0
        for parts in blocks.values():
            if len(parts) < HUGE // PAGE:
                continue
            changed = [False] * len(parts)
            if action != "collapse":
                advice = "yes" if action == "hugepage" else "no"
                changed = [part.advice != advice for part in parts]
                for part in parts:
                    part.advice = advice
            nodes = {part.node for part in parts}
            fit = len(nodes) == 1 and None not in nodes and not any(p.huge or p.advice == "no" for p in parts)
            if fit and action != "nohugepage":
                changed = [True] * len(parts)
                active, young = any(p.active for p in parts), any(p.young for p in parts)
                mapped, advised = any(p.mapped for p in parts), any(p.advice == "yes" for p in parts)
                for part in parts:
                    part.huge, part.active, part.young, part.mapped = True, active, young, mapped
                    part.advice = "yes" if advised else ""
            done += sum(changed)
        return done
