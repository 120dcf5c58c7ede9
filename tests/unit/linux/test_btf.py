"""The BTF parser, on blobs built here (layout: the kernel's Documentation/bpf/btf.rst) and on this kernel's own."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.errors import MachineError
from pydamon.linux.btf import KIND_FUNC, KIND_STRUCT, KIND_UNION, VMLINUX, Btf, BtfError

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, FUNC, FUNC_PROTO, VAR, DATASEC, DECL_TAG, ENUM64 = (
    1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 17, 19,
)  # fmt: skip


class Blob:
    """Builds a BTF blob; each method adds a type and returns its id."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.records: list[bytes] = []

    def name(self, text: str) -> int:
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(self, kind: int, name: str = "", vlen: int = 0, size: int = 0, extra: bytes = b"", flag: int = 0) -> int:
        info = flag << 31 | kind << 24 | vlen
        self.records.append(struct.pack("<III", self.name(name), info, size) + extra)
        return len(self.records)

    def compound(self, kind: int, name: str, members: list[tuple[str, int, int]], flag: int = 0) -> int:
        """``members``: name, type id, the offset word."""
        extra = b"".join(struct.pack("<III", self.name(member), type_id, offset) for member, type_id, offset in members)
        return self.add(kind, name, len(members), 64, extra, flag)

    def bytes(self) -> bytes:
        types = b"".join(self.records)
        header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings))
        return header + types + self.strings


def one_of_each_kind() -> Blob:
    """A record of every kind with a tail of its own, so that a wrong length of any shifts what follows."""
    blob = Blob()
    number = blob.add(INT, "int", size=4, extra=struct.pack("<I", 32))
    blob.add(PTR, size=number)
    blob.add(ARRAY, extra=struct.pack("<III", number, number, 4))
    blob.add(ENUM, "colour", vlen=2, size=4, extra=struct.pack("<IiIi", blob.name("red"), 0, blob.name("blue"), 1))
    blob.add(FWD, "task_struct")
    for kind in (8, 9, 10, 11, 16, 18):  # typedef, volatile, const, restrict, float, type tag
        blob.add(kind, f"kind{kind}", size=number)
    proto = blob.add(FUNC_PROTO, vlen=2, extra=struct.pack("<IIII", 0, number, 0, number))
    blob.add(FUNC, "first", vlen=1, size=proto)
    blob.add(VAR, "v", size=number, extra=struct.pack("<I", 1))
    blob.add(DATASEC, ".data", vlen=1, size=4, extra=struct.pack("<III", 15, 0, 4))
    blob.add(DECL_TAG, "tag", size=number, extra=struct.pack("<i", -1))
    blob.add(ENUM64, "big", vlen=1, size=8, extra=struct.pack("<III", blob.name("x"), 0, 1))
    inner_union = blob.compound(UNION, "", [("pid", number, 0), ("tgid", number, 32)])
    inner = blob.compound(STRUCT, "", [("state", number, 0), ("", inner_union, 64), ("mm", 2, 128)])
    blob.compound(STRUCT, "task_struct", [("flags", number, 0), ("", inner, 192), ("cpu", number, 512)])
    blob.compound(STRUCT, "bits", [("low", number, 3 << 24), ("odd", number, 5 << 24 | 3), ("next", number, 64)], 1)
    blob.add(FUNC, "last", size=proto)
    return blob


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf(one_of_each_kind().bytes())


def test_a_types_id_is_its_place_among_records_of_all_kinds(btf: Btf) -> None:
    assert btf.find(KIND_FUNC, "first") == 13
    assert btf.find(KIND_FUNC, "last") == 22
    assert btf.find(KIND_STRUCT, "task_struct") == 20  # not the forward declaration


def test_what_is_not_there_is_not_found(btf: Btf) -> None:
    assert btf.find(KIND_FUNC, "firs") is None
    assert btf.find(KIND_FUNC, "irst") is None
    assert btf.find(KIND_UNION, "task_struct") is None


@pytest.mark.parametrize(
    ("member", "offset"),
    [("flags", 0), ("state", 24), ("pid", 32), ("tgid", 36), ("mm", 40), ("cpu", 64)],
)
def test_offsets_add_up_through_anonymous_members(btf: Btf, member: str, offset: int) -> None:
    assert btf.member_offset("task_struct", member) == offset


def test_the_size_of_a_struct_and_the_constants_of_an_enum(btf: Btf) -> None:
    assert btf.struct_size("task_struct") == 64
    assert [btf.enum_value("colour", name) for name in ("red", "blue")] == [0, 1]


def test_bit_fields_have_their_width_above_the_offset(btf: Btf) -> None:
    assert btf.member_offset("bits", "low") == 0
    assert btf.member_offset("bits", "next") == 8
    with pytest.raises(BtfError, match=r"^BTF: member odd of struct bits is a bit field$"):
        btf.member_offset("bits", "odd")


def test_missing_names_are_named(btf: Btf) -> None:
    with pytest.raises(BtfError, match=r"^BTF: this kernel has no struct mm_struct$"):
        btf.member_offset("mm_struct", "pgd")
    with pytest.raises(BtfError, match=r"^BTF: struct task_struct of this kernel has no member pgd$"):
        btf.member_offset("task_struct", "pgd")
    with pytest.raises(BtfError, match=r"^BTF: this kernel has no struct mm_struct$"):
        btf.struct_size("mm_struct")
    with pytest.raises(BtfError, match=r"^BTF: this kernel has no enum pageflags$"):
        btf.enum_value("pageflags", "PG_lru")
    with pytest.raises(BtfError, match=r"^BTF: enum colour of this kernel has no constant green$"):
        btf.enum_value("colour", "green")


def test_a_struct_inside_of_itself_ends() -> None:
    blob = Blob()
    blob.compound(STRUCT, "loop", [("", 1, 0), ("", 2, 0)])
    blob.compound(STRUCT, "", [("", 1, 0), ("", 2, 0)])
    with pytest.raises(BtfError, match="has no member x"):
        Btf(blob.bytes()).member_offset("loop", "x")


def test_bottomless_nesting_is_refused() -> None:
    blob = Blob()
    blob.compound(STRUCT, "deep", [("", 2, 0)])
    for type_id in range(3, 2000):
        blob.compound(STRUCT, "", [("", type_id, 0)])
    with pytest.raises(BtfError, match="nested more than"):
        Btf(blob.bytes()).member_offset("deep", "x")


def test_references_out_of_the_blob_are_refused() -> None:
    blob = Blob()
    blob.compound(STRUCT, "a", [("", 77, 0)])
    with pytest.raises(BtfError, match="type id 77 is not one of the 1 types"):
        Btf(blob.bytes()).member_offset("a", "x")
    blob = Blob()
    blob.records.append(struct.pack("<IIIIII", blob.name("a"), STRUCT << 24 | 1, 8, 1 << 30, 1, 0))
    with pytest.raises(BtfError, match="a name begins at 1073741824"):
        Btf(blob.bytes()).member_offset("a", "x")


def test_an_unknown_kind_is_refused_because_its_length_is() -> None:
    blob = Blob()
    blob.add(20, "future")
    with pytest.raises(BtfError, match="type 1 is of kind 20, which is not known"):
        Btf(blob.bytes())


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ((0, b"\x9f\xeb"[::-1]), "magic number is 0x9feb"),
        ((2, b"\x02"), "version 2 is not known"),
        ((4, struct.pack("<I", 8)), "misaligned"),
        ((12, struct.pack("<I", 1 << 20)), "cut short"),
        ((20, struct.pack("<I", 0)), "string section"),
    ],
)
def test_a_damaged_header_is_refused(patch: tuple[int, bytes], message: str) -> None:
    data = bytearray(one_of_each_kind().bytes())
    data[patch[0] : patch[0] + len(patch[1])] = patch[1]
    with pytest.raises(BtfError, match=message):
        Btf(bytes(data))


def test_every_shortened_blob_is_refused() -> None:
    data = one_of_each_kind().bytes()
    for length in range(len(data)):
        with pytest.raises(BtfError):
            Btf(data[:length])


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_give_an_answer_or_a_btf_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(one_of_each_kind().bytes())
    for at, value in changes:
        data[at % len(data)] = value
    try:
        damaged = Btf(bytes(data))
        damaged.find(KIND_FUNC, "last")
        damaged.member_offset("task_struct", "mm")
        damaged.enum_value("colour", "blue")
    except BtfError:
        pass


def test_a_kernel_without_btf_says_what_would_enable_it(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"^BTF: cannot read .*CONFIG_DEBUG_INFO_BTF$"):
        Btf.of_kernel(tmp_path / "vmlinux")


@pytest.mark.skipif(not VMLINUX.exists(), reason=f"this kernel publishes no {VMLINUX}")
def test_this_kernels_own() -> None:
    btf = Btf.of_kernel()
    assert btf.member_offset("task_struct", "mm") % 8 == 0
    assert btf.member_offset("mm_struct", "pgd") % 8 == 0
    assert btf.member_offset("list_head", "prev") == 8  # include/linux/types.h
    assert 0 < btf.enum_value("pageflags", "PG_lru") < 32
