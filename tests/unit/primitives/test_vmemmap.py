"""Where struct pages are, on the real kernel: found, and not believed where they do not say what /proc says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from tests.unit.primitives.bpf_child import OBSTACLE

from pydamon.linux.btf import BtfError
from pydamon.linux.frames import FrameInfo
from pydamon.primitives import bpf_facts, vmemmap
from pydamon.primitives.bpf import PageTableWalk, own_frames, own_pages
from pydamon.primitives.bpf_facts import SamplerFacts
from pydamon.primitives.vmemmap import KernelReader, find_vmemmap

pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")


@pytest.fixture(scope="module")
def walk() -> Iterator[PageTableWalk]:
    walk = PageTableWalk()
    yield walk
    walk.close()


@pytest.fixture
def facts() -> SamplerFacts:
    facts = bpf_facts.of_this_kernel()[1]
    assert not isinstance(facts, BtfError)
    return facts


def test_struct_pages_are_found_and_tell_what_proc_tells(facts: SamplerFacts, walk: PageTableWalk) -> None:
    found = find_vmemmap(facts, walk)
    if not found:
        pytest.skip("this kernel has no virtually mapped stacks, or no vmemmap")
    assert found % (1 << 30) == 0
    reader, info = KernelReader(facts.walk), FrameInfo()
    try:
        with own_pages(40) as start:
            frames = own_frames(start, 40)
            flags, mapcounts = vmemmap._struct_pages(facts, reader, found, frames)
            once = [info.mapped_once(frame, 1) for frame in frames.tolist()]
        assert ((mapcounts & np.uint64(0xFFFF_FFFF)) == 0).tolist() == once
        assert flags.all()
    finally:
        reader.close()
        info.close()


@pytest.mark.parametrize("wrong", ["stack", "page_flags", "page_mapcount", "page_size"])
def test_what_does_not_agree_is_not_believed(facts: SamplerFacts, walk: PageTableWalk, wrong: str) -> None:
    values: dict[str, object] = {
        "stack": (facts.stack[0], facts.stack[1], facts.stack[2] + 8),
        "page_flags": facts.page_mapcount,
        "page_mapcount": facts.page_flags,
        "page_size": 2 * facts.page_size,
    }
    assert find_vmemmap(dataclasses.replace(facts, **{wrong: values[wrong]}), walk) == 0  # type: ignore[arg-type]


def test_memory_that_cannot_be_read_is_told(facts: SamplerFacts) -> None:
    reader = KernelReader(facts.walk)
    try:
        task = reader.own_task()
        assert reader.read([task] * 70)[0] == reader.read([task])[0]
        with pytest.raises(LookupError):
            reader.read([task, 0x10])
    finally:
        reader.close()
