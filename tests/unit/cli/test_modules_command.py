"""``pydamon modules``: what is said of a module, also by a record."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.unit.records.record_samples import snapshot, write

from pydamon.cli import main
from pydamon.spec import Spec
from pydamon.spec.forms import scheme_files


def read_spec(text: bytes) -> Spec:
    spec = scheme_files.load(text).spec
    assert spec is not None
    return spec


def explain(*words: str) -> int:
    return main(["modules", "explain", *words])


@pytest.fixture
def record(tmp_path: Path) -> str:
    path = tmp_path / "stairs"
    made = main(
        ["record", "--ops", "sim", "--workload", "stairs", "--duration", "100s", "--seed", "3", "-o", str(path)]
    )
    assert made == 0
    return str(path)


def test_explain_says_what_would_come_back(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    """stairs fills ten ranges of 10 MiB and uses each for 5 s: 90 MiB come back in 44 s, 123 MiB a minute."""
    capsys.readouterr()
    assert explain("--ops", "sim", "reclaim min_age=5s watermarks=off", "-i", record) == 0
    told = capsys.readouterr()
    assert told.out.startswith("reclaim min_age=5s ")
    found = re.search(r"reclaim: about ([\d.]+) MiB a minute would come back ± ([\d.]+) MiB \(\d+ returns", told.err)
    assert found is not None
    rate, error = map(float, found.groups())
    assert abs(rate - 90 / 44 * 60) <= error
    assert "reclaim: it would thrash: at least " in told.err


def test_without_a_page_panel_the_reason_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "r", [snapshot(0, [(0x1000, 0x2000, 0, 3)])])
    assert explain("reclaim", "-i", str(path)) == 1
    message = capsys.readouterr().err
    assert "has no page panel, which tells what would come back: " in message


def test_a_record_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("reclaim", "-i", str(tmp_path / "none")) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_what_pages_nothing_out_brings_nothing_back(record: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert explain("--ops", "sim", "lru_sort", "-i", record) == 0
    assert "come back" not in capsys.readouterr().err


def test_what_a_machine_has_nothing_for_is_a_warning_of_check(capsys: pytest.CaptureFixture[str]) -> None:
    """A simulated machine has one node unless it is said otherwise."""
    assert main(["modules", "check", "--ops", "sim", "tier"]) == 0
    told = capsys.readouterr()
    assert told.out == "ok: tier\n"
    assert "tier: the simulated machine has one NUMA node: there is none to move to; reclaim pages" in told.err
    assert explain("--ops", "sim", "tier tiers=0>1") == 0
    assert "is moved to NUMA node 1 (migrate_cold)" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["-d", "0", "2", "-p", "2", "0", "-s", "50G"], ["-d 0 2 -p 2 0 -s 50G"]])
def test_hmsdks_options_become_a_spec_that_start_reads(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modules", "from-hmsdk", *words]) == 0
    told = capsys.readouterr()
    spec = read_spec(told.out.encode())
    assert spec.context.ops == "paddr"
    assert str(spec.kdamonds[0].modules[0]).startswith("tier tiers=0>2 ")
    assert "-s: memory is not split" in told.err


def test_an_etmem_project_becomes_a_spec_and_errors_name_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "slide.conf"
    engine, task = "[engine]\nname=slide\nproject=p\n", "[task]\nproject=p\ntype=pid\nvalue=1\nT=1\n"
    path.write_text(f"[project]\nname=p\n{engine}{task}")
    assert main(["modules", "from-etmem", str(path)]) == 0
    spec = read_spec(capsys.readouterr().out.encode())
    assert spec.kdamonds[0].modules == ("etmem scan=page loop=1 interval=1s sleep=1s T=1",)
    path.write_text(f"[project]\nname=p\n{engine}{task}T=2\n")
    assert main(["modules", "from-etmem", str(path)]) == 2
    assert capsys.readouterr().err == f"pydamon: {path}: [task] T: is there twice\n"
    assert main(["modules", "from-etmem", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
