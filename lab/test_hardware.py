"""The guest's machine as options, and QEMU's words for it: pure parts, and the wrong values as a user meets them."""

import argparse
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hardware import Machine, WrongValue, add_options, cpu_words, machine_of, mebibytes, qemu_words, split_memory
from host_memory import resident_kib

RUN = Path(__file__).with_name("run")


def machine(*words: str) -> Machine:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return machine_of(parser.parse_args(words), memory_mib=8192, disk_mib=4096)


def following(words: list[str], option: str) -> list[str]:
    """The values of each ``option`` in a command line."""
    return [value for name, value in pairwise(words) if name == option]


def test_without_options_the_machine_has_two_nodes_of_which_one_is_small():
    assert machine() == Machine() == Machine(nodes_mib=(2048, 1024))
    words = qemu_words(machine(), Path("/runs"))
    assert following(words, "-m") == ["3072M"]
    assert following(words, "-numa") == ["node,nodeid=0,memdev=node0,cpus=0-1", "node,nodeid=1,memdev=node1"]
    assert not {"-drive", "-device", "-machine"} & set(words)


def test_only_a_steady_guest_counts_its_instructions():
    assert following(qemu_words(machine("--steady"), Path("/runs")), "-icount") == ["shift=2"]
    assert "-icount" not in qemu_words(machine(), Path("/runs"))


@pytest.mark.parametrize(("text", "size"), [("512M", 512), ("4G", 4096), ("64MiB", 64), ("1GiB", 1024)])
def test_sizes_are_read(text, size):
    assert mebibytes(text) == size


@pytest.mark.parametrize("text", ["", "0M", "4", "-1G", "4T", "1.5G", "4g", " 4G", "99999999G", "4Gi"])
def test_other_sizes_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a size such as"):
        mebibytes(text)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4])
@pytest.mark.parametrize("total", [1152, 1280, 3072, 4096, 12800])
def test_memory_is_split_into_whole_blocks_and_nothing_is_lost(total, nodes):
    sizes = split_memory(total, nodes)
    assert sum(sizes) == total
    assert len(sizes) == nodes
    assert all(size % 128 == 0 and size >= 128 for size in sizes)
    assert sizes[0] * 3 >= total * 2


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--memory", "384M"], "--memory 384M: must be at least 512M"),
        (["--memory", "640M", "--nodes", "4"], "--memory 640M: must be at least 1152M with 4 nodes"),
        (["--memory", "1000M"], "multiple of 128M"),
        (["--memory", "16G"], "--memory 16384M: this machine has only 8192 MiB"),
        (["--disk", "5G"], "--disk 5120M: there are only 4096 MiB free"),
        (["--append", "a\nb"], "--append: must be printable"),
        (["--append", "ü" * 800], "at most 1500 bytes"),
    ],
)
def test_what_cannot_be_had_is_said_with_the_options_name(words, match):
    with pytest.raises(WrongValue, match=match):
        machine(*words)


def test_the_processor_has_four_levels_unless_five_are_asked_for():
    assert cpu_words(Machine(), "tcg") == "max,la57=off,erms=off,fsrm=off"
    assert "la57=on" in cpu_words(machine("--five-levels"), "tcg")
    assert cpu_words(machine("--cpu", "qemu64"), "tcg") == "qemu64,la57=off,erms=off,fsrm=off"
    # What is asked for comes last, and so decides.
    assert cpu_words(machine("--cpu", "max,la57=on"), "tcg") == "max,la57=off,erms=off,fsrm=off,la57=on"
    assert cpu_words(Machine(), "kvm") == "host"


def test_hmat_has_latency_and_bandwidth_of_each_node():
    words = qemu_words(machine("--nodes", "3", "--hmat"), Path("/runs"))
    assert following(words, "-machine") == ["hmat=on"]
    rows = [row.split("memory,")[1] for row in following(words, "-numa") if row.startswith("hmat-lb")]
    assert [row for row in rows if "latency" in row] == [
        f"data-type=access-latency,latency={latency}" for latency in (100, 200, 300)
    ]
    assert [row for row in rows if "bandwidth" in row] == [
        f"data-type=access-bandwidth,bandwidth={bandwidth}M" for bandwidth in (8192, 4096, 2048)
    ]
    assert all("initiator=0" in row for row in following(words, "-numa"))


def test_a_comma_in_the_disks_path_is_not_an_option():
    words = qemu_words(machine("--disk", "64M", "--balloon"), Path("/a,b"))
    assert following(words, "-drive") == ["file=/a,,b/disk,format=raw,if=virtio,cache=unsafe,discard=unmap"]
    assert following(words, "-device") == ["virtio-balloon-pci,free-page-reporting=on"]


def test_memory_in_files_lies_beside_the_disk():
    words = qemu_words(machine("--memory-files", "--nodes", "1", "--memory", "1G"), Path("/a,b"))
    name = "mem-path=/a,,b/node0.guest-memory"
    assert following(words, "-object") == [f"memory-backend-file,{name},share=on,id=node0,size=1024M"]


SMAPS = """\
7f0000000000-7f0080000000 rw-s 00000000 00:01 2050                       /memfd:memory-backend-memfd (deleted)
Size:            2097152 kB
Rss:              150000 kB
Pss:              150000 kB
VmFlags: rd wr sh mr mw me ms
7f0080000000-7f0080021000 rw-p 00000000 00:00 0
Rss:                 999 kB
7f0100000000-7f0140000000 rw-s 00000000 00:01 2051                       /memfd:memory-backend-memfd (deleted)
Rss:                  24 kB
7f0180000000-7f01c0000000 rw-s 00000000 fe:00 12                       /runs/1/node0.guest-memory
Rss:                 100 kB
7f0200000000-7f0200001000 rw-s 00000000 00:01 7                          /memfd:other (deleted)
Rss:                   4 kB
"""


def test_the_guests_memory_is_the_mappings_of_that_name():
    assert resident_kib(SMAPS.splitlines()) == 150124
    assert resident_kib([]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory", "3"], "lab: --memory: '3': must be a size such as 512M or 4G"),
        (["--memory", "512M", "--nodes", "4"], "lab: --memory 512M: must be at least 1152M with 4 nodes"),
        (["--nodes", "9"], "lab: --nodes: invalid choice: 9 (choose from 1, 2, 3, 4)"),
        (["--kernel", "nowhere"], "lab: --kernel nowhere: no such file; give a version such as 7.3, or a bzImage"),
        (["--five-levels", "--accel", "kvm"], "lab: --five-levels does not go with --accel kvm"),
        (["--unknown"], "lab: unrecognized arguments: --unknown"),
    ],
)
@pytest.mark.usefixtures("processes")
def test_a_wrong_value_is_one_line_and_status_2(words, said, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, RUN, *words, "--", "true"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr, done.stdout) == (2, f"{said}\n", "")
