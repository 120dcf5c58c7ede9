"""``pydamon schemes``: whole outputs of check, explain and show, and how they fail."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pydamon.cli import main

POLICY = "pageout size>=4K rate=0% age>=1min quota=10ms+128M/1s"


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy"
    path.write_text(f"# reclaim\n{POLICY}\nhugepage rate>=5%\n")
    return str(path)


def test_check_says_of_each_scheme_that_it_is_right(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "check", policy]) == 0
    out, err = capsys.readouterr()
    assert out == f"{policy}: line 2: ok: {POLICY}\n{policy}: line 3: ok: hugepage rate>=5%\n"
    assert err.startswith(f"{policy}: line 3: action: hugepage cannot be given to other processes")


def test_check_as_json(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "check", "--json", "--ops", "sim", policy]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert (file["file"], file["form"], file["warnings"]) == (policy, "lines", [])
    assert file["schemes"][0] == {"path": "line 2", "ops": "sim", "short": POLICY, "warnings": []}


def test_the_first_error_ends_it_with_status_2(policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("stat\npagout\n")
    assert main(["schemes", "check", policy, str(wrong)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"pydamon: {wrong}: line 2: 'pagout' is no action; did you mean pageout?"
    )


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ("paddr", "line 3: action: 'hugepage' is no action on physical memory; there are pageout, lru_prio"),
        ("reported", "line 2: action: 'pageout' cannot be done: reported accesses are of no running process"),
    ],
)
def test_an_operations_set_may_not_have_an_action(
    policy: str, ops: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schemes", "check", "--ops", ops, policy]) == 2
    assert message in capsys.readouterr().err


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"stat age>=1s")))
    assert main(["schemes", "show", "-"]) == 0
    assert capsys.readouterr().out == "stat age>=1s\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"stat age>1s")))
    assert main(["schemes", "explain", "-"]) == 2
    assert capsys.readouterr().err.startswith("pydamon: standard input: line 1: 'age>1s': write age>=1s")


def test_explain_a_whole_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(f"kdamonds:\n- contexts:\n  - targets: [{{pid: 1}}]\n    schemes:\n    - {POLICY}\n")
    assert main(["schemes", "explain", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Monitor the virtual address space of a process (ops vaddr).\n")
    assert out.count("memory that was not accessed for 60 s or more") == 1


@pytest.mark.parametrize("form", ["json", "yaml", "damo", "short"])
def test_each_form_that_is_shown_can_be_loaded_again(
    policy: str, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schemes", "show", "--format", form, policy]) == 0
    (tmp_path / "again").write_text(capsys.readouterr().out)
    assert main(["schemes", "show", str(tmp_path / "again")]) == 0
    assert capsys.readouterr().out == f"{POLICY}\nhugepage rate>=5%\n"


def test_what_damo_cannot_say_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hz"
    path.write_text("stat rate>=5Hz\n")
    assert main(["schemes", "show", "--format", "damo", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"pydamon: {path}: line 1: access_pattern.nr_accesses: damo has no rates per second; write samples or %\n"
    )


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schemes", "check", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"pydamon: {tmp_path / 'none'}: cannot be read: No such file or directory\n"


@pytest.mark.usefixtures("processes")
def test_yaml_is_loaded_only_for_yaml(policy: str) -> None:
    code = (
        "import sys; from pydamon.cli import main; "
        f"assert main(['schemes', 'check', {policy!r}]) == 0; assert 'yaml' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_the_examples_of_the_documentation_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "schemes.md").read_text()
    blocks = [block.partition("\n") for block in text.split("```")[1::2]]
    examples = [body for kind, _, body in blocks if kind in ("schemes", "yaml")]
    assert len(examples) == 3
    for number, body in enumerate(examples):
        (tmp_path / f"{number}").write_text(body)
        assert main(["schemes", "check", "--ops", "sim", str(tmp_path / f"{number}")]) == 0
    # The explanation that is shown is that of the first example, less the comment.
    (tmp_path / "policy").write_text(examples[0].splitlines()[0])
    capsys.readouterr()
    assert main(["schemes", "explain", str(tmp_path / "policy")]) == 0
    (shown,) = [body for kind, _, body in blocks if not kind and "explain policy" in body]
    assert capsys.readouterr().out == shown.partition("\n")[2]
