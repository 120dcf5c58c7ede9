"""What a verb imports before its work begins: it counts against the bound on the CPU share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from pydamon.cli import main, verbs
from pydamon.cli.command import pydamon as group
from pydamon.cli.help import layout

HEAVY = {"click", "msgspec", "numpy", "pyarrow", "yaml", "typing", "dataclasses", "contextlib"}
# Not needed to record a process: they are for schemes, for reports, for commands, or come in by the back door.
NOT_TO_RECORD = {
    "numpy.ma", "pandas", "polars", "matplotlib", "rich", "yaml", "subprocess", "pydamon.core.damos",
    "pydamon.core.scheme_state", "pydamon.linux.resctrl", "pydamon.analysis", "pydamon.damonfs", "pydamon.library",
    "pydamon.service", "pydamon.views", "pydamon.workload",
}  # fmt: skip


def imported(*arguments: str) -> set[str]:
    """The modules that the command ``pydamon`` has imported when it ends, without those that Python begins with."""
    code = (
        "import sys; before = set(sys.modules)\n"
        "from pydamon.cli import main; status = main(sys.argv[1:])\n"
        "print(*set(sys.modules) - before, file=sys.stderr); sys.exit(status)"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("asked", ["--help", "-h"])
@pytest.mark.usefixtures("processes")
def test_help_imports_no_library(asked: str) -> None:
    found = imported(asked)
    assert "pydamon.cli.verbs" in found
    assert not found & HEAVY


@pytest.mark.usefixtures("processes")
def test_the_manual_is_made_without_what_computes(tmp_path: Path) -> None:
    """A package is built where NumPy is not installed, and its pages with it."""
    found = imported("--no-config", "help", "--man", str(tmp_path))
    assert "pydamon.modules.registry" in found
    assert not found & {"numpy", "pyarrow"}


@pytest.mark.usefixtures("processes")
def test_version_imports_no_verb_and_no_number(tmp_path: Path) -> None:
    found = imported("--version")
    assert "click" in found
    assert not found & {"numpy", "pyarrow", "msgspec", "pydamon.cli.options", "pydamon.cli.record"}


@pytest.mark.usefixtures("processes")
def test_record_imports_what_it_uses_only(tmp_path: Path) -> None:
    record = tmp_path / "a.damon"
    with subprocess.Popen(["sleep", "600"]) as target:
        for _ in range(2):  # once more when the facts of the kernel are known
            found = imported("record", "--duration", "250ms", "-o", str(record), str(target.pid))
        target.kill()
    assert record.stat().st_size
    assert "numpy" in found
    assert not found & NOT_TO_RECORD
    if "pydamon.primitives.bpf" in found:
        assert not found & {"pydamon.linux.btf", "pathlib", "urllib"}


@pytest.mark.usefixtures("processes")
def test_a_kdamond_in_the_background_and_modules_bring_no_simulated_machine() -> None:
    code = (
        "import sys, pydamon.service.session, pydamon.run.module_numbers, pydamon.run.acts.open\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith(('pydamon.ops.sim', 'pydamon.workload')))"
        " or None)"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("width", [30, 50, 61, 78])
def test_help_has_each_option_and_each_verb_and_fits(width: int) -> None:
    text = verbs.help_text(width)
    assert max(map(len, text.splitlines())) <= width
    shown = text.partition("Verbs:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in shown.splitlines() if line[2:3].isalpha()] == sorted(verbs.VERBS)
    with click.Context(group, help_option_names=list(verbs.HELP_OPTIONS)) as ctx:
        names = [name for param in group.get_params(ctx) for name in param.opts]
    assert names
    assert all(f" {name}" in text for name in names)


def test_both_ways_to_help_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    short = capsys.readouterr().out
    with click.Context(group) as ctx:
        assert short == group.get_help(ctx) + "\n"


@pytest.mark.parametrize(("columns", "width"), [("0", 78), ("60", 58), ("20", 30), ("500", 78), ("x", 78), ("-5", 78)])
def test_help_is_as_wide_as_the_terminal_within_bounds(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(layout, "_terminal_columns", lambda: 0)
    assert layout.help_width() == width


@pytest.mark.usefixtures("processes")
def test_help_that_cannot_be_written_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from pydamon.cli import main; sys.exit(main(['--help']))"
    with open("/dev/full", "w") as full:
        ran = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ran.returncode, ran.stderr) == (
        1,
        "pydamon: input or output: No space left on device; the file system is full\n",
    )
