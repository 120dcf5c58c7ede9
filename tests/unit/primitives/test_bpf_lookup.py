"""Kernels that lack what the BPF programs call: said in one line, with the version that has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydamon.linux.btf import KIND_FUNC, VMLINUX, Btf, BtfError
from pydamon.primitives.bpf_lookup import kernel_facts

# Kernel sources: added to kernel/bpf/helpers.c by 6.2 (tasks, RCU, bpf_rdonly_cast) and 6.4 (bpf_iter_num_*).
AFTER_6_1 = {
    *("bpf_task_from_vpid", "bpf_task_from_pid", "bpf_task_release", "bpf_rdonly_cast", "bpf_rcu_read_lock"),
    *("bpf_rcu_read_unlock", "bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy"),
}
AFTER_6_3 = {name for name in AFTER_6_1 if name.startswith("bpf_iter_num_")}


class Older(Btf):
    """This kernel's types without some functions."""

    lacks: set[str]

    def find(self, kind: int, name: str) -> int | None:
        return None if kind == KIND_FUNC and name in self.lacks else super().find(kind, name)


@pytest.mark.skipif(not Path(VMLINUX).exists(), reason="this kernel tells no types (BTF)")
@pytest.mark.parametrize(
    ("lacks", "name"), [(AFTER_6_1, "bpf_task_from_pid"), (AFTER_6_3, "bpf_iter_num_new")], ids=["6.1", "6.3"]
)
def test_an_older_kernel_is_refused_in_one_line(lacks: set[str], name: str) -> None:
    btf = Older(Path(VMLINUX).read_bytes())
    btf.lacks = lacks
    with pytest.raises(BtfError, match=rf"^BTF: this kernel has no kfunc {name}; Linux 6\.4 and later have it$"):
        kernel_facts(btf)
