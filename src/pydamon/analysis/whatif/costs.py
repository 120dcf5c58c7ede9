"""What memory that comes back and goes out costs a program and a CPU, by a machine's costs.

Read-ahead is not counted: nothing in a recording says whether memory comes back in order.
"""

from __future__ import annotations

from pydamon.spec.costs import Backing, Costs

_SECOND_NS = 1_000_000_000
_PAGE = 4096


def lost(costs: Costs, backing: Backing, back_per_s: float, out_per_s: float) -> float:
    """The share of its time that a program loses to so many bytes a second that come back and go out."""
    wait = back_per_s / _PAGE * costs.in_ns(backing) * (1000 - costs.overlap_permil) / 1000
    work = out_per_s / _PAGE * costs.out_ns(backing) * costs.reclaim_on_app_permil / 1000
    return (wait + work) / _SECOND_NS


def cpu(costs: Costs, backing: Backing, back_per_s: float, out_per_s: float) -> float:
    """The share of one CPU that this takes: of an SSD, only what goes out, since reads do not compute."""
    back_ns = costs.in_ns(backing) if backing == "zram" else 0
    return (back_per_s * back_ns + out_per_s * costs.out_ns(backing)) / _PAGE / _SECOND_NS
