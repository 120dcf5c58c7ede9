"""Events by name, on faithful copies of what sysfs says of an Intel, an AMD and an Arm machine, and of none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydamon.errors import MachineError, RequestError
from pydamon.linux import perf_pmu
from pydamon.linux.perf_event import Event

FILES = {
    "cpu/type": "4\n",
    "cpu/events/mem-loads": "event=0xcd,umask=0x1,ldlat=3\n",
    "cpu/events/mem-stores": "event=0xd0,umask=0x82\n",
    "cpu/format/event": "config:0-7\n",
    "cpu/format/umask": "config:8-15\n",
    "cpu/format/ldlat": "config1:0-15\n",
    "cpu/format/edge": "config:18\n",
    "cpu/format/odd": "config:9-5\n",
    "cpu/format/many": "config:0-7,32-35\n",
}
AMD = {"ibs_op/type": "11\n", "ibs_op/format/cnt_ctl": "config:19\n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path, FILES | {"arm_spe_1/type": "12\n"})
    return tmp_path


def make(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_names_are_what_the_processor_says_they_are(root: Path) -> None:
    loads = perf_pmu.event("mem-loads", root)
    assert loads == Event("mem-loads", 4, 0x1CD, config1=3, freq=5003, precise=2)
    assert perf_pmu.event("mem-stores", root).config == 0x82D0
    assert perf_pmu.event("", root) == loads
    assert perf_pmu.event("page-faults", root) == Event("page-faults", 1, 2, period=1, tells_writes=False)


def test_an_event_is_spelt_as_in_perf(root: Path) -> None:
    assert perf_pmu.event("cpu/event=0xd1,umask=0x20,edge,period=1000,precise=3/", root) == Event(
        "cpu/event=0xd1,umask=0x20,edge,period=1000,precise=3/", 4, 0x420D1, period=1000, precise=3
    )
    assert perf_pmu.event("cpu/config=0x20d1,config1=7", root).config1 == 7


def test_amd_samples_operations_and_cannot_leave_out_the_kernel(root: Path) -> None:
    make(root, AMD)
    assert perf_pmu.event("", root) == Event("ibs_op", 11, 0, period=262_144, kernel=True)
    assert perf_pmu.event("ibs_op/cnt_ctl=1,period=65536/", root).config == 1 << 19


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("loads", "event: 'loads' is none; it is page-faults"),
        ("cpu/x=1/", "event cpu: 'x' is no term"),
        ("cpu/../type=1/", "event: 'cpu/../type=1/' is none"),
        ("cpu/event=/", "'event=' is not a term with a number"),
        ("cpu/event=-1/", "'event=-1' is not a term with a number"),
        ("cpu/event=0x1ff/", "event=0x1ff does not fit into 8 bits"),
        ("cpu/many=1/", "'many' is no term"),
        ("cpu/config=99999999999999999999/", "is not a term with a number"),
        ("cpu/event=1,precise=4/", "precise is 4; it must be 0 to 3"),
        ("cpu/event=1,period=3,freq=3/", "has both period and freq"),
        ("arm_spe_1/freq=3/", "arm_spe_1/freq=3/: takes a period, and no freq"),
    ],
)
def test_what_is_no_event_is_refused(root: Path, text: str, why: str) -> None:
    with pytest.raises(RequestError) as refused:
        perf_pmu.event(text, root)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ibs_op", "ibs_op: there is no ibs_op on this machine"),
        ("arm_spe_0", "arm_spe_0: there is no arm_spe_0 on this machine"),
        ("cpu/odd=1/", "which are no bits of a number"),
    ],
)
def test_what_the_machine_lacks_is_said(root: Path, text: str, why: str) -> None:
    with pytest.raises(MachineError) as refused:
        perf_pmu.event(text, root)
    assert why in str(refused.value)


def test_a_guest_without_counters_is_told_what_works(tmp_path: Path) -> None:
    make(tmp_path, {"software/type": "1\n", "msr/type": "junk"})
    with pytest.raises(MachineError, match=r"there is msr, software\); page-faults works anywhere"):
        perf_pmu.event("", tmp_path)
    with pytest.raises(MachineError, match="does not sample the addresses of loads"):
        perf_pmu.event("mem-loads", tmp_path)
    with pytest.raises(MachineError, match="there is no msr"):
        perf_pmu.event("msr/config=1/", tmp_path)
