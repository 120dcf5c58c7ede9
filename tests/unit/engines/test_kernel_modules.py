"""DAMON's modules over a directory: what is set, whose they are, and that a refused request changes nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.engines.kernel_fake import make_roots, start_thread

from pydamon import run, service
from pydamon.cli import main
from pydamon.engines.kernel import modules
from pydamon.errors import MachineError, RequestError
from pydamon.linux.damon_sysfs import Roots, Thread, Tree
from pydamon.run import kernel  # noqa: F401 (patched below, as attributes of run)
from pydamon.run.kernel import kernel_status, status_lines
from pydamon.service import modules as of_service  # noqa: F401

PID = 515


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Roots:
    """A kernel with damon_reclaim: ``enabled`` starts and ends its thread."""
    roots = make_roots(tmp_path / "kernel")
    parameters = Path(roots.modules, "damon_reclaim/parameters")
    parameters.mkdir(parents=True)
    for name, text in (("enabled", "N"), ("commit_inputs", "N"), ("min_age", "120000000"), ("skip_anon", "N"),
                       ("quota_sz", "134217728"), ("kdamond_pid", "-1"), ("nr_quota_exceeds", "0")):  # fmt: skip
        (parameters / name).write_text(f"{text}\n")
    for name in ("kdamond_pid", "nr_quota_exceeds"):
        (parameters / name).chmod(0o400)
    real = Tree._write

    def write(tree: Tree, name: str, value: str) -> None:
        if name == "min_age" and not value.isdigit():
            raise OSError(22, "Invalid argument")
        real(tree, name, value)
        os.truncate(tree.path(name), len(value) + 1)
        if name == "enabled":
            shutil.rmtree(Path(roots.proc, str(PID)), ignore_errors=True)
            if value == "Y":
                start_thread(roots, PID)
            (parameters / "kdamond_pid").chmod(0o600)
            (parameters / "kdamond_pid").write_text(f"{PID if value == 'Y' else -1}\n")

    monkeypatch.setattr(Tree, "_write", write)
    return roots


def parameter(roots: Roots, name: str) -> str:
    return Path(roots.modules, "damon_reclaim/parameters", name).read_text().strip()


def test_a_module_is_set_started_changed_and_stopped(roots: Roots, own: int) -> None:
    values = {"min_age": 30_000_000, "skip_anon": True}
    thread = modules.start("damon_reclaim", values, directory_fd=own, roots=roots)
    assert thread == Thread(PID, 777)
    assert [parameter(roots, name) for name in ("enabled", "min_age", "skip_anon", "quota_sz")] == [
        "Y", "30000000", "Y", "134217728",
    ]  # fmt: skip
    (line,) = status_lines(kernel_status(roots))
    assert line == f"module damon_reclaim: on, pid {PID}"
    modules.tune("damon_reclaim", {"quota_sz": 1 << 20}, directory_fd=own, roots=roots)
    assert (parameter(roots, "quota_sz"), parameter(roots, "commit_inputs")) == ("1048576", "Y")
    with pytest.raises(MachineError, match=r"module damon_reclaim \(pid 515\)"):
        modules.start("damon_reclaim", {}, directory_fd=own, roots=roots)
    modules.stop("damon_reclaim", directory_fd=own, roots=roots)
    assert parameter(roots, "enabled") == "N"
    assert os.listdir(own) == []


def test_somebody_elses_module_is_neither_changed_nor_stopped(roots: Roots, own: int) -> None:
    modules.start("damon_reclaim", {}, directory_fd=own, roots=roots)
    start_thread(roots, PID, start_ticks=778)  # somebody has disabled and enabled it meanwhile
    acts: tuple[Callable[[], object], ...] = (
        lambda: modules.tune("damon_reclaim", {"quota_sz": 1}, directory_fd=own, roots=roots),
        lambda: modules.stop("damon_reclaim", directory_fd=own, roots=roots),
    )
    for act in acts:
        with pytest.raises(MachineError, match="somebody else, and is left alone"):
            act()
    assert (parameter(roots, "enabled"), parameter(roots, "quota_sz")) == ("Y", "134217728")


def test_what_the_kernel_does_not_have_is_named_and_nothing_is_changed(roots: Roots, own: int) -> None:
    with pytest.raises(RequestError, match="no module of DAMON"):
        modules.start("damon_x/../../y", {}, directory_fd=own, roots=roots)
    with pytest.raises(MachineError, match="CONFIG_DAMON_LRU_SORT"):
        modules.start("damon_lru_sort", {}, directory_fd=own, roots=roots)
    for name in ("autotune_monitoring_intervals", "../enabled", "enabled", "kdamond_pid"):
        with pytest.raises(MachineError, match="has no such parameter; it has min_age, quota_sz, skip_anon"):
            modules.start("damon_reclaim", {"min_age": 1, name: True}, directory_fd=own, roots=roots)
    with pytest.raises(RequestError, match=r"modules\.damon_reclaim\.min_age: '-1' is refused"):
        modules.start("damon_reclaim", {"quota_sz": 5, "min_age": -1}, directory_fd=own, roots=roots)
    assert [parameter(roots, name) for name in ("enabled", "min_age", "quota_sz")] == ["N", "120000000", "134217728"]


class TestCommands:
    """``start``, ``tune``, ``status`` and ``stop`` with a spec that is for a module."""

    @pytest.fixture(autouse=True)
    def machine(self, roots: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (modules, run.kernel, service.modules):
            monkeypatch.setattr(module, "Roots", lambda: roots)
        runtime = tmp_path / "runtime"
        runtime.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

    def run(self, *args: str) -> tuple[int, str, str]:
        with pytest.MonkeyPatch.context() as patch:
            out, err = io.StringIO(), io.StringIO()
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            status = main([*args])
        return status, out.getvalue(), err.getvalue()

    def spec(self, tmp_path: Path, **parameters: object) -> str:
        path = tmp_path / "reclaim.json"
        path.write_text(json.dumps({"modules": {"damon_reclaim": parameters}}))
        return str(path)

    def test_it_is_started_shown_changed_and_stopped(self, roots: Roots, tmp_path: Path) -> None:
        spec = self.spec(tmp_path, min_age="30s", quota_sz="1 MiB", skip_anon=True)
        status, said, _ = self.run("start", "--engine", "kernel", "--spec", spec)
        assert (status, said) == (
            0, f"module damon_reclaim (pid {PID}): runs until it is stopped: pydamon stop damon_reclaim\n",
        )  # fmt: skip
        shown = [parameter(roots, name) for name in ("enabled", "min_age", "quota_sz", "skip_anon")]
        assert shown == ["Y", "30000000", "1048576", "Y"]
        assert f"module damon_reclaim: on, started by pydamon, pid {PID}" in self.run("status")[1]
        spec = self.spec(tmp_path, quota_sz="2 MiB")
        assert self.run("tune", "--spec", spec)[:2] == (0, "module damon_reclaim: has taken the parameters\n")
        assert parameter(roots, "quota_sz") == "2097152"
        assert self.run("stop", "damon_reclaim")[:2] == (0, "module damon_reclaim: stopped\n")
        assert parameter(roots, "enabled") == "N"
        assert self.run("stop", "damon_reclaim")[0] == 3

    def test_all_that_run_are_stopped(self, roots: Roots, tmp_path: Path) -> None:
        self.run("start", "--engine", "kernel", "--spec", self.spec(tmp_path))
        assert self.run("stop", "--all")[:2] == (0, "module damon_reclaim: stopped\n")
        assert self.run("stop", "--all")[:2] == (0, "nothing runs in the background\n")

    def test_somebody_elses_is_not_stopped(self, roots: Roots, tmp_path: Path) -> None:
        self.run("start", "--engine", "kernel", "--spec", self.spec(tmp_path))
        start_thread(roots, PID, start_ticks=778)
        assert self.run("stop", "--all")[:2] == (0, "nothing runs in the background\n")
        assert self.run("stop", "damon_reclaim")[0] == 3
        assert self.run("tune", "--spec", self.spec(tmp_path))[0] == 3
        assert parameter(roots, "enabled") == "Y"

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (["start"], "--engine: the spec is for a module of the kernel; give --engine kernel"),
            (["start", "--engine", "kernel", "--name", "x"], "--name: does not go with a module"),
            (["start", "--engine", "kernel", "--seed", "1"], "--seed: does not go with a module"),
            (["tune", "other"], "NAME: is other; the spec is for damon_reclaim"),
            (["tune", "--sample", "1ms"], "--sample: does not go with a module"),
        ],
    )
    def test_what_does_not_go_with_it_is_named(self, roots: Roots, tmp_path: Path, args: list[str], said: str) -> None:
        status, _, err = self.run(*args, "--spec", self.spec(tmp_path))
        assert (status, err.count("\n")) == (2, 1)
        assert said in err
        assert parameter(roots, "enabled") == "N"
