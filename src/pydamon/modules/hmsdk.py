"""Options of HMSDK's ``tools/gen_migpol.py`` as a spec with the module `tier`. Pure.

Of that policy (HMSDK 4.0): intervals of 100 ms, 2 s and 20 s, 100 to 10,000 regions of physical memory; what was not
used for 30 s is demoted, what 5 % of samples find used is promoted, at most 50 GiB in 20 s; there are no goals.
"""

from __future__ import annotations

import shlex

import msgspec

from pydamon.errors import RequestError, located
from pydamon.modules.chains import Chains, parse_chains, write_chains
from pydamon.spec import Context, Intervals, Kdamond, NrRegions, Spec, Target
from pydamon.spec.forms.scheme_short import shown

_CGROUP = "/hmsdk"
_OPTIONS = {"-d": 2, "-p": 2, "-g": 0, "-s": 1, "-o": 1}  # and how many values each has


class Converted(msgspec.Struct, frozen=True):
    """A spec, and what of the policy it does not have, a line each."""

    spec: Spec
    remarks: tuple[str, ...] = ()


def convert(text: str) -> Converted:
    """``-d 0 2 -p 2 0 -g`` becomes a spec. Raises RequestError naming the option."""
    demote, promote, seen = _options(text)
    ways = demote + [(fast, slow) for slow, fast in promote]
    if not ways:
        raise RequestError("names no nodes; write it like '-d 0 2 -p 2 0'")
    chains = _chains(list(dict.fromkeys(ways)))
    only = "both" if set(demote) == set(ways) == {(fast, slow) for slow, fast in promote} else None
    if only is None:
        missing = [f"{fast} to {slow}" for fast, slow in ways if (fast, slow) not in demote]
        missing += [f"{slow} to {fast}" for fast, slow in ways if (slow, fast) not in promote]
        if demote and promote:
            raise RequestError(f"is one way only between nodes {missing[0]}; tier moves both ways, or one way for all")
        only = "down" if demote else "up"
    knobs = f"tiers={write_chains(chains)} way={only} hot=5% cold_age=30s used=100% free=100%"
    module = f"tier {knobs} quota=1s+50GiB/20s{'' if '-g' in seen else f' cgroup={_CGROUP}'}"
    context = Context(
        ops="paddr",
        targets=(Target(),),
        intervals=Intervals(sample_us=100_000, aggr_us=2_000_000, ops_update_us=20_000_000),
        nr_regions=NrRegions(min=100, max=10_000),
    )
    remarks = [f"{option}: {words}" for option, words in _REMARKS.items() if option in seen]
    if only != "down":
        remarks.append("a promotion may take 2 s in 20 s there, and 1 s here, as a demotion may")
    return Converted(Spec(kdamonds=(Kdamond(contexts=(context,), modules=(module,)),)), tuple(remarks))


_REMARKS = {
    "-s": "memory is not split over several kdamonds: one watches all of it",
    "-o": "is not written; the spec goes to the standard output",
}


def _options(text: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]], set[str]]:
    """The pairs of -d and of -p as they stand, and all options that are there."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RequestError(f"{shown(text)}: {str(error).lower()}") from None
    found: dict[str, list[tuple[int, int]]] = {"-d": [], "-p": []}
    seen: set[str] = set()
    while words:
        name = words.pop(0)
        if name not in _OPTIONS:
            raise RequestError(
                f"{shown(name)} is no option of gen_migpol.py that is understood; it has -d, -p, -g, -s, -o"
            )
        number, option = _OPTIONS[name], name
        values, words = words[:number], words[number:]
        seen.add(option)
        with located(option):
            if len(values) < number:
                raise RequestError(f"needs {number} value{'s' if number > 1 else ''}, like {_LIKE[option]}")
            if option in found:
                found[option].append((_node(values[0]), _node(values[1])))
    return found["-d"], found["-p"], seen


_LIKE = {"-d": "-d 0 2", "-p": "-p 2 0", "-s": "-s 50G", "-o": "-o FILE"}


def _node(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise RequestError(f"{shown(text)} is no number of a NUMA node")
    return int(text)


def _chains(ways: list[tuple[int, int]]) -> Chains:
    """Pairs (fast, slow) as chains; those that share a node follow each other."""
    below: dict[int, int] = {}
    for fast, slow in ways:
        if below.setdefault(fast, slow) != slow or sum(other == slow for _, other in ways) > 1:
            raise RequestError(
                f"moves from or to node {fast} or {slow} twice; write such tiers by hand, like tiers=0,1>2"
            )
    tops = [fast for fast in below if fast not in below.values()]
    texts = []
    for top in tops:
        chain = [top]
        while chain[-1] in below:
            chain.append(below[chain[-1]])
        texts.append(">".join(map(str, chain)))
    if not texts:
        raise RequestError("moves in a circle; a node is faster than another, or slower")
    return parse_chains("+".join(texts))
