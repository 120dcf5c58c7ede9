"""Where struct pages are, on the real kernel: found, and not believed where they do not say what /proc says."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from tests.unit.primitives.bpf_child import OBSTACLE

from pydamon.errors import MachineError
from pydamon.linux.frames import FrameInfo
from pydamon.primitives import kept_facts, vmemmap
from pydamon.primitives.bpf import own_frames, own_pages
from pydamon.primitives.bpf_facts import SamplerFacts
from pydamon.primitives.kernel_reader import KernelReader
from pydamon.primitives.vmemmap import find_vmemmap

pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or "")


@pytest.fixture
def facts() -> SamplerFacts:
    facts = kept_facts.of_this_kernel()[1]
    assert not isinstance(facts, MachineError)
    return facts


def test_struct_pages_are_found_and_tell_what_proc_tells(facts: SamplerFacts) -> None:
    found = find_vmemmap(facts)
    if not found:
        pytest.skip("this kernel has no vmemmap")
    assert found % (1 << 30) == 0
    reader, info = KernelReader(facts.walk), FrameInfo()
    try:
        with own_pages(40) as start:
            frames = own_frames(start, 40)
            assert frames is not None
            flags, mapcounts = vmemmap._struct_pages(facts, reader, found, frames)
            once = [info.mapped_once(frame, 1) for frame in frames.tolist()]
        assert ((mapcounts & np.uint64(0xFFFF_FFFF)) == 0).tolist() == once
        assert flags.all()
    finally:
        reader.close()
        info.close()


@pytest.mark.parametrize("wrong", ["files", "page_flags", "page_mapcount", "page_size"])
def test_what_does_not_agree_is_not_believed(facts: SamplerFacts, wrong: str) -> None:
    values: dict[str, object] = {
        "files": (*facts.files[:4], facts.files[4] + 8),
        "page_flags": facts.page_mapcount,
        "page_mapcount": facts.page_flags,
        "page_size": 2 * facts.page_size,
    }
    assert find_vmemmap(msgspec.structs.replace(facts, **{wrong: values[wrong]})) == 0


def test_memory_that_cannot_be_read_is_told(facts: SamplerFacts) -> None:
    reader = KernelReader(facts.walk)
    try:
        task = reader.own_task()
        assert reader.read([task] * 70)[0] == reader.read([task])[0]
        with pytest.raises(LookupError):
            reader.read([task, 0x10])
    finally:
        reader.close()
