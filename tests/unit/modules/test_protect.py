"""``protect`` and ``zram_writeback``: what they decide; numbers are worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pydamon.errors import RequestError
from pydamon.modules.base import Facts
from pydamon.modules.controller import ColdBytes, Controller, Observations, SetMemoryLow, ZramWriteback
from pydamon.modules.registry import parse

MIB = 1 << 20


def loop(text: str) -> Controller:
    (controller,) = parse(text).controllers("cgroup")
    return controller


def seen(used_mib: int, cold_mib: int = 0, **more: Any) -> Observations:
    """Of ``used_mib`` + ``cold_mib`` in memory the latter was not used for 3 minutes, and none for an hour."""
    cold = (ColdBytes(180_000_000, cold_mib * MIB), ColdBytes(3_600_000_000, 0))
    known: dict[str, Any] = {"now_ns": 0, "cold": cold, "machine_bytes": 1000 * MIB}
    known["resident_bytes"] = (used_mib + cold_mib) * MIB
    return Observations(**(known | more))


def test_low_is_the_working_set_and_a_margin() -> None:
    assert loop("protect").step(seen(100, cold_mib=50)) == (SetMemoryLow(bytes=110 * MIB),)
    assert loop("protect margin=0%").step(seen(100)) == (SetMemoryLow(bytes=100 * MIB),)
    assert loop("protect margin=0% window=10min").step(seen(100, cold_mib=50)) == (SetMemoryLow(bytes=150 * MIB),)


def test_it_is_bounded() -> None:
    assert loop("protect max=64MiB").step(seen(100)) == (SetMemoryLow(bytes=64 * MIB),)
    assert loop("protect").step(seen(900)) == (SetMemoryLow(bytes=500 * MIB),)  # half of the machine


def test_small_changes_are_no_write_and_larger_ones_are() -> None:
    controller = loop("protect margin=0%")
    assert controller.step(seen(100)) == (SetMemoryLow(bytes=100 * MIB),)
    assert controller.step(seen(105)) == ()
    assert controller.step(seen(106)) == (SetMemoryLow(bytes=106 * MIB),)
    assert controller.step(seen(50)) == (SetMemoryLow(bytes=50 * MIB),)


def test_as_long_as_nothing_is_known_nothing_is_protected() -> None:
    assert loop("protect").step(seen(1, resident_bytes=None)) == ()


@pytest.mark.parametrize("target", ["process", "physical"])
def test_only_cgroups_are_protected(target: Any) -> None:
    with pytest.raises(RequestError, match="the target must be the one of the workload"):
        parse("protect").schemes(target)


def test_what_cannot_be_protected_is_said() -> None:
    facts = Facts(low_obstacle="/a/memory.low: cannot be used: Permission denied", low_limited_by="/sys/fs/cgroup/a")
    obstacle, above = parse("protect").cannot(facts)
    assert obstacle.startswith("/a/memory.low: cannot be used: Permission denied; ")
    assert above.startswith("memory.low of /sys/fs/cgroup/a is 0: nothing below it is protected; ")
    assert parse("protect").cannot(Facts()) == []


def test_writing_back_asks_for_as_much_as_it_may() -> None:
    wanted = ZramWriteback(device="zram1", kind="idle", idle_age_s=1800, limit_bytes=8 * MIB)
    controller = loop("zram_writeback device=zram1 idle_age=30min limit=8MiB most=20MiB")
    assert controller.step(seen(1)) == (wanted,)
    assert controller.step(seen(1, done_bytes=16 * MIB))[0].words().endswith("at most 4.0 MiB")
    assert controller.step(seen(1, done_bytes=20 * MIB)) == ()
    assert loop("zram_writeback kind=huge most=off").step(seen(1)) == (
        ZramWriteback(device="zram0", kind="huge", idle_age_s=None, limit_bytes=64 * MIB),
    )


def test_a_device_that_cannot_is_said_with_the_one_that_can() -> None:
    facts = Facts(zram={"zram0": None, "zram2": "/sys/block/zram2: has no backing device"})
    assert parse("zram_writeback").cannot(facts) == []
    assert parse("zram_writeback device=zram7").cannot(facts) == ["there is no zram7; device=zram0, zram2 is"]
    assert parse("zram_writeback device=zram2").cannot(facts) == [
        "/sys/block/zram2: has no backing device; nothing is written back"
    ]
    assert parse("zram_writeback").cannot(Facts(zram={})) == ["there is no zram0; this machine has no zram at all"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zram_writeback device=/dev/sda", "zram_writeback.device: must be a device of zram, like zram0"),
        ("zram_writeback device=zram0/../x", "zram_writeback.device: must be a device of zram, like zram0"),
        ("zram_writeback kind=all", "zram_writeback.kind: is 'all'; it must be idle or huge or"),
        ("protect max=lots", "protect.max: "),
        ("protect interval=off", "protect.interval: must be 100 ms or more"),
        ("reclaim driver=age+luck", "reclaim.driver: 'luck' is none of age, pressure"),
        ("reclaim driver=pressure interval=1us", "reclaim.interval: must be 100 ms or more"),
        ("reclaim floor=1000000PiB", "reclaim.floor: "),
    ],
)
def test_wrong_knobs_are_named(text: str, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse(text)
    assert str(raised.value).startswith(message)
