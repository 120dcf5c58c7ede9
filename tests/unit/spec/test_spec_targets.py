"""Who is monitored: processes, their children, a cgroup, fixed ranges, physical memory; what does not go together."""

from __future__ import annotations

from typing import Any

import pytest

from pydamon.errors import RequestError
from pydamon.spec import explain, from_builtins, to_builtins

RANGE = {"start": "0x1000", "end": "0x3000"}


def request(ops: str, *targets: dict[str, Any]) -> dict[str, Any]:
    return {"kdamonds": [{"contexts": [{"ops": ops, "targets": list(targets)}]}]}


@pytest.mark.parametrize(
    ("ops", "target", "words"),
    [
        ("vaddr", {"pid": 5}, "Target 0: process 5."),
        ("vaddr", {"pid": 5, "include_children": True}, "process 5 and all that descend from it, as they come and go."),
        ("vaddr", {"cgroup": "app.slice/x"}, "the processes in the cgroup app.slice/x, as they come and go."),
        ("fvaddr", {"pid": 5, "regions": [RANGE]}, "0x1000-0x3000 (8.0 KiB)."),
        ("paddr", {}, "Target 0: all System RAM."),
        ("paddr", {"regions": [RANGE]}, "Target 0: System RAM within these ranges."),
    ],
)
def test_each_is_understood_explained_and_read_back(ops: str, target: dict[str, Any], words: str) -> None:
    spec = from_builtins(request(ops, target))
    assert words in "\n".join(explain(spec))
    assert from_builtins(to_builtins(spec)) == spec


@pytest.mark.parametrize(
    ("ops", "targets", "where", "message"),
    [
        ("vaddr", [{}], "targets[0].pid", "needs the id of a process"),
        ("vaddr", [{"pid": 5, "cgroup": "x"}], "targets[0].pid", "a cgroup is given"),
        ("vaddr", [{"cgroup": "x"}, {"pid": 5}], "targets[0].cgroup", "must be the only target"),
        ("vaddr", [{"cgroup": "x", "include_children": True}], "targets[0].include_children", "goes with the id"),
        ("vaddr", [{"pid": 5, "include_children": True}, {"pid": 6}], "targets[1].include_children", "the same"),
        ("vaddr", [{"pid": 5, "include_children": "yes"}], "targets[0].include_children", "Expected `bool`"),
        ("fvaddr", [{"regions": [RANGE]}], "targets[0].pid", "fvaddr needs the id of a process"),
        ("fvaddr", [{"pid": 5}], "targets[0].regions", "are needed with fvaddr"),
        ("fvaddr", [{"cgroup": "x", "regions": [RANGE]}], "targets[0].cgroup", "of the ops vaddr"),
        ("fvaddr", [{"pid": 5, "regions": [RANGE], "include_children": True}], "include_children", "vaddr"),
        ("paddr", [{"pid": 5}], "targets[0].pid", "is not needed: with paddr"),
        ("paddr", [{}, {}], "targets", "physical memory is one"),
        ("paddr", [{"cgroup": "x"}], "targets[0].cgroup", "of the ops vaddr"),
        ("sim", [{"cgroup": "x"}], "targets[0].cgroup", "of the ops vaddr"),
    ],
)
def test_what_does_not_go_together_is_named(ops: str, targets: list[dict[str, Any]], where: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        from_builtins(request(ops, *targets))
    assert message in str(caught.value)
    assert str(caught.value.where).endswith(where)
