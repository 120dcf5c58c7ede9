"""What the lab's guest is made of: the options of ``lab/run`` that say so, and QEMU's words for it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import subprocess
from pathlib import Path

from host_memory import FILE_END

MEMORY_MIB = 3072
BLOCK_MIB = 128  # memory comes and goes by such blocks; a node has whole ones
LEAST_MIB = 512  # the kernel, its swap's pages and a Python
MOST_NODES = 4
LONGEST_APPEND = 1500  # the kernel takes 2048 bytes in all, and cuts off the rest without a word
NS_SHIFT = 2  # an instruction is 2**2 ns of a steady guest's time, about what an idle machine emulates
LATENCY_NS, BANDWIDTH_MIB = 100, 8192  # of node 0; what HMAT says of the others follows from them


class WrongValue(ValueError):
    """An option's value cannot be used; the message is one line for a person."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """The guest's parts; ``cpu`` is QEMU's model with its flags, or None for the lab's own."""

    nodes_mib: tuple[int, ...] = (2048, 1024)
    five_levels: bool = False
    balloon: bool = False
    hmat: bool = False
    disk_mib: int = 0
    append: str = ""
    cpu: str | None = None
    memory_files: bool = False
    steady: bool = False

    def to_json(self) -> str:
        """The machine as a guest test reads it in ``/run/lab/machine.json``."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def mebibytes(text: str) -> int:
    """Return the MiB of a size such as 512M or 4G, as QEMU writes them; argparse's error for anything else."""
    found = re.fullmatch(r"([1-9][0-9]{0,6})([MG])(iB)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a size such as 512M or 4G")
    return int(found[1]) * (1024 if found[2] == "G" else 1)


def split_memory(total_mib: int, nodes: int) -> tuple[int, ...]:
    """Return the MiB of each node, in whole blocks.

    Node 0 has the processors and two thirds (all of it if it is alone), the others share the rest. Raises WrongValue
    if that is too little for so many.
    """
    each = total_mib // 3 // (nodes - 1) // BLOCK_MIB * BLOCK_MIB if nodes > 1 else 0
    least = max(LEAST_MIB, 3 * BLOCK_MIB * (nodes - 1))
    if total_mib < least:
        raise WrongValue(f"--memory {total_mib}M: must be at least {least}M with {nodes} nodes")
    if total_mib % BLOCK_MIB:
        raise WrongValue(f"--memory {total_mib}M: must be a multiple of {BLOCK_MIB}M")
    return (total_mib - each * (nodes - 1), *[each] * (nodes - 1))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options from which `machine_of` makes a Machine."""
    group = parser.add_argument_group("the machine")
    group.add_argument("--memory", type=mebibytes, default=MEMORY_MIB, metavar="SIZE", help="all its memory (3G)")
    group.add_argument("--memory-files", action="store_true",
                       help="it lies in files, so that this machine can take it without swap")  # fmt: skip
    group.add_argument("--nodes", type=int, choices=range(1, MOST_NODES + 1), default=2, metavar="N",
                       help=f"NUMA nodes, 1 to {MOST_NODES}; the first has both processors (2)")  # fmt: skip
    group.add_argument("--steady", action="store_true",
                       help="its time goes by its instructions, so that its figures do not depend on what else runs "
                            "here; its processors take turns")  # fmt: skip
    group.add_argument("--hmat", action="store_true", help="its firmware tells latency and bandwidth of each node")
    group.add_argument("--balloon", action="store_true", help="what the guest frees goes back to this machine")
    group.add_argument("--disk", type=mebibytes, default=0, metavar="SIZE", help="an empty disk (ext4), on /mnt")
    group.add_argument("--append", default="", metavar="TEXT", help="more words for the kernel's command line")
    group.add_argument("--cpu", metavar="MODEL[,FLAG…]", help="another processor, as QEMU names it (max)")
    group.add_argument("--five-levels", action="store_true", help="a processor with five levels of page tables (la57)")


def machine_of(options: argparse.Namespace, *, memory_mib: int, disk_mib: int) -> Machine:
    """Return the machine that was asked for. Raises WrongValue, also for more MiB than this machine has."""
    if options.memory > memory_mib:
        raise WrongValue(f"--memory {options.memory}M: this machine has only {memory_mib} MiB to give")
    if options.disk > disk_mib:
        raise WrongValue(f"--disk {options.disk}M: there are only {disk_mib} MiB free where runs are kept")
    if options.memory_files and options.memory > disk_mib - options.disk:
        raise WrongValue(f"--memory-files: {options.memory} MiB do not fit into what is free where runs are kept")
    if not options.append.isprintable() or len(options.append.encode()) > LONGEST_APPEND:
        raise WrongValue(f"--append: must be printable text of at most {LONGEST_APPEND} bytes")
    return Machine(
        nodes_mib=split_memory(options.memory, options.nodes),
        five_levels=options.five_levels,
        balloon=options.balloon,
        hmat=options.hmat,
        disk_mib=options.disk,
        append=options.append,
        cpu=options.cpu,
        memory_files=options.memory_files,
        steady=options.steady,
    )


def cpu_words(machine: Machine, accel: str) -> str:
    """Return the value of QEMU's ``-cpu``.

    A fifth level of page tables is for what is to be tried on it: emulating it costs time. Without erms: the emulator
    runs `rep stosb` byte by byte, and a C library that trusts the flag fills memory with it, ten times slower than
    with vectors. The asked flags come last, and so decide.
    """
    if accel == "kvm":
        return machine.cpu or "host"
    model, _, flags = (machine.cpu or "max").partition(",")
    la57 = "on" if machine.five_levels else "off"
    return f"{model},la57={la57},erms=off,fsrm=off" + (f",{flags}" if flags else "")


def check_cpu(qemu: str, words: str) -> None:
    """Have QEMU make that processor and end before it runs. Raises WrongValue with what QEMU says against it."""
    command = [qemu, "-S", "-accel", "tcg", "-cpu", words, "-nodefaults", "-display", "none", "-monitor", "stdio"]
    done = subprocess.run(command, input="quit\n", capture_output=True, text=True, timeout=60)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["QEMU does not say why"]
        raise WrongValue(f"--cpu {words.partition(',')[0]}: {said[-1].removeprefix(f'{Path(qemu).name}: ')}")


def qemu_words(machine: Machine, run: Path) -> list[str]:
    """Return QEMU's options for memory, balloon and disk; files that these are lie in ``run``."""
    folder = str(run).replace(",", ",,")
    words = ["-m", f"{sum(machine.nodes_mib)}M"]
    if machine.hmat:
        words += ["-machine", "hmat=on"]
    for node, size in enumerate(machine.nodes_mib):
        # Both have names in /proc/PID/smaps, by which the guest's memory is found there (host_memory.py).
        backend = f"memory-backend-file,mem-path={folder}/node{node}{FILE_END},share=on"
        backend = backend if machine.memory_files else "memory-backend-memfd"
        words += ["-object", f"{backend},id=node{node},size={size}M"]
        place = f"node,nodeid={node},memdev=node{node}" + (",cpus=0-1" if node == 0 else "")
        words += ["-numa", place + (",initiator=0" if machine.hmat else "")]
    if machine.hmat:
        for node in range(len(machine.nodes_mib)):  # each farther node is slower by as much, and has half the bandwidth
            seen = f"hmat-lb,initiator=0,target={node},hierarchy=memory"
            words += ["-numa", f"{seen},data-type=access-latency,latency={LATENCY_NS * (node + 1)}"]
            words += ["-numa", f"{seen},data-type=access-bandwidth,bandwidth={BANDWIDTH_MIB >> node}M"]
    if machine.steady:  # idle, its time is that of this machine
        words += ["-icount", f"shift={NS_SHIFT}"]
    if machine.balloon:
        words += ["-device", "virtio-balloon-pci,free-page-reporting=on"]
    if machine.disk_mib:
        words += ["-drive", f"file={folder}/disk,format=raw,if=virtio,cache=unsafe,discard=unmap"]
    return words
