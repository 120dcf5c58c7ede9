"""From a request to an engine: which one, and that a command is launched once."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from tests.helpers.waiting import GENEROUS_S

from pydamon.cli import main
from pydamon.errors import MachineError


@pytest.mark.parametrize(("engine", "status"), [("auto", 0), ("kernel", 3)])
@pytest.mark.usefixtures("processes")
def test_auto_goes_on_with_the_command_that_was_launched_for_the_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str], engine: str, status: int
) -> None:
    from pydamon.run import kernel, open
    from pydamon.run.launch import launch as real

    launched: list[subprocess.Popen[bytes]] = []

    def launch(command: Any) -> subprocess.Popen[bytes]:
        launched.append(real(command))
        return launched[-1]

    def lacks(*args: object, **options: object) -> None:
        raise MachineError("this kernel's DAMON has no file for it", where="schemes[0].dests")

    monkeypatch.setattr(open, "launch", launch)
    monkeypatch.setattr(kernel, "obstacle_to_kernel", lambda spec, roots: None)
    monkeypatch.setattr(kernel, "_check_free", lambda roots: None)
    monkeypatch.setattr(kernel, "open_kernel_engine", lacks)
    out = str(tmp_path / "x.damon")
    args = ["record", "--engine", engine, "--primitive", "smaps", "--duration", "1s", "-o", out, "--", "sleep", "600"]
    assert main(args) == status
    assert len(launched) == 1
    assert launched[0].wait(GENEROUS_S) != 0  # it was ended
    said = capsys.readouterr().err
    assert "this kernel's DAMON has no file for it" in said
    assert ("not the kernel's DAMON: " in said) == (engine == "auto")


def test_nothing_is_launched_for_an_attribute_that_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from pydamon.run import open

    def hidden() -> None:
        raise MachineError("shows no frame numbers; run as root (CAP_SYS_ADMIN)", where="/proc/PID/pagemap")

    monkeypatch.setattr("pydamon.linux.pagemap.probe", hidden)
    monkeypatch.setattr(open, "launch", lambda command: pytest.fail("it was launched"))
    args = ["record", "--primitive", "smaps", "--probe", "anon", "--probe", "hugepage_size=2M", "-o"]
    assert main([*args, str(tmp_path / "x.damon"), "--", "sleep", "600"]) == 3
    said = capsys.readouterr().err
    assert said.startswith("pydamon: --probe: hugepage_size cannot be told here: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("panel", [None, 0])
def test_the_kernels_damon_has_no_page_panel_which_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any, panel: int | None
) -> None:
    from pydamon.run import kernel, open

    def stops(opener: object, engine: object, choice: object) -> None:
        raise MachineError("that is enough", where="it")

    monkeypatch.setattr(kernel, "_check_free", lambda roots: None)
    monkeypatch.setattr(kernel, "open_kernel_engine", lambda spec, **options: object())
    monkeypatch.setattr(open, "_live", stops)
    args = ["record", "--engine", "kernel", "--ops", "paddr", "-o", str(tmp_path / "r")]
    assert main([*args, *([] if panel is None else ["--panel", "0"])]) == 3
    said = "there is no page panel: the kernel's DAMON asks no single pages"
    assert capsys.readouterr().err.count(said) == (panel is None)
