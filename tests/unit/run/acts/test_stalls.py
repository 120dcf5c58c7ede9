"""What others wait for memory, without what passes while the kernel reclaims for us."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.helpers.fake_cgroup import fake_cgroup

from pydamon.linux import psi
from pydamon.linux.memcg_control import Cgroup
from pydamon.modules.controller import Pressure, ReclaimBytes
from pydamon.run.acts.hands import MachineHands
from pydamon.run.acts.stalls import Stalls

SECOND = 1_000_000_000
MIB = 1 << 20


class Machine:
    """Tells what it is told to tell."""

    def __init__(self) -> None:
        self.total_us, self.avg10, self.avg60 = 0, 0.0, 0.0
        self.blind = False

    def read(self) -> Pressure | None:
        if self.blind:
            return None
        return Pressure(total_us=self.total_us, avg10_percent=self.avg10, avg60_percent=self.avg60)


def test_until_something_was_asked_for_the_kernels_shares_hold() -> None:
    machine = Machine()
    stalls = Stalls(machine.read)
    machine.total_us, machine.avg10, machine.avg60 = 500, 3.0, 2.0
    assert stalls.observe(SECOND) == machine.read()


def test_our_own_requests_are_no_pressure() -> None:
    machine = Machine()
    stalls = Stalls(machine.read)
    stalls.observe(0)
    for second in range(5, 305, 5):
        with stalls.ours():
            machine.total_us += 400_000
            machine.avg10 = machine.avg60 = 8.0
        seen = stalls.observe(second * SECOND)
        assert seen is not None
        assert (seen.total_us, seen.worst_percent) == (0, 0.0)


def test_what_others_wait_between_them_is() -> None:
    machine = Machine()
    stalls = Stalls(machine.read)
    stalls.observe(0)
    for second in range(5, 605, 5):
        with stalls.ours():
            machine.total_us += 400_000
        machine.total_us += 100_000  # 2 % of 5 s
        seen = stalls.observe(second * SECOND)
    assert seen is not None
    assert seen.total_us == 120 * 100_000
    assert seen.avg10_percent == pytest.approx(2.0, rel=0.05)
    assert seen.avg60_percent == pytest.approx(2.0, rel=0.05)
    for second in range(605, 635, 5):
        seen = stalls.observe(second * SECOND)
    assert seen is not None
    assert seen.avg10_percent < 0.2 < seen.avg60_percent  # and they fall as the kernel's do


def test_a_machine_that_tells_no_pressure() -> None:
    machine = Machine()
    machine.blind = True
    stalls = Stalls(machine.read)
    with stalls.ours():
        pass
    assert stalls.observe(SECOND) is None


def test_of_all_memory_the_hands_leave_their_own_out_and_of_a_cgroup_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [psi.Psi(total_us=1_000_000, avg10_percent=9.0, avg60_percent=9.0)]
    monkeypatch.setattr(psi, "read", lambda resource, cgroup=None: told[0])
    taken = []

    def reclaim(self: Cgroup, amount: int, swappiness: int | None = None) -> bool:
        taken.append(amount)
        told[0] = psi.Psi(total_us=told[0].total_us + 300_000, avg10_percent=12.0, avg60_percent=12.0)
        return True

    monkeypatch.setattr(Cgroup, "reclaim", reclaim)
    root = tmp_path / "cgroup"
    root.mkdir()
    one = fake_cgroup(root)
    for path, others in ((root, 1_000_000), (one, 1_600_000)):
        hands = MachineHands(Cgroup(str(path), (root,)), below=(root,))
        hands.observe(0)
        hands.do(ReclaimBytes(bytes=MIB), 0)
        seen = hands.observe(5 * SECOND)
        assert seen.memory is not None
        assert seen.memory.total_us == others
    assert taken == [MIB, MIB]
