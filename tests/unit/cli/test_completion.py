"""Completing words, asked as the shells ask: a real bash, zsh and fish with the script that is printed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON, only_line, pydamon


def complete(line: str, tmp_path: Path) -> list[str]:
    """What a bash offers for the word at the end of ``line``, through the printed script."""
    program = tmp_path / "pydamon"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pydamon "$@"\n')
    program.chmod(0o755)
    script = pydamon("completion", "bash").stdout
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    asked = (
        f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}\n"
        'compopt() { printf "files: %s %s\\n" "$@"; }\n'
        '_pydamon_completion pydamon\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, env=env, check=True)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pydamon rec", ["record"]),
        ("pydamon report hea", ["heatmap"]),
        ("pydamon report wss --over ", ["time", "window"]),
        ("pydamon report wss --perc", ["--percentiles"]),
        ("pydamon record --intervals a", ["auto"]),
        ("pydamon record cut --fr", ["--from"]),
        ("pydamon help report bandw", ["bandwidth"]),
        ("pydamon completion ", ["bash", "zsh", "fish"]),
        ("pydamon report -i ", ["files: -o default", ""]),
        ("pydamon report wss -o x", ["files: -o default", ""]),
        ("pydamon nothing --x", [""]),
    ],
)
def test_bash_offers(line: str, words: list[str], tmp_path: Path) -> None:
    assert complete(line, tmp_path) == words


@pytest.mark.usefixtures("processes")
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_offers_processes_by_number_and_by_name(tmp_path: Path) -> None:
    program = tmp_path / "quite-a-long-name-of-a-program"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "600"]) as child:
        try:
            assert str(child.pid) in complete(f"pydamon record {str(child.pid)[:-1]}", tmp_path)
            assert complete("pydamon record quite-a-lo", tmp_path) == [program.name]
        finally:
            child.kill()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_script_is_one_for_that_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "script"
    script.write_text(pydamon("completion", shell).stdout)
    assert "pydamon" in script.read_text()
    checked = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_fish_offers_verbs_with_what_they_do(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("needs fish")
    program = tmp_path / "pydamon"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pydamon "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(pydamon("completion", "fish").stdout)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    command = ["fish", "--no-config", "-c", f"source {script}; complete -C 'pydamon sch'"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert done.stdout.startswith("schemes\tCheck; explain and convert schemes")


@pytest.mark.parametrize("asked", ["bash_complete", "bash_source", "nonsense", "csh_complete", "\x1b"])
def test_whatever_is_asked_nothing_is_said_in_the_middle_of_a_line(asked: str) -> None:
    env = os.environ | {"_PYDAMON_COMPLETE": asked, "COMP_WORDS": "pydamon 'unfinished", "COMP_CWORD": "x"}
    done = subprocess.run([*PYDAMON], capture_output=True, text=True, env=env)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_shell_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/csh")
    done = pydamon("completion")
    assert (done.returncode, only_line(done)) == (2, "pydamon: SHELL: say which one: bash, zsh, fish")
    done = pydamon("completion", "csh")
    assert done.returncode == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in only_line(done)
