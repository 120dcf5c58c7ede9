"""Completion as it is typed: real shells, with the scripts that the command prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.shell import Shell

pytestmark = pytest.mark.usefixtures("processes")
_ALL = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}
_BEGIN = {
    "bash": 'eval "$(pydamon completion bash)"; echo re""ady\n',
    "zsh": 'autoload -U compinit; compinit -u -D; eval "$(pydamon completion zsh)"; echo re""ady\n',
}
TYPED = [
    ("pydamon rec", "pydamon record "),
    ("pydamon report acce", "pydamon report access "),
    ("pydamon report access --vi", "pydamon report access --view "),
    ("pydamon report access --by hot", "pydamon report access --by hottest "),
    ("pydamon report access --by=hot", "pydamon report access --by=hottest "),
    ("pydamon report -i on", "pydamon report -i only.damon "),
    ("pydamon workload sta", "pydamon workload stairs "),
    ("pydamon record -- only", "pydamon record -- only_this_command "),
    ("pydamon record --duration 3s lone_sl", "pydamon record --duration 3s lone_sleeper "),
    ("pydamon record a_long_name", "pydamon record a_long_name_of_a_program "),
    ("pydamon report on", "pydamon report only.damon "),
    ("perf-damon rec", "perf-damon record "),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory with a record in it, and an environment in which there are a command and a process to complete."""
    directory = tmp_path_factory.mktemp("completion")
    (directory / "only.damon").touch()
    (directory / "only.text").touch()
    programs = directory / "bin"
    programs.mkdir()
    for name, module in (("pydamon", "pydamon"), ("perf-damon", "pydamon.perf_damon")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (programs / name).chmod(0o755)
    shutil.copy("/bin/true", programs / "only_this_command")
    shutil.copy("/bin/sleep", programs / "lone_sleeper")
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "TERM": "xterm", "HOME": str(directory), "PS1": "> "}
    environment |= {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "LC_ALL": "C.UTF-8"}
    shutil.copy("/bin/sleep", programs / "a_long_name_of_a_program")
    with (
        subprocess.Popen([programs / "lone_sleeper", "600"]) as task,
        subprocess.Popen([programs / "a_long_name_of_a_program", "600"]) as other,
    ):
        try:
            yield directory, environment
        finally:
            task.kill()
            other.kill()


@pytest.mark.parametrize("shell", _ALL)
def test_a_shell_completes(shell: str, place: tuple[Path, dict[str, str]]) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    directory, environment = place
    with Shell([program, *_ALL[shell]], environment, str(directory)) as typist:
        typist.type(_BEGIN[shell])
        typist.wait_for("\nready")
        for begun, completed in TYPED:
            typist.type(f"{begun}\t")
            typist.wait_for(completed.rstrip())
            typist.type("!")  # what follows shows that the word is complete
            typist.wait_for(f"{completed}!")
            typist.type("\x15")  # Ctrl-U: nothing is run


def test_fish_completes(place: tuple[Path, dict[str, str]]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed")
    directory, environment = place
    for begun, completed in TYPED:
        code = f"pydamon completion fish | source; complete -C'{begun}'"
        fish = ["fish", "--no-config", "-c", code]
        done = subprocess.run(fish, env=environment, cwd=directory, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[0].split("\t")[0] == completed.split()[-1], done.stderr
