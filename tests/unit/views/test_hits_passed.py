"""What probes have hit, on its way to another process: what cannot be true is not believed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pydamon.errors import PydamonError
from pydamon.views.hits import Hits, received

GOOD = Hits(
    target=1,
    time_ns=9,
    duration_ns=4,
    attributes=["anon", "active"],
    weights=[0, 3],
    start=[0x1000, 0x8000],
    end=[0x2000, 0xFFFF_FFFF_FFFF_F000],
    nr_accesses=[1, 2],
    age=[3, 4],
    samples=[5, 5],
    hits=[[5, 0], [1, 2]],
    command="a",
)


def test_it_comes_as_it_went() -> None:
    assert received([msgspec.to_builtins(GOOD)]) == [GOOD]


@pytest.mark.parametrize(
    "change",
    [
        {"start": [0x1000]},
        {"start": [0x3000, 0x8000]},
        {"end": [0x2000, 1 << 64]},
        {"hits": [[6, 0], [1, 2]]},
        {"hits": [[1, 0]]},
        {"hits": [[1, 0]] * 5, "attributes": ["a"] * 5, "weights": [0] * 5},
        {"hits": [], "attributes": [], "weights": []},
        {"samples": [-1, 5]},
        {"weights": [2**40, 0]},
        {"target": "x"},
    ],
)
def test_what_cannot_be_is_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(PydamonError, match="is of another version of pydamon") as refused:
        received([msgspec.to_builtins(GOOD) | change])
    assert "\n" not in str(refused.value)
