"""Tiers of memory as they are written: ``0>1``, ``0:3,1>2``, ``0>2+1>3``. Pure.

NUMA nodes of one tier stand between commas, each with a weight (1); a tier feeds the slower one behind ``>``; chains
that have nothing to do with each other stand between ``+``.
"""

from __future__ import annotations

from itertools import pairwise

from pydamon.errors import RequestError
from pydamon.spec import units
from pydamon.spec.forms.scheme_short import shown
from pydamon.spec.schemes import MAX_NODE

Level = tuple[tuple[int, int], ...]  # nodes of one tier, each with its weight
Chain = tuple[Level, ...]  # the fastest first
Chains = tuple[Chain, ...]

AUTO = "auto"
_MOST_WEIGHT = 1_000


def parse_chains(text: str) -> Chains:
    """Raises RequestError; ``auto`` is none: they are still to be found."""
    if text == AUTO:
        return ()
    chains = tuple(tuple(_level(level) for level in chain.split(">")) for chain in text.split("+"))
    for chain in chains:
        if len(chain) < 2:
            raise RequestError(f"{shown(text)} names one tier; write the slower one behind >, like 0>1")
    nids = [nid for chain in chains for level in chain for nid, _ in level]
    for nid in nids:
        if nids.count(nid) > 1:
            raise RequestError(f"{shown(text)} names node {nid} twice; a node is of one tier")
    return chains


def _level(text: str) -> Level:
    return tuple(_node(item) for item in text.split(","))


def _node(text: str) -> tuple[int, int]:
    nid, colon, weight = text.partition(":")
    if not (nid.isascii() and nid.isdigit() and len(nid) < 6) or int(nid) > MAX_NODE:
        raise RequestError(f"{shown(text)} is no NUMA node, which is 0 to {MAX_NODE}; write tiers like 0>1 or 0:3,1>2")
    share = units.parse_count(weight) if colon else 1
    if not 1 <= share <= _MOST_WEIGHT:
        raise RequestError(f"{shown(text)}: the weight must be 1 to {_MOST_WEIGHT}")
    return int(nid), share


def write_chains(chains: Chains) -> str:
    """As it is read."""
    return "+".join(">".join(map(_written, chain)) for chain in chains) or AUTO


def _written(level: Level) -> str:
    return ",".join(f"{nid}:{weight}" if weight != 1 else str(nid) for nid, weight in level)


def neighbours(chains: Chains) -> list[tuple[Level, Level]]:
    """Each tier with the slower one that it feeds."""
    return [pair for chain in chains for pair in pairwise(chain)]


def fast_nodes(chains: Chains) -> frozenset[int]:
    """The nodes of the fastest tiers."""
    return frozenset(nid for chain in chains for nid, _ in chain[0])
