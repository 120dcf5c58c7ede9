"""Pressure of the machine and of a cgroup; the text is as in Documentation/accounting/psi.rst."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydamon.errors import MachineError
from pydamon.linux import psi

TEXT = "some avg10=1.50 avg60=0.25 avg300=0.00 total=11007\nfull avg10=9.00 avg60=9.00 avg300=9.00 total=779\n"


def test_some_is_read_and_not_full(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text(TEXT)
    (tmp_path / "io.pressure").write_text(TEXT.replace("11007", "5"))
    assert psi.read("memory", of_machine=tmp_path) == psi.Psi(11007, 1.5, 0.25)
    assert psi.read("io", tmp_path) == psi.Psi(5, 1.5, 0.25)


def test_what_is_not_told_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"CONFIG_PSI, psi=1 at boot, and cgroup\.pressure"):
        psi.read("memory", tmp_path)


@pytest.mark.parametrize("text", ["", "some avg10=x avg60=0 total=1\n", "full avg10=0 avg60=0 avg300=0 total=1\n"])
def test_nonsense_is_no_pressure(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory").write_text(text)
    with pytest.raises(MachineError, match="names no total"):
        psi.read("memory", of_machine=tmp_path)
