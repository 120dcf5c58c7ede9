"""Where the running kernel keeps things: just enough of BTF, the kernel's own type information.

Format: the kernel's Documentation/bpf/btf.rst. One pass finds where each type record begins (a type's id is its
ordinal); names are looked up in the string section first, so that only records that are asked for are decoded. The
bytes are not trusted: whatever does not fit raises BtfError, and nothing outside of them is read.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError

VMLINUX = Path("/sys/kernel/btf/vmlinux")

KIND_STRUCT = 4
KIND_UNION = 5
KIND_FUNC = 12

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, header bytes, then offset and bytes of types, strings

# Words (4 bytes) of a record by kind: the fixed part, and what each of its `vlen` entries adds.
_FIXED_WORDS = (3, 4, 3, 6, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 3)
_ENTRY_WORDS = (0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3)
_MAX_DEPTH = 16  # anonymous members inside anonymous members; the kernel nests a handful


class BtfError(MachineError):
    """The kernel's type information is missing, damaged, or does not know what was asked for."""

    def __init__(self, message: str) -> None:
        super().__init__(message, where="BTF")


class Btf:
    """A BTF blob, indexed. ``data`` holds all its bytes; raises BtfError if they are no BTF."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise BtfError(f"{len(data)} bytes are too few for a header")
        magic, version, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise BtfError(f"the magic number is {magic:#06x}, not {_MAGIC:#06x} (little-endian)")
        if version != 1:
            raise BtfError(f"version {version} is not known, only version 1")
        type_start, str_start = header + type_off, header + str_off
        if header < _HEADER.size or type_start % 4 or type_len % 4:
            raise BtfError("the header is damaged: the type section is misaligned")
        if max(type_start + type_len, str_start + str_len) > len(data):
            raise BtfError(f"a section reaches behind the end of the {len(data)} bytes; was it cut short?")
        self._strings = data[str_start : str_start + str_len]
        if not self._strings.startswith(b"\0") or not self._strings.endswith(b"\0"):
            raise BtfError("the string section does not begin and end with a NUL byte")
        types = data[type_start : type_start + type_len]
        self._words = memoryview(types).cast("I")
        self._starts = _record_starts(self._words)
        self._names: NDArray[np.uint32] = np.frombuffer(types, np.uint32)[self._starts]

    @classmethod
    def of_kernel(cls, path: Path = VMLINUX) -> Btf:
        """The running kernel's types, in about 50 ms; raises BtfError if the kernel does not publish them."""
        try:
            return cls(_read_all(path))
        except OSError as error:
            raise BtfError(
                f"cannot read {path} ({error.strerror}); it needs a kernel with CONFIG_DEBUG_INFO_BTF"
            ) from None

    def find(self, kind: int, name: str) -> int | None:
        """The id of the first type of that kind (a KIND_ constant) and name, or None."""
        wanted = b"\0" + name.encode() + b"\0"
        at = self._strings.find(wanted)
        while at >= 0:
            for index in np.flatnonzero(self._names == at + 1).tolist():
                if self._kind(self._starts[index]) == kind:
                    return index + 1
            at = self._strings.find(wanted, at + 1)
        return None

    def member_offset(self, struct_name: str, member: str) -> int:
        """Bytes from the start of ``struct_name`` to ``member``, also inside of anonymous members.

        Raises BtfError if there is no such struct or member, or if the member is a bit field.
        """
        type_id = self.find(KIND_STRUCT, struct_name)
        if type_id is None:
            raise BtfError(f"this kernel has no struct {struct_name}")
        bits = self._search(type_id, member.encode(), set())
        if bits is None:
            raise BtfError(f"struct {struct_name} of this kernel has no member {member}")
        if bits % 8:
            raise BtfError(f"member {member} of struct {struct_name} is a bit field")
        return bits // 8

    def _search(self, type_id: int, member: bytes, seen: set[int], depth: int = 0) -> int | None:
        """Offset in bits of ``member`` in a struct or union, None if it has none. Looks at each type once."""
        if depth > _MAX_DEPTH:
            raise BtfError(f"anonymous members are nested more than {_MAX_DEPTH} deep")
        start = self._start_of(type_id)
        if type_id in seen or self._kind(start) not in (KIND_STRUCT, KIND_UNION):
            return None
        seen.add(type_id)
        words = self._words
        info = words[start + 1]
        # With the kind flag, the upper 8 bits of an offset are the width of a bit field.
        mask = 0xFFFFFF if info >> 31 else 0xFFFFFFFF
        anonymous = []
        for at in range(start + 3, start + 3 + 3 * (info & 0xFFFF), 3):
            if words[at] == 0:
                anonymous.append(at)
            elif self._name(words[at]) == member:
                return words[at + 2] & mask
        for at in anonymous:
            inner = self._search(words[at + 1], member, seen, depth + 1)
            if inner is not None:
                return (words[at + 2] & mask) + inner
        return None

    def _start_of(self, type_id: int) -> int:
        if not 1 <= type_id <= len(self._starts):
            raise BtfError(f"type id {type_id} is not one of the {len(self._starts)} types")
        return self._starts[type_id - 1]

    def _kind(self, start: int) -> int:
        return self._words[start + 1] >> 24 & 0x1F

    def _name(self, offset: int) -> bytes:
        if offset >= len(self._strings):
            raise BtfError(f"a name begins at {offset}, behind the {len(self._strings)} bytes of strings")
        return self._strings[offset : self._strings.index(b"\0", offset)]


def _record_starts(words: memoryview) -> list[int]:
    """Word index of each type record. Every record lies inside of ``words``, or BtfError is raised."""
    starts: list[int] = []
    add = starts.append
    steps: dict[int, int] = {}  # info word -> words of the record: a few hundred differ among 100,000 records
    at, end = 0, len(words)
    while at < end:
        add(at)
        try:
            info = words[at + 1]
            at += steps[info]
        except KeyError:
            kind = info >> 24 & 0x1F
            if not 1 <= kind < len(_FIXED_WORDS):
                raise BtfError(f"type {len(starts)} is of kind {kind}, which is not known") from None
            steps[info] = _FIXED_WORDS[kind] + _ENTRY_WORDS[kind] * (info & 0xFFFF)
            at += steps[info]
        except IndexError:
            at = end + 1
    if at != end:
        raise BtfError("the last type record reaches behind the type section")
    return starts


def _read_all(path: Path) -> bytes:
    """A file's bytes. Mapping is five times as fast as reading, where the kernel allows it (BTF: since Linux 6.16)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
            return mapped[:]
    except (OSError, ValueError):
        return path.read_bytes()
    finally:
        os.close(fd)
