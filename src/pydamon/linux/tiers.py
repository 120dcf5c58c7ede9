"""NUMA nodes with memory and how fast each is, from sysfs; and the tiers of memory that follow from it.

``node/nodeN`` has distances, and with an HMAT (Documentation/admin-guide/mm/numaperf.rst) bandwidth and latency of
the nearest processors' accesses; ``memory_tiering/memory_tierN`` (Linux 6.1) is what the kernel has made of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pydamon.errors import MachineError
from pydamon.linux.texts import read_text

NODES = Path("/sys/devices/system/node")
TIERS = Path("/sys/devices/virtual/memory_tiering")
WEIGHTS = Path("/sys/kernel/mm/mempolicy/weighted_interleave")
_MOST_NODE = 1023
_MOST_NUMBER = 1 << 40
_TIER = re.compile(r"memory_tier(\d{1,5})", re.ASCII)
_ALIKE_PERCENT = 20  # nodes whose latencies differ by no more are of one tier
_NOT_REACHED = 255  # a distance that says so

Level = tuple[tuple[int, int], ...]  # nodes of one tier, each with its weight
Chain = tuple[Level, ...]  # tiers that feed each other, the fastest first


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A NUMA node with memory; None where the machine does not tell.

    ``distances`` are those to other nodes. Of the processors that are nearest to it: ``bandwidth`` of reads in MB/s,
    ``latency`` of reads in ns. ``tier`` is the kernel's (less is faster), ``weight`` its share in weighted interleave.
    """

    nid: int
    has_cpus: bool
    distances: dict[int, int] = {}
    bandwidth: int | None = None
    latency: int | None = None
    tier: int | None = None
    weight: int | None = None


def read(nodes: Path = NODES, tiers: Path = TIERS, weights: Path = WEIGHTS) -> list[Node]:
    """The nodes that are online and have memory, in the order of their numbers.

    Raises MachineError where the machine does not tell; what only some files do not tell, or tell in other words than
    the kernel's documents, is not known.
    """
    with_memory, with_cpus = listed(nodes / "has_memory"), listed(nodes / "has_cpu")
    if with_memory is None:
        raise MachineError("cannot be read; it needs a kernel with CONFIG_NUMA and /sys", where=str(nodes))
    online = listed(nodes / "online") or with_memory
    of_tier = {nid: tier for tier, nids in _kernels_tiers(tiers) for nid in nids}
    return [
        _node(nodes / f"node{nid}", nid, nid in (with_cpus or ()), online, of_tier.get(nid), weights / f"node{nid}")
        for nid in with_memory
        if nid in online
    ]


def _node(at: Path, nid: int, has_cpus: bool, online: Sequence[int], tier: int | None, weight: Path) -> Node:
    told = _text(at / "distance").split()
    known = [_number(word) for word in told] if len(told) == len(online) else []
    return Node(
        nid=nid,
        has_cpus=has_cpus,
        distances={other: far for other, far in zip(online, known, strict=False) if far is not None},
        bandwidth=_number(_text(at / "access0/initiators/read_bandwidth")) or None,
        latency=_number(_text(at / "access0/initiators/read_latency")) or None,
        tier=tier,
        weight=_number(_text(weight)) or None,
    )


def _kernels_tiers(tiers: Path) -> list[tuple[int, list[int]]]:
    """The kernel's tiers by their number, and the nodes of each."""
    try:
        names = sorted(path.name for path in tiers.iterdir())
    except OSError:
        return []
    found = []
    for name in names:
        matched = _TIER.fullmatch(name)
        nids = listed(tiers / name / "nodelist") if matched else None
        if matched and nids:
            found.append((int(matched[1]), nids))
    return found


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except OSError:
        return ""


def _number(text: str) -> int | None:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        return None
    value = int(text)
    return value if value <= _MOST_NUMBER else None


def listed(path: str | Path, most: int = _MOST_NODE) -> list[int] | None:
    """A list like ``0-2,4``, of numbers up to ``most``; None if it cannot be read or is none. Raises nothing."""
    found: set[int] = set()
    try:
        text = read_text(path).strip()
    except OSError:
        return None
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        low, high = _number(first), _number(last if dash else first)
        if low is None or high is None or not low <= high <= most:
            return None
        found.update(range(low, high + 1))
    return sorted(found)


# -- what follows from it ---------------------------------------------------------------------------------------------


def chains(nodes: Sequence[Node]) -> tuple[Chain, ...]:
    """Which nodes feed which: one chain of tiers, or one for each socket where each has slow memory of its own.

    Raises MachineError where all memory is alike.
    """
    tiers = levels(nodes)
    if len(tiers) < 2:
        raise MachineError(_one_tier(nodes))
    own = _own_chains(tiers)
    if own is not None:
        return tuple(tuple(((node.nid, 1),) for node in chain) for chain in own)
    return (tuple(_weighted(tier) for tier in tiers),)


def _one_tier(nodes: Sequence[Node]) -> str:
    if len(nodes) < 2:
        only = f" ({nodes[0].nid})" if nodes else ""
        return f"this machine has one NUMA node with memory{only}: there is none to move to"
    nids = ", ".join(str(node.nid) for node in nodes)
    return f"the memory of nodes {nids} is alike, as far as this machine tells: there is no slower tier"


def levels(nodes: Sequence[Node]) -> list[list[Node]]:
    """The tiers, the fastest first: as the kernel says if it has several; else by latency; else by distance.

    Without any of it, nodes with processors are the fast ones.
    """
    by_kernel: dict[int, list[Node]] = {}
    for node in nodes:
        if node.tier is not None:
            by_kernel.setdefault(node.tier, []).append(node)
    if len(by_kernel) > 1 and sum(map(len, by_kernel.values())) == len(nodes):
        return [by_kernel[tier] for tier in sorted(by_kernel)]
    if len(nodes) > 1 and all(node.latency is not None for node in nodes):
        found = _by_latency(nodes)
        if len(found) > 1:
            return found
    near = [node for node in nodes if node.has_cpus]
    if not near:
        return [list(nodes)] if nodes else []
    far: dict[int, list[Node]] = {}
    for node in nodes:
        if not node.has_cpus:
            known = [node.distances[other.nid] for other in near if other.nid in node.distances]
            far.setdefault(min(known, default=_NOT_REACHED), []).append(node)
    return [near, *(far[distance] for distance in sorted(far))]


def _by_latency(nodes: Sequence[Node]) -> list[list[Node]]:
    """Nodes with processors are never slower than those without that have their latency."""
    ordered = sorted(nodes, key=lambda node: (node.latency or 0, not node.has_cpus, node.nid))
    found: list[list[Node]] = [[ordered[0]]]
    for node in ordered[1:]:
        first = found[-1][0]
        alike = (node.latency or 0) * 100 <= (first.latency or 0) * (100 + _ALIKE_PERCENT)
        if alike and node.has_cpus == first.has_cpus:
            found[-1].append(node)
        else:
            found.append([node])
    return found


def _own_chains(tiers: Sequence[Sequence[Node]]) -> list[list[Node]] | None:
    """A chain for each node of the fastest tier, if all tiers have as many nodes and each is nearest to one."""
    if len(tiers[0]) < 2 or any(len(tier) != len(tiers[0]) for tier in tiers):
        return None
    found = [[node] for node in tiers[0]]
    for tier in tiers[1:]:
        left = {node.nid: node for node in tier}
        for chain in found:
            far = [(chain[0].distances.get(nid, _NOT_REACHED), nid) for nid in left]
            least = min(far)[0]
            nearest = [nid for distance, nid in far if distance == least]
            if len(nearest) > 1 and len(far) == len(tier):
                return None  # none is its own
            chain.append(left.pop(nearest[0]))
    return found


def _weighted(tier: Sequence[Node]) -> Level:
    """Pages of a tier are spread by the kernel's weights, else by bandwidth, else evenly."""
    if len(tier) > 1 and all(node.weight for node in tier):
        return tuple((node.nid, node.weight or 1) for node in tier)
    least = min((node.bandwidth or 0 for node in tier), default=0)
    if len(tier) < 2 or not least:
        return tuple((node.nid, 1) for node in tier)
    return tuple((node.nid, min(max(round((node.bandwidth or 0) / least), 1), 100)) for node in tier)
