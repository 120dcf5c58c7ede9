"""Looks up what the BPF programs need to know of the running kernel, in its type information."""

from __future__ import annotations

import platform

from pydamon.linux.btf import KIND_FUNC, KIND_STRUCT, Btf, BtfError
from pydamon.primitives.bpf_facts import KernelFacts, ReverseFacts, SamplerFacts


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
        page_head=_head_offset(btf),
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


def _head_offset(btf: Btf) -> int:
    try:
        return btf.member_offset("page", "compound_head")
    except BtfError:  # renamed together with what it may hold
        return btf.member_offset("page", "compound_info")


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
