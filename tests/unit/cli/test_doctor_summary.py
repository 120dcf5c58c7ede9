"""The five lines that doctor begins with, for machines of several kinds."""

from __future__ import annotations

from typing import Any

import pytest
from tests.helpers.command import pydamon

from pydamon.cli.doctor_summary import summary


def machine(**changes: Any) -> dict[str, Any]:
    """The findings on a machine where all works but what ``changes`` say."""
    item = {"usable": True, "what": "", "reason": None}
    found: dict[str, Any] = {
        "kernel": "6.12",
        "machine": "x86_64",
        "user": "root",
        "uid": 0,
        "engines": [{"name": "kernel", **item}],
        "ops": [{"name": "paddr", **item}],
        "primitives": [{"name": "bpf", **item}, {"name": "smaps", **item}],
        "actions": [{"name": "cold", **item}, {"name": "pageout", **item}],
        "auto": {"primitive": "bpf", "reason": ""},
    }
    return found | changes


def test_where_all_works() -> None:
    first, *rest = summary(machine())
    assert first.endswith("on Linux 6.12 x86_64, user root (uid 0)")
    assert rest == [
        "monitors: any process, through bpf (single pages, for 3% of a CPU at most)",
        "schemes: cold, pageout",
        "the kernel's DAMON: can be used: --engine kernel",
        "would help: nothing that monitoring needs; below is all that there is",
    ]


def test_an_ordinary_user_is_told_what_root_would_see() -> None:
    bpf = {"name": "bpf", "usable": False, "what": "", "reason": "needs CAP_BPF"}
    lines = summary(machine(uid=1000, user="me", auto={"primitive": "smaps", "reason": ""}, primitives=[bpf]))
    assert "monitors: processes of yours, through smaps (whole mappings, disturbed for 5% of the time at most)" in lines
    assert (
        lines[-1] == "would help: root, to see single pages and others' processes: sudo pydamon … (bpf: needs CAP_BPF)"
    )


def test_what_cannot_be_is_said() -> None:
    remark = {"name": "pageout", "usable": True, "what": "", "reason": None, "remark": "there is no swap: …"}
    refused = {"name": "hugepage", "usable": False, "what": "", "reason": "no"}
    kernel = {"name": "kernel", "usable": False, "what": "", "reason": "is in use: kdamond 0"}
    lines = summary(machine(actions=[remark, refused], engines=[kernel]))
    assert "schemes: pageout (of files: no swap); not hugepage" in lines
    assert "the kernel's DAMON: is in use" in lines
    assert lines[-1].startswith("would help: swap or zram")


@pytest.mark.usefixtures("processes")
def test_doctor_begins_with_them() -> None:
    lines = pydamon("--no-config", "doctor").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[1:6]] == [
        "monitors",
        "schemes",
        "the kernel's DAMON",
        "would help",
        "",
    ]
