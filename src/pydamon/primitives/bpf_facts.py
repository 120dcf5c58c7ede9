"""What the BPF programs need to know of the running kernel: offsets and sizes in bytes, flags, BTF ids of functions."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

# What of these is possible at all, and can be written into an instruction: they may come from a file.
Offset = Annotated[int, msgspec.Meta(ge=0, lt=1 << 15)]
Size = Annotated[int, msgspec.Meta(ge=1, lt=1 << 15)]
Flags = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
BtfId = Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]

# A tail page's word from here on is a mask, below it the head's address (`bpf_program.head_of_tail`).
LEAST_HEAD_MASK: Final = 0xFFFF_FFFF_8000_0000


class KernelFacts(msgspec.Struct, frozen=True):
    """What the page-table walk needs: offsets in bytes, and BTF ids of kfuncs."""

    task_mm: Offset
    mm_pgd: Offset
    task_from_pid: BtfId
    task_release: BtfId
    by_namespace: bool  # whether task_from_pid understands pids of the caller's pid namespace
    loop: tuple[BtfId, BtfId, BtfId]  # bpf_iter_num_new, _next, _destroy
    cast: tuple[BtfId, BtfId]  # bpf_rdonly_cast, and a struct that begins with a 64-bit number
    rcu: tuple[BtfId, BtfId] | None  # bpf_rcu_read_lock, bpf_rcu_read_unlock


class ReverseFacts(msgspec.Struct, frozen=True):
    """What leads from a page of anonymous memory to the mapping that has it: offsets in bytes."""

    page_mapping: Offset
    page_index: Offset
    anon_root: Offset  # anon_vma: the root of its tree
    node_children: tuple[Offset, Offset]  # of a node of that tree
    chain_node: Offset  # anon_vma_chain: the node, and the mapping
    chain_vma: Offset
    vma_start: Offset
    vma_end: Offset
    vma_pgoff: Offset
    vma_mm: Offset
    mm_notifiers: Offset | None  # None: this kernel has none


class SamplerFacts(msgspec.Struct, frozen=True):
    """What the sampler needs besides: offsets and sizes in bytes."""

    walk: KernelFacts
    task_start: Offset  # start_boottime
    task_exec: Offset | None  # self_exec_id: counts the programs that the task has executed
    page_size: Size  # of struct page
    page_flags: Offset
    page_mapcount: Offset
    page_head: Offset  # compound_head; compound_info in later kernels
    lru: Flags  # masks of page flags
    head: Flags
    locked: Flags
    idle: Flags  # 0: this kernel does not track it
    folio: tuple[Offset, Offset] | None  # number of pages, and how often they are mapped in sum (since Linux 6.10)
    # From task_struct to the only page of an open file (`vmemmap`).
    files: tuple[Offset, Offset, Offset, Offset, Offset]
    reverse: ReverseFacts | None
