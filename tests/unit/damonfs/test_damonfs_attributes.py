"""Files of data attributes monitoring that came after 7.2: weights, preparations, sizes of pages, sums of hits."""

from __future__ import annotations

import errno

import pytest
from tests.unit.damonfs.damonfs_helpers import CONTEXT, KDAMOND, SCHEME, World

from pydamon.damonfs.levels import Level
from pydamon.damonfs.tree import DamonTree
from pydamon.spec.probes import Prep, Probe
from pydamon.spec.schemes import Filter, SizeRange, SumRange

PROBES = f"{CONTEXT}/monitoring_attrs/probes"


@pytest.fixture(name="world")
def world_fixture() -> World:
    """A tree of Linux 7.4 with one of everything, and one probe."""
    world = World()
    world.tree = DamonTree(
        Level((7, 4)), start=world._start, avail_operations=lambda: ["vaddr", "paddr"], say=world.said.append
    )
    world.one_of_each()
    world.write(f"{PROBES}/nr_probes", 1)
    return world


def test_a_probe_is_read_with_all_that_it_has(world: World) -> None:
    assert world.read(f"{PROBES}/0/weight") == "0\n"
    world.write(f"{PROBES}/0/weight", "100")
    world.write(f"{PROBES}/0/preps/nr_preps", 1)
    assert world.read(f"{PROBES}/0/preps/0/prep_action") == "set_pgidle\n"
    assert world.error(f"{PROBES}/0/preps/0/prep_action", "set_dirty") == errno.EINVAL
    world.write(f"{PROBES}/0/filters/nr_filters", 2)
    world.write(f"{PROBES}/0/filters/0/type", "hugepage_size")
    world.write(f"{PROBES}/0/filters/0/min", 4096)
    world.write(f"{PROBES}/0/filters/0/max", 2 << 20)
    world.write(f"{PROBES}/0/filters/1/type", "pgidle_unset")
    world.write(f"{PROBES}/0/filters/1/matching", "Y")
    world.write(f"{PROBES}/0/filters/1/allow", "Y")
    world.write(f"{KDAMOND}/state", "on")
    ((context, _),) = world.kdamonds[0].asked
    sizes = Filter(
        filter_type="hugepage_size", matching=False, allow=False, hugepage_size=SizeRange(min=4096, max=2 << 20)
    )
    unset = Filter(filter_type="pgidle_unset", matching=True, allow=True)
    assert context.probes == (Probe(filters=(sizes, unset), weight=100, preps=(Prep(),)),)


# The kernel's bounds for 255 samples per aggregation: weighted sums have 32 bits, hits 8.
@pytest.mark.parametrize(
    ("aggr_us", "weight", "error"),
    [(255_000, 16843009, None), (255_000, 16843010, errno.EINVAL), (256_000, 1, errno.EINVAL), (256_000, 0, None)],
)
def test_sums_that_are_too_large_are_no_valid_input(world: World, aggr_us: int, weight: int, error: int | None) -> None:
    world.write(f"{CONTEXT}/monitoring_attrs/intervals/sample_us", 1000)
    world.write(f"{CONTEXT}/monitoring_attrs/intervals/aggr_us", aggr_us)
    world.write(f"{PROBES}/0/weight", weight)
    assert world.error(f"{KDAMOND}/state", "on") == error


@pytest.mark.parametrize(("least", "most", "error"), [(1500, 2000, None), (7, 7, None), (8, 7, errno.EINVAL)])
def test_schemes_are_told_sums_of_hits(world: World, least: int, most: int, error: int | None) -> None:
    world.write(f"{SCHEME}/core_filters/nr_filters", 1)
    world.write(f"{SCHEME}/core_filters/0/type", "probe_hits_wsum")
    world.write(f"{SCHEME}/core_filters/0/min", least)
    world.write(f"{SCHEME}/core_filters/0/max", most)
    assert world.error(f"{KDAMOND}/state", "on") == error
    if error is None:
        ((context, _),) = world.kdamonds[0].asked
        (item,) = (item for item in context.schemes[0].filters if item.filter_type == "probe_hits_wsum")
        assert item.probe_hits_wsum == SumRange(min=least, max=most)
