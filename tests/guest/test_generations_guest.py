"""``pydamon generations`` on a kernel that has them: memory that nobody touches grows old."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.command import pydamon
from tests.helpers.programs import program

from pydamon.errors import MachineError
from pydamon.linux import lru_gen

pytestmark = pytest.mark.guest

MIB = 1 << 20
# 64 MiB are filled once, 16 MiB are written to all the time.
PROGRAM = """
import mmap, os
cold = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
cold.write(os.urandom(1 << 20) * 64)
hot = mmap.mmap(-1, 16 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print("ready", flush=True)
while True:
    for at in range(0, len(hot), 4096):
        hot[at] = 1
"""


@pytest.fixture(name="file")
def file_fixture() -> Iterator[Path]:
    """The kernel's file; the generations are switched on for the test where the guest has them off."""
    switch = Path("/sys/kernel/mm/lru_gen/enabled")
    if not switch.exists():
        pytest.skip("this kernel has no generations (CONFIG_LRU_GEN)")
    before = switch.read_text()
    switch.write_text("y")
    try:
        yield lru_gen.find()
    except MachineError as error:
        pytest.skip(str(error))
    finally:
        switch.write_text(before)


def age(file: Path) -> None:
    """Have the kernel begin a new generation of each part, anonymous memory too, whether or not there is swap.

    ``+ memcg_id node_id max_gen_nr [can_swap [force_scan]]`` (multigen_lru.rst).
    """
    newest: dict[tuple[str, str], str] = {}
    group = node = ""
    for words in map(str.split, file.read_text().split("\n")):
        if words[:1] == ["memcg"]:
            group = words[1]
        elif words[:1] == ["node"]:
            node = words[1]
        elif words:
            newest[group, node] = words[0]  # the youngest stands last
    for (group, node), number in newest.items():
        with contextlib.suppress(OSError):  # the kernel has begun one itself
            file.write_text(f"+ {group} {node} {number} 1 1")


def on_lists(*names: str) -> int:
    """What /proc/meminfo says of them: the same pages, counted by the kernel in another place."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.partition(":")[0] in names)


def test_what_nobody_touches_is_in_an_old_generation(file: Path) -> None:
    with program(PROGRAM):
        for _ in range(3):
            time.sleep(1.5)  # the ages of the generations that follow
            age(file)
        done = pydamon("generations", "--json")
        anonymous = on_lists("Active(anon)", "Inactive(anon)")
        told = json.loads(done.stdout)
    rows = {row["idle_at_least_s"]: row for row in told["idle"]}
    assert rows[1]["least_bytes"] >= 48 * MIB
    # Whether hot memory is young is the kernel's to say, and the emulated processor hides accesses from it.
    listed = sum(one["anon_bytes"] for part in told["parts"] for one in part["generations"])
    assert 0.9 * anonymous <= listed <= anonymous + 128 * MIB  # with the command's own, which has ended by then
    for row in told["idle"]:
        assert row["least_bytes"] <= row["most_bytes"]


def test_doctor_says_that_they_are_there(file: Path) -> None:
    found = json.loads(pydamon("doctor", "--json").stdout)
    (item,) = [item for item in found["facilities"] if item["name"] == "generations"]
    assert item["usable"], item["reason"]
