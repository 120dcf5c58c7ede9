"""``pydamon doctor``: every operations set, primitive, source and facility, with the reason why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engines.kernel_fake import FakeTree, make_roots

from pydamon.cli import doctor, main
from pydamon.errors import MachineError
from pydamon.linux import mounts, resctrl
from pydamon.ops import paddr, reverse_map
from pydamon.ops.reported.sources import perf_mem, valgrind
from pydamon.primitives import registry
from pydamon.spec.primitives import CHOICES

NAMES = {
    "engines": ["user", "kernel", "sim"],
    "ops": ["vaddr", "fvaddr", "paddr", "reported", "sim"],
    "primitives": list(CHOICES[1:]),
    "sources": ["perf-event", "page-faults", "valgrind", "perf-mem", "lackey", "perf-script"],
    "facilities": [
        "reverse map",
        "cgroup v2",
        "generations",
        "resctrl",
        "damonfs",
        "user events",
        "own pages",
        "huge pages",
    ],
}


@pytest.mark.usefixtures("processes")
def test_everything_is_named_with_a_reason_where_it_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    for kind, names in NAMES.items():
        assert [item["name"] for item in found[kind]] == names
        for item in found[kind]:
            assert set(item) - {"remark"} == {"name", "usable", "what", "reason"}
            assert item["what"]
            assert item["usable"] or item["reason"]
            assert item["reason"] is None or "\n" not in item["reason"]
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for names in NAMES.values() for name in names)


def refuse(message: str, where: str | None) -> Any:
    def probe(*_: object) -> None:
        raise MachineError(message, where=where)

    return probe


@pytest.mark.usefixtures("processes")
def test_what_would_enable_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paddr, "probe", refuse("shows no addresses; run as root", "/proc/iomem"))
    monkeypatch.setattr(reverse_map, "probe", refuse("shows no frame numbers; run as root", "/proc/PID/pagemap"))
    monkeypatch.setattr(valgrind, "probe", refuse("is not installed; apt-get install valgrind", "valgrind"))
    monkeypatch.setattr(perf_mem, "probe", refuse("is not installed; apt-get install linux-perf", "perf mem"))
    monkeypatch.setattr(resctrl, "probe", refuse("is not mounted; as root: mount -t resctrl", "resctrl"))
    monkeypatch.setattr(mounts, "mounts", lambda *_: [])
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    monkeypatch.setattr(doctor, "_HUGE_PAGES", tmp_path / "enabled")
    found = doctor.examine()
    reasons = {item["name"]: item["reason"] for kind in ("ops", "sources", "facilities") for item in found[kind]}
    assert reasons["paddr"] == "/proc/iomem: shows no addresses; run as root"
    assert reasons["reverse map"] == "/proc/PID/pagemap: shows no frame numbers; run as root"
    assert reasons["valgrind"] == "is not installed; apt-get install valgrind"
    assert reasons["perf-mem"] == "is not installed; apt-get install linux-perf"
    assert reasons["resctrl"] == "is not mounted; as root: mount -t resctrl"
    assert reasons["cgroup v2"] == "is not mounted; as root: mount -t cgroup2 none /sys/fs/cgroup"
    assert reasons["huge pages"] == f"are off; as root: echo madvise > {tmp_path / 'enabled'}"
    assert main(["doctor"]) == 0
    assert "/proc/iomem: shows no addresses; run as root\n" in capsys.readouterr().out


@pytest.mark.usefixtures("processes")
def test_without_any_primitive_processes_cannot_be_monitored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "obstacle", lambda name: f"no {name} here")
    found = doctor.examine()
    assert found["auto"]["primitive"] is None
    usable = {item["name"]: item["usable"] for item in found["ops"]}
    assert (usable["vaddr"], usable["fvaddr"], usable["reported"], usable["sim"]) == (False, False, True, True)
    assert "no smaps here" in found["ops"][0]["reason"]


def test_the_kernels_damon_is_usable_unless_somebody_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    roots = make_roots(tmp_path / "kernel")
    free = doctor._kernel_engine(roots)
    assert (free["usable"], free["reason"]) == (True, None)
    assert free["remark"].startswith("looked at now and then (tried regions): tracefs at ")
    tree = FakeTree(roots)
    tree.write("kdamonds/nr_kdamonds", 1)
    tree.write("kdamonds/0/contexts/nr_contexts", 1)
    tree.write("kdamonds/0/state", "on")
    busy = doctor._kernel_engine(roots)
    assert not busy["usable"]
    assert "pid 4242" in busy["reason"]
    none = doctor._kernel_engine(replace(roots, damon=str(tmp_path / "nothing")))
    assert not none["usable"]
    assert none["reason"]
