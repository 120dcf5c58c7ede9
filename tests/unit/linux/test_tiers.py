"""Tiers of memory from recorded trees of sysfs: what the kernel documents, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.errors import MachineError
from pydamon.linux import tiers
from pydamon.linux.tiers import Chain, Node


class Tree:
    """A tree of files like those of sysfs below ``root``."""

    def __init__(self, root: Path, files: dict[str, str]) -> None:
        self.root = root
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    def nodes(self) -> list[Node]:
        return tiers.read(self.root / "node", self.root / "tiering", self.root / "weights")

    def chains(self) -> tuple[Chain, ...]:
        return tiers.chains(self.nodes())


def numa(memory: str, cpus: str, *distances: str, online: str = "") -> dict[str, str]:
    """The files of a machine whose nodes are numbered from 0."""
    lists = {"node/has_memory": f"{memory}\n", "node/has_cpu": f"{cpus}\n", "node/online": f"{online or memory}\n"}
    return lists | {f"node/node{nid}/distance": f"{text}\n" for nid, text in enumerate(distances)}


def hmat(nid: int, bandwidth: int, latency: int) -> dict[str, str]:
    where = f"node/node{nid}/access0/initiators"
    return {f"{where}/read_bandwidth": f"{bandwidth}\n", f"{where}/read_latency": f"{latency}\n"}


ONE = numa("0", "0", "10")
TWO = numa("0-1", "0", "10 20", "20 10")
THREE = numa("0-2", "0", "10 20 30", "20 10 40", "30 40 10")
SOCKETS = numa("0-3", "0-1", "10 21 14 24", "21 10 24 14", "14 24 10 26", "24 14 26 10")


def test_one_node_has_nowhere_to_go(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"one NUMA node with memory \(0\): there is none to move to"):
        Tree(tmp_path, ONE).chains()


def test_a_node_without_processors_is_the_slower_one(tmp_path: Path) -> None:
    assert Tree(tmp_path, TWO).chains() == ((((0, 1),), ((1, 1),)),)


def test_farther_nodes_are_slower_ones(tmp_path: Path) -> None:
    assert Tree(tmp_path, THREE).chains() == ((((0, 1),), ((1, 1),), ((2, 1),)),)


def test_all_of_the_kernels_tiers_go_before_distances(tmp_path: Path) -> None:
    kernel = {"tiering/memory_tier4/nodelist": "0\n", "tiering/memory_tier22/nodelist": "2\n"}
    kernel |= {"tiering/memory_tier961/nodelist": "1\n", "tiering/power/control": "auto\n"}
    assert Tree(tmp_path, THREE | kernel).chains() == ((((0, 1),), ((2, 1),), ((1, 1),)),)


def test_one_tier_of_the_kernel_says_nothing(tmp_path: Path) -> None:
    """Without HMAT a kernel puts all nodes that were there at the boot into the tier of DRAM."""
    assert Tree(tmp_path, TWO | {"tiering/memory_tier4/nodelist": "0-1\n"}).chains() == ((((0, 1),), ((1, 1),)),)


def test_latencies_of_the_firmware_go_before_distances(tmp_path: Path) -> None:
    files = THREE | hmat(0, 20_000, 100) | hmat(1, 5_000, 400) | hmat(2, 9_000, 200)
    assert Tree(tmp_path, files).chains() == ((((0, 1),), ((2, 1),), ((1, 1),)),)
    (first, *_) = Tree(tmp_path, files).nodes()
    assert (first.bandwidth, first.latency, first.has_cpus) == (20_000, 100, True)


def test_nodes_alike_are_one_tier_with_weights_by_bandwidth(tmp_path: Path) -> None:
    files = THREE | hmat(0, 20_000, 100) | hmat(1, 12_000, 300) | hmat(2, 4_000, 310)
    assert Tree(tmp_path, files).chains() == ((((0, 1),), ((1, 3), (2, 1))),)
    told = {"weights/node0": "6\n", "weights/node1": "2\n", "weights/node2": "1\n"}
    assert Tree(tmp_path, files | told).chains() == ((((0, 1),), ((1, 2), (2, 1))),)


def test_each_socket_feeds_its_own_slow_memory(tmp_path: Path) -> None:
    assert Tree(tmp_path, SOCKETS).chains() == ((((0, 1),), ((2, 1),)), (((1, 1),), ((3, 1),)))


def test_sockets_that_share_slow_memory_are_one_tier(tmp_path: Path) -> None:
    shared = numa("0-2", "0-1", "10 21 20", "21 10 20", "20 20 10")
    assert Tree(tmp_path, shared).chains() == ((((0, 1), (1, 1)), ((2, 1),)),)
    alike = numa("0-3", "0-1", "10 21 20 20", "21 10 20 20", "20 20 10 20", "20 20 20 10")
    assert Tree(tmp_path, alike).chains() == ((((0, 1), (1, 1)), ((2, 1), (3, 1))),)


def test_sockets_alone_have_no_slower_tier(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="the memory of nodes 0, 1 is alike"):
        Tree(tmp_path, numa("0-1", "0-1", "10 21", "21 10")).chains()


def test_an_offline_node_is_none_and_distances_leave_it_out(tmp_path: Path) -> None:
    """Distances are those to the nodes that are online, in their order."""
    files = numa("0,2", "0", online="0,2") | {"node/node0/distance": "10 30\n", "node/node2/distance": "30 10\n"}
    nodes = Tree(tmp_path, files).nodes()
    assert [node.distances for node in nodes] == [{0: 10, 2: 30}, {0: 30, 2: 10}]
    left = Tree(tmp_path / "b", numa("0-2", "0", online="0-1"))
    assert [node.nid for node in left.nodes()] == [0, 1]


def test_a_kernel_without_nodes_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="CONFIG_NUMA"):
        Tree(tmp_path, {}).nodes()


def test_this_machine_tells(tmp_path: Path) -> None:
    nodes = tiers.read()
    assert nodes
    assert nodes[0].distances.get(nodes[0].nid, 10) == 10


@pytest.mark.parametrize("text", ["0-99999999999999999999", "-1", "1-0", "٣", "0,,1", "x", "0-2000", "0\n1"])
def test_a_list_that_is_none_is_not_believed(tmp_path: Path, text: str) -> None:
    with pytest.raises(MachineError, match="cannot be read"):
        Tree(tmp_path, numa(text, "0")).nodes()


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_nonsense_raises_nothing_but_a_machines_error(
    tmp_path_factory: pytest.TempPathFactory, distance: str, latency: str, nodelist: str
) -> None:
    files = TWO | {"tiering/memory_tier1/nodelist": nodelist, "node/node0/access0/initiators/read_latency": latency}
    root = tmp_path_factory.mktemp("tree")
    tree = Tree(root, {})
    for name, text in (files | {"node/node1/distance": distance}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        found = tree.chains()
    except MachineError:
        return
    assert sorted(nid for chain in found for level in chain for nid, _ in level) == [0, 1]
