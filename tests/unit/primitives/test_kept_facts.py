"""What was looked up of the kernel is believed again only where nobody else can have written it, and of this boot."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from pydamon.errors import MachineError
from pydamon.linux.btf import Btf, BtfError
from pydamon.primitives import bpf_lookup, kept_facts
from pydamon.primitives.bpf_facts import KernelFacts, SamplerFacts

WALK = KernelFacts(
    task_mm=1, mm_pgd=2, task_from_pid=3, task_release=4, by_namespace=True, loop=(5, 6, 7), cast=(8, 9), rcu=None
)
SAMPLER = SamplerFacts(
    walk=WALK, task_start=1, task_exec=None, page_size=64, page_flags=0, page_mapcount=48, page_head=8, lru=32,
    head=64, locked=3 << 20, idle=0, folio=(1, 2), files=(3, 4, 5, 6, 7), reverse=None,
)  # fmt: skip


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path


@pytest.fixture
def file(base: Path) -> Path:
    kept_facts.write(WALK, SAMPLER)
    return base / "pydamon" / kept_facts.FILE


def change(file: Path, **fields: object) -> None:
    """Write other fields into the file."""
    text = msgspec.json.decode(file.read_bytes())
    file.write_bytes(msgspec.json.encode(text | fields))


def test_what_was_kept_is_read_again(file: Path) -> None:
    kept = kept_facts.read()
    assert kept is not None
    assert (kept.walk, kept.sampler) == (WALK, SAMPLER)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == [kept_facts.FILE]


def test_nothing_kept_is_nothing(base: Path) -> None:
    assert kept_facts.read() is None


@pytest.mark.parametrize("field", ["boot", "kernel", "pydamon"])
def test_another_boot_kernel_or_version_is_not_believed(file: Path, field: str) -> None:
    change(file, **{field: "another"})
    assert kept_facts.read() is None


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 60_000, b'{"boot": 1}', b"0" * 70_000],
    ids=["empty", "cut", "null", "list", "no text", "deep", "types", "long"],
)
def test_what_is_damaged_is_not_believed(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    assert kept_facts.read() is None


@pytest.mark.parametrize(
    "wrong",
    [{"task_mm": -1}, {"task_mm": 1 << 15}, {"mm_pgd": 1.5}, {"task_from_pid": 1 << 31}, {"cast": [1]}, {"rcu": "x"}],
)
def test_numbers_that_no_kernel_has_are_not_believed(file: Path, wrong: dict[str, object]) -> None:
    change(file, walk=msgspec.to_builtins(WALK) | wrong)
    assert kept_facts.read() is None


def test_a_page_struct_of_no_size_is_not_believed(file: Path) -> None:
    change(file, sampler=msgspec.to_builtins(SAMPLER) | {"page_size": 0})
    assert kept_facts.read() is None


def test_a_file_that_others_can_write_is_not_believed(file: Path) -> None:
    file.chmod(0o620)
    assert kept_facts.read() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_file_of_somebody_else_is_not_believed(file: Path) -> None:
    os.chown(file, 65534, 65534)
    assert kept_facts.read() is None


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(file: Path, tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    if kind == "link":
        file.symlink_to(elsewhere)
    elif kind == "fifo":
        os.mkfifo(file, 0o600)
    else:
        file.mkdir()
    assert kept_facts.read() is None


def test_a_directory_that_others_can_write_is_neither_read_nor_written(file: Path) -> None:
    file.parent.chmod(0o777)
    assert kept_facts.read() is None
    file.unlink()
    kept_facts.write(WALK, SAMPLER)
    assert not file.exists()


def test_where_nothing_can_be_written_nothing_is_kept_and_nothing_is_said(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_facts, "own_directory", lambda: "/proc/pydamon")
    kept_facts.write(WALK, SAMPLER)
    assert kept_facts.read() is None


def test_what_takes_the_name_of_the_new_file_is_left_alone(file: Path) -> None:
    new = file.with_name(f".{kept_facts.FILE}.{os.getpid()}")
    new.write_text("precious")
    kept_facts.write(WALK, None, "no struct page")
    assert new.read_text() == "precious"
    kept = kept_facts.read()
    assert kept is not None
    assert kept.sampler == SAMPLER


class TestOfThisKernel:
    @pytest.fixture(autouse=True)
    def afresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept_facts, "of_this_kernel", kept_facts.of_this_kernel.__wrapped__)

    def test_it_is_looked_up_once_a_boot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Btf, "of_kernel", lambda: None)
        monkeypatch.setattr(bpf_lookup, "kernel_facts", lambda btf: WALK)
        monkeypatch.setattr(bpf_lookup, "sampler_facts", lambda btf, walk: SAMPLER)
        assert kept_facts.of_this_kernel() == (WALK, SAMPLER)
        monkeypatch.setattr(Btf, "of_kernel", lambda: pytest.fail("it was looked up again"))
        assert kept_facts.of_this_kernel() == (WALK, SAMPLER)

    def test_what_the_sampler_lacks_is_kept_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(btf: object, walk: KernelFacts) -> SamplerFacts:
            raise BtfError("this kernel has no struct vm_struct")

        monkeypatch.setattr(Btf, "of_kernel", lambda: None)
        monkeypatch.setattr(bpf_lookup, "kernel_facts", lambda btf: WALK)
        monkeypatch.setattr(bpf_lookup, "sampler_facts", missing)
        for _ in range(2):
            walk, error = kept_facts.of_this_kernel()
            assert walk == WALK
            assert isinstance(error, MachineError)
            assert str(error) == "BTF: this kernel has no struct vm_struct"
            monkeypatch.setattr(Btf, "of_kernel", lambda: pytest.fail("it was looked up again"))

    def test_a_kernel_without_the_walks_facts_is_asked_again(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing() -> Btf:
            raise BtfError("cannot read")

        monkeypatch.setattr(Btf, "of_kernel", missing)
        with pytest.raises(MachineError, match="cannot read"):
            kept_facts.of_this_kernel()
        assert kept_facts.read() is None
