"""What the BPF programs need to know of the running kernel: offsets and sizes in bytes, flags, BTF ids of functions."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass

from pydamon.linux.btf import KIND_FUNC, KIND_STRUCT, Btf, BtfError


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What the page-table walk needs: offsets in bytes, and BTF ids of kfuncs."""

    task_mm: int
    mm_pgd: int
    task_from_pid: int
    task_release: int
    by_namespace: bool  # whether task_from_pid understands pids of the caller's pid namespace
    loop: tuple[int, int, int]  # bpf_iter_num_new, _next, _destroy
    cast: tuple[int, int]  # bpf_rdonly_cast, and a struct that begins with a 64-bit number
    rcu: tuple[int, int] | None  # bpf_rcu_read_lock, bpf_rcu_read_unlock


def kernel_facts(btf: Btf) -> KernelFacts:
    """Look them up. Raises BtfError, naming what is missing."""

    def kfunc(name: str) -> int:
        btf_id = btf.find(KIND_FUNC, name)
        if btf_id is None:
            raise BtfError(f"this kernel has no kfunc {name}; Linux 6.4 and later have it")
        return btf_id

    # bpf_task_from_vpid (since Linux 6.14) takes pids as the caller's namespace numbers them; the older
    # bpf_task_from_pid only the initial namespace's.
    by_vpid = btf.find(KIND_FUNC, "bpf_task_from_vpid")
    name, first = ("user_pt_regs", "regs") if platform.machine() == "aarch64" else ("pt_regs", "r15")
    regs = btf.find(KIND_STRUCT, name)
    if regs is None or btf.member_offset(name, first) != 0:
        raise BtfError(f"struct {name} of this kernel does not begin with {first}")
    lock, unlock = btf.find(KIND_FUNC, "bpf_rcu_read_lock"), btf.find(KIND_FUNC, "bpf_rcu_read_unlock")
    return KernelFacts(
        task_mm=btf.member_offset("task_struct", "mm"),
        mm_pgd=btf.member_offset("mm_struct", "pgd"),
        task_from_pid=by_vpid or kfunc("bpf_task_from_pid"),
        task_release=kfunc("bpf_task_release"),
        by_namespace=by_vpid is not None,
        loop=(kfunc("bpf_iter_num_new"), kfunc("bpf_iter_num_next"), kfunc("bpf_iter_num_destroy")),
        cast=(kfunc("bpf_rdonly_cast"), regs),
        rcu=(lock, unlock) if lock and unlock else None,
    )


@dataclass(frozen=True, slots=True)
class ReverseFacts:
    """What leads from a page of anonymous memory to the mapping that has it: offsets in bytes."""

    page_mapping: int
    page_index: int
    anon_root: int  # anon_vma: the root of its tree
    node_children: tuple[int, int]  # of a node of that tree
    chain_node: int  # anon_vma_chain: the node, and the mapping
    chain_vma: int
    vma_start: int
    vma_end: int
    vma_pgoff: int
    vma_mm: int
    mm_notifiers: int | None  # None: this kernel has none


@dataclass(frozen=True, slots=True)
class SamplerFacts:
    """What the sampler needs besides: offsets and sizes in bytes."""

    walk: KernelFacts
    task_start: int  # start_boottime
    task_exec: int | None  # self_exec_id: counts the programs that the task has executed
    page_size: int  # of struct page
    page_flags: int
    page_mapcount: int
    page_head: int  # compound_head
    lru: int  # masks of page flags
    head: int
    locked: int
    idle: int  # 0: this kernel does not track it
    folio: tuple[int, int] | None  # number of pages, and how often they are mapped in sum (since Linux 6.10)
    files: tuple[int, int, int, int, int]  # from task_struct to the only page of an open file (`vmemmap`)
    reverse: ReverseFacts | None


def sampler_facts(btf: Btf, walk: KernelFacts) -> SamplerFacts:
    """Look them up. Raises BtfError, naming what is missing."""

    def flag(name: str) -> int:
        return 1 << btf.enum_value("pageflags", name)

    return SamplerFacts(
        walk=walk,
        task_start=btf.member_offset("task_struct", "start_boottime"),
        task_exec=_offset(btf, "task_struct", "self_exec_id"),
        page_size=btf.struct_size("page"),
        page_flags=btf.member_offset("page", "flags"),
        page_mapcount=btf.member_offset("page", "_mapcount"),
        page_head=btf.member_offset("page", "compound_head"),
        lru=flag("PG_lru"),
        head=flag("PG_head"),
        locked=flag("PG_mlocked") | flag("PG_unevictable"),
        folio=_folio_facts(btf),
        files=(
            btf.member_offset("task_struct", "files"),
            btf.member_offset("files_struct", "fdt"),
            btf.member_offset("fdtable", "fd"),
            btf.member_offset("file", "f_mapping"),
            btf.member_offset("address_space", "i_pages") + btf.member_offset("xarray", "xa_head"),
        ),
        idle=_flag(btf, "PG_idle"),
        reverse=_reverse_facts(btf),
    )


def _flag(btf: Btf, name: str) -> int:
    try:
        return 1 << btf.enum_value("pageflags", name)
    except BtfError:
        return 0


def _reverse_facts(btf: Btf) -> ReverseFacts | None:
    at = btf.member_offset
    try:
        return ReverseFacts(
            page_mapping=at("page", "mapping"),
            page_index=at("folio", "index"),
            anon_root=at("anon_vma", "rb_root") + at("rb_root_cached", "rb_root") + at("rb_root", "rb_node"),
            node_children=(at("rb_node", "rb_left"), at("rb_node", "rb_right")),
            chain_node=at("anon_vma_chain", "rb"),
            chain_vma=at("anon_vma_chain", "vma"),
            vma_start=at("vm_area_struct", "vm_start"),
            vma_end=at("vm_area_struct", "vm_end"),
            vma_pgoff=at("vm_area_struct", "vm_pgoff"),
            vma_mm=at("vm_area_struct", "vm_mm"),
            mm_notifiers=_offset(btf, "mm_struct", "notifier_subscriptions"),
        )
    except BtfError:
        return None


def _folio_facts(btf: Btf) -> tuple[int, int] | None:
    # _large_mapcount: kernel commit 05c5323b2a34; _folio_nr_pages was renamed by 4996fc547f5b (6.15).
    pages = _offset(btf, "folio", "_nr_pages") or _offset(btf, "folio", "_folio_nr_pages")
    mapcount = _offset(btf, "folio", "_large_mapcount")
    return (pages, mapcount) if pages and mapcount else None


def _offset(btf: Btf, struct_name: str, member: str) -> int | None:
    try:
        return btf.member_offset(struct_name, member)
    except BtfError:
        return None


@functools.cache
def of_this_kernel() -> tuple[KernelFacts, SamplerFacts | BtfError]:
    """Both, looked up once: most of the time to set up a walk. Raises BtfError if the first cannot be had."""
    btf = Btf.of_kernel()
    walk = kernel_facts(btf)
    try:
        return walk, sampler_facts(btf, walk)
    except BtfError as error:
        return walk, error
