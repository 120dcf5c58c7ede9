"""Machines to simulate, from text and files."""

from __future__ import annotations

import pytest

from pydamon.errors import RequestError
from pydamon.spec.costs import Costs
from pydamon.spec.machine import MachineSpec, load_machine, parse_machine

GIB = 1 << 30


def test_words() -> None:
    assert parse_machine("ram=2GiB swap=zram:1GiB") == MachineSpec(
        node_bytes=(2 * GIB,), swap="zram", swap_bytes=GIB, reclaim="two-list"
    )
    found = parse_machine("nodes=8GiB+16GiB swap=ssd files=a+b cgroups=/x+/y reclaim=ideal", Costs(look_ns=1))
    assert (found.node_bytes, found.swap, found.swap_bytes) == ((8 * GIB, 16 * GIB), "ssd", None)
    assert (found.file_regions, found.memcgs, found.reclaim) == (("a", "b"), ("/x", "/y"), "ideal")
    assert found.costs.look_ns == 1
    assert parse_machine("swap=off").swap_bytes == 0
    assert parse_machine("") == MachineSpec(swap="zram", reclaim="two-list")


def test_files() -> None:
    machine, file = load_machine("ram: 2GiB\nswap: zram:1GiB\nmachine: mine\ncosts: {zram_in_ns: 5us}\n")
    assert machine == parse_machine("ram=2GiB swap=zram:1GiB", Costs(zram_in_ns=5000))
    assert file.machine == "mine"
    assert load_machine('{"nodes": ["1GiB", "2GiB"]}')[0].node_bytes == (GIB, 2 * GIB)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ram=2GiB ram=1GiB", "ram: is there twice"),
        ("rom=2GiB", "'rom=2GiB' says nothing of a machine; write it like 'ram=2GiB swap=zram:1GiB'; there are ram, "),
        ("ram", "'ram' says nothing of a machine"),
        ("ram=2GiB nodes=1GiB", "nodes: says what ram says, too"),
        ("ram=x", "ram: 'x' is not a size"),
        ("ram=1", "machine.node_bytes[0]: is 0 bytes"),
        ("ram=max swap=disk:1G", "swap: is 'disk:1G'; it is zram:SIZE, ssd:SIZE, or off"),
        ("swap=zram:", "swap: is 'zram:'"),
        ("reclaim=lfu", "reclaim: is 'lfu'; it must be ideal or two-list"),
        ("cgroups=a", "machine.memcgs[0]: 'a' is no path of a cgroup"),
        (f"nodes={'+'.join(['1M'] * 2000)}", "machine.node_bytes: has 2000 nodes"),
    ],
)
def test_nonsense(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_machine(text)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is no machine: it must be an object with ram or nodes, swap, costs"),
        ("rom: 3", "rom: is nothing of a machine; there are ram, nodes, swap, files, cgroups, reclaim, costs"),
        ("ram: {a: 1}", "ram: must be text, or a list of texts"),
        ("ram: true", "ram: must be text, or a list of texts"),
        ("ram: 1GiB\ncosts: {x: 1}", "costs.x: is no cost"),
        ("ram: 1GiB\ncosts: {look_ns: -1}", "costs.look_ns: is -1; it must be 0 to 1000000000"),
    ],
)
def test_nonsense_in_a_file(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_machine(text)
    assert str(caught.value).startswith(message)
