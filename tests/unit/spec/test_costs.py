"""Cost files: what is in them, what is left out, and nonsense."""

from __future__ import annotations

import json

import msgspec
import pytest

from pydamon.errors import RequestError
from pydamon.spec import costs
from pydamon.spec.costs import CostFile, Costs, Spread


def test_each_cost_has_its_row_and_a_default_within_its_bounds() -> None:
    assert [row.name for row in costs.TABLE] == list(Costs.__struct_fields__)
    assert all(row.low <= getattr(Costs(), row.name) <= row.high for row in costs.TABLE)


def test_what_a_file_leaves_out_keeps_its_default() -> None:
    found = costs.load("machine: mine\ncosts:\n  zram_in_ns: 6us\n  overlap_permil: 30%\n  bandwidth_bytes: 8GiB\n")
    assert found == CostFile(costs=Costs(zram_in_ns=6000, overlap_permil=300, bandwidth_bytes=8 << 30), machine="mine")
    assert found.costs.in_ns("zram") == 6000
    assert found.costs.in_ns("ssd") == Costs().ssd_in_ns


def test_measured_ones_have_their_spread_and_are_read_back() -> None:
    spread = Spread(value=700, low=650, high=900, samples=40)
    file = CostFile(costs=Costs(minor_fault_ns=700), measured={"minor_fault_ns": spread}, machine="m")
    numbers = {row.name: getattr(Costs(), row.name) for row in costs.TABLE}
    data = {"machine": "m", "costs": numbers | {"minor_fault_ns": msgspec.to_builtins(spread)}}
    assert costs.load(json.dumps(data)) == file


def test_what_zram_keeps() -> None:
    assert Costs(zram_ratio_permil=4000).kept_bytes(4096, "zram") == 1024
    assert Costs().kept_bytes(4096, "ssd") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", 'is no cost file: it must be an object with "costs"'),
        ("costs: 3", 'is no cost file: it must be an object with "costs"'),
        ("costs: {zram_inn_ns: 3}", "costs.zram_inn_ns: is no cost; did you mean zram_in_ns?"),
        ("costs: {zram_in_ns: -1}", "costs.zram_in_ns: is -1; it must be 0 to 1000000000"),
        ("costs: {zram_in_ns: 1h}", "costs.zram_in_ns: is 3600000000000; it must be 0 to 1000000000"),
        ("costs: {zram_in_ns: true}", "costs.zram_in_ns: is True; it must be 0 to 1000000000"),
        ("costs: {zram_in_ns: 1.5}", "costs.zram_in_ns: is 1.5; it must be 0 to 1000000000"),
        ("costs: {zram_in_ns: .nan}", "costs.zram_in_ns: '.nan' is not a time; write it like 5ms, 1.5s or 2min"),
        ("costs: {ssd_readahead: 0}", "costs.ssd_readahead: is 0; it must be 1 to 512"),
        ("costs: {ssd_readahead: 8us}", "costs.ssd_readahead: '8us' is a plain number and takes no unit"),
        (f"costs: {{zram_in_ns: {'9' * 4000}}}", "costs.zram_in_ns: is beyond 64 bits; it must be 0 to 1000000000"),
        ("costs: {zram_in_ns: {value: 3}}", "costs.zram_in_ns.low: is missing"),
        (
            "costs: {zram_in_ns: {value: 9, low: 1, high: 2, samples: 3}}",
            "costs.zram_in_ns.value: must not be below low or above high",
        ),
        (
            "costs: {zram_in_ns: {value: 1, low: 1, high: 2, samples: 0}}",
            "costs.zram_in_ns.samples: must be a number of measurements, 1 or more",
        ),
        (
            "costs: {zram_in_ns: {median: 9}}",
            "costs.zram_in_ns.median: is nothing of a cost; there are value, low, high, samples",
        ),
        ("cost: {}\ncosts: {}", "cost: is nothing that a cost file has; there are costs and machine"),
        ("machine: 3\ncosts: {}", "machine: must be text"),
        ("", "is empty"),
    ],
)
def test_nonsense(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        costs.load(text)
    assert str(caught.value) == message


def test_a_huge_file_is_not_parsed() -> None:
    with pytest.raises(RequestError, match="larger than 64 KiB"):
        costs.load(b"#" * 100_000)


@pytest.mark.parametrize("name", ["zram_in_ns", "tlb_miss_ns"])
def test_out_of_bounds_without_a_file(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name}: is -1; it must be 0"):
        Costs(**{name: -1})
