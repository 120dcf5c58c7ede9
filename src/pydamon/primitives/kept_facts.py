"""What was looked up of the running kernel, kept for the next start in a file of the user's own.

Whoever is to believe it checks that nobody else can have written it, and that it is of this boot, this kernel and this
version of pydamon. It saves time and nothing else: without it, or if it is damaged, all is looked up again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Iterator

import msgspec

from pydamon.errors import MachineError
from pydamon.learned import learned
from pydamon.linux.own_directory import FLAGS, open_own_directory, own_directory
from pydamon.primitives.bpf_facts import KernelFacts, SamplerFacts
from pydamon.version import __version__

FILE = "kernel-facts.json"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MOST_BYTES = 1 << 16


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is in the file. ``missing`` is why there are no ``sampler`` facts."""

    boot: str
    kernel: str
    pydamon: str
    walk: KernelFacts
    sampler: SamplerFacts | None
    missing: str = ""


@functools.cache
def of_this_kernel() -> tuple[KernelFacts, SamplerFacts | MachineError]:
    """What programs need to know, looked up once a boot (it takes 20 ms). Raises MachineError if there is no walk."""
    kept = read()
    if kept is not None:
        return kept.walk, kept.sampler or MachineError(kept.missing, where="BTF")
    from pydamon.linux.btf import Btf, BtfError
    from pydamon.primitives.bpf_lookup import kernel_facts, sampler_facts

    btf = Btf.of_kernel()
    walk = kernel_facts(btf)
    try:
        sampler = sampler_facts(btf, walk)
    except BtfError as error:
        write(walk, None, error.message)
        return walk, error
    write(walk, sampler)
    return walk, sampler


def read() -> Kept | None:
    """What was kept of this kernel; None where there is nothing that can be believed."""
    try:
        with _opened() as directory:
            fd = os.open(FILE, os.O_RDONLY | os.O_NONBLOCK | FLAGS, dir_fd=directory)
            with open(fd, "rb") as file:
                if not _is_ours(os.fstat(fd)):
                    return None
                kept = msgspec.json.decode(file.read(_MOST_BYTES), type=learned(Kept))
        return kept if (kept.boot, kept.kernel, kept.pydamon) == _now() else None
    except (OSError, MachineError, ValueError, RecursionError):  # ValueError: also what msgspec raises
        return None


def write(walk: KernelFacts, sampler: SamplerFacts | None, missing: str = "") -> None:
    """Keep them for the next start, where there is a directory for it."""
    with contextlib.suppress(OSError, MachineError), _opened() as directory:
        kept = Kept(*_now(), walk=walk, sampler=sampler, missing=missing)
        new = f".{FILE}.{os.getpid()}"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o600, dir_fd=directory)
        try:
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(kept))
            os.replace(new, FILE, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(new, dir_fd=directory)
            raise


@contextlib.contextmanager
def _opened() -> Iterator[int]:
    fd = open_own_directory(own_directory())
    try:
        yield fd
    finally:
        os.close(fd)


def _is_ours(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _now() -> tuple[str, str, str]:
    """The boot, the kernel, and the version of pydamon. Raises OSError."""
    with open(_BOOT_ID, "rb") as file:
        return file.read(100).decode("ascii", "replace").strip(), " ".join(os.uname()[2:5]), __version__
