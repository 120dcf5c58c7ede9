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
from pydamon.linux.causes import cause

VMLINUX = Path("/sys/kernel/btf/vmlinux")

KIND_STRUCT = 4
KIND_UNION = 5
KIND_ENUM = 6
KIND_FUNC = 12

_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, header bytes, then offset and bytes of types, strings

# Words (4 bytes) of a record by kind: the fixed part, and what each of its `vlen` entries adds.
_FIXED_WORDS = (3, 4, 3, 6, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 3)
_ENTRY_WORDS = (0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3)
_CHUNK = 1 << 14  # words that are looked at together
# The same for kinds 0 to 31.
_UNKNOWN_STEP = 1 << 30
_FIXED_STEPS = np.full(32, _UNKNOWN_STEP, np.int32)
_FIXED_STEPS[1 : len(_FIXED_WORDS)] = _FIXED_WORDS[1:]
_ENTRY_STEPS = np.zeros(32, np.int32)
_ENTRY_STEPS[: len(_ENTRY_WORDS)] = _ENTRY_WORDS
_MAX_DEPTH = 16  # anonymous members inside anonymous members; the kernel nests a handful


class BtfError(MachineError):
    """The kernel's type information is missing, damaged, or does not know what was asked for."""

    def __init__(self, message: str) -> None:
        super().__init__(message, where="BTF")


class Btf:
    """A BTF blob, indexed. ``data`` holds all its bytes; raises BtfError if they are not BTF."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
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
            raise BtfError(f"a section reaches beyond the end of the {len(data)} bytes; was it cut short?")
        self._strings = data[str_start : str_start + str_len]
        if not self._strings.startswith(b"\0") or not self._strings.endswith(b"\0"):
            raise BtfError("the string section does not begin and end with a NUL byte")
        types = np.frombuffer(data, np.uint32, type_len // 4, type_start)
        self._words = types.data
        self._starts = _record_starts(types)
        self._names = types[self._starts]

    @classmethod
    def of_kernel(cls, path: Path = VMLINUX) -> Btf:
        """The running kernel's types, in about 20 ms; raises BtfError if the kernel does not publish them."""
        try:
            return cls(_read_all(path))
        except OSError as error:
            raise BtfError(
                f"cannot read {path}: {cause(error, missing='it needs a kernel with CONFIG_DEBUG_INFO_BTF')}"
            ) from None

    def find(self, kind: int, name: str) -> int | None:
        """The id of the first type of that kind (a KIND_ constant) and name, or None."""
        wanted = b"\0" + name.encode() + b"\0"
        at = self._strings.find(wanted)
        while at >= 0:
            for index in np.flatnonzero(self._names == at + 1).tolist():
                if self._kind(int(self._starts[index])) == kind:
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

    def struct_size(self, struct_name: str) -> int:
        """Size of ``struct_name`` in bytes. Raises BtfError if there is no such struct."""
        type_id = self.find(KIND_STRUCT, struct_name)
        if type_id is None:
            raise BtfError(f"this kernel has no struct {struct_name}")
        return int(self._words[self._start_of(type_id) + 2])

    def enum_value(self, enum_name: str, constant: str) -> int:
        """The value of a constant of a 32-bit enum. Raises BtfError if there is no such enum or constant."""
        type_id = self.find(KIND_ENUM, enum_name)
        if type_id is None:
            raise BtfError(f"this kernel has no enum {enum_name}")
        start = self._start_of(type_id)
        count = self._words[start + 1] & 0xFFFF
        for at in range(start + 3, start + 3 + 2 * count, 2):
            if self._name(self._words[at]) == constant.encode():
                return int(self._words[at + 1])
        raise BtfError(f"enum {enum_name} of this kernel has no constant {constant}")

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
        return int(self._starts[type_id - 1])

    def _kind(self, start: int) -> int:
        return self._words[start + 1] >> 24 & 0x1F

    def _name(self, offset: int) -> bytes:
        if offset >= len(self._strings):
            raise BtfError(f"a name begins at {offset}, beyond the {len(self._strings)} bytes of strings")
        return self._strings[offset : self._strings.index(b"\0", offset)]


def _record_starts(words: NDArray[np.uint32]) -> NDArray[np.intp]:
    """Word index of each type record. Every record lies inside of ``words``, or BtfError is raised.

    Where a record would end is computed for all words of a chunk at once, as if one began at each. What is left to do
    one after the other is to follow the true ones, four at a time. (Decoding record by record takes three times as
    long; so would arrays that do not fit the cache.)
    """
    end, begin, count = len(words), 0, 0
    found = [np.empty(0, np.intp)]
    while begin < end:
        info = words[begin + 1 : begin + 1 + _CHUNK]
        size = len(info)
        kind = (info >> np.uint32(24)).astype(np.uint8) & np.uint8(0x1F)
        step = np.take(_ENTRY_STEPS, kind) * (info & np.uint32(0xFFFF)).astype(np.int32) + np.take(_FIXED_STEPS, kind)
        after = np.full(size + 1, size, np.int32)  # size: beyond this chunk
        np.minimum(step + np.arange(size, dtype=np.int32), size, out=after[:size])
        fourth = np.take(after, np.take(after, np.take(after, after)))
        landings: list[int] = []
        at, hop = 0, fourth.data
        while at < size:
            landings.append(at)
            at = hop[at]
        columns = [np.array(landings, np.intp)]
        for _ in range(3):
            columns.append(np.take(after, columns[-1]).astype(np.intp))
        starts = np.stack(columns, axis=1).ravel()
        starts = starts[: np.searchsorted(starts, size)]
        count += len(starts)
        found.append(starts + begin)
        last = int(starts[-1]) if size else 0
        if size and step[last] >= _UNKNOWN_STEP:
            raise BtfError(f"type {count} is of kind {kind[last]}, which is not known")
        begin += last + int(step[last]) if size else end + 1
    if begin != end:
        raise BtfError("the last type record reaches beyond the type section")
    return np.concatenate(found)


def _read_all(path: Path) -> bytes | mmap.mmap:
    """A file's bytes, mapped where the kernel allows it (BTF: since Linux 6.16): five times as fast as reading."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_PRIVATE, mmap.PROT_READ)
    except (OSError, ValueError):
        return path.read_bytes()
    finally:
        os.close(fd)
