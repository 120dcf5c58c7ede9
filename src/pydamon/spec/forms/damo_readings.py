"""What damo has read from the kernel's files, beside its records and in ``damo report damon``: each file has a value.

So it tells a node of goals that are of none, and addresses of filters by type: all of them 0, written as text. What
does not go with the metric or the type is taken out; what is not 0 stays, and is refused where it does not go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydamon.spec.metrics import METRICS

# Fields of filters that are of one type, and how damo writes that nothing stands in their files.
_NOTHING: Mapping[str, tuple[str, tuple[Any, ...]]] = {
    "address_range": ("addr", ({"start": "0", "end": "0"},)),
    "damon_target_idx": ("target", ("0",)),
    "hugepage_size": ("hugepage_size", (["0 B", "0 B"], ["0", "0"])),
    "probe_hits_wsum_range": ("probe_hits_wsum", (["0", "0"],)),
}


def goal(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a goal without a node 0 where the metric has none."""
    told = fields.get("metric")
    metric = METRICS.get(told) if isinstance(told, str) else None
    if metric is not None and not metric.of_node and fields.get("nid") == "0":
        fields = {key: value for key, value in fields.items() if key != "nid"}
    return fields


def of_filter(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a filter without those of other types in which nothing stands."""
    kind = fields.get("filter_type")
    found = dict(fields)
    for name, (of_kind, nothing) in _NOTHING.items():
        if kind != of_kind and found.get(name) in nothing:
            del found[name]
    return found
