"""Messages are written in one place, which never fails, whatever became of standard error."""

from __future__ import annotations

import ast
import io
import os
import sys
import time
from pathlib import Path

import pytest

import pydamon
from pydamon import messages

ROOT = Path(pydamon.__file__).parent


def test_a_message_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    messages.say("a\x1b]0;owned\x07\nb\u202e")
    assert capsys.readouterr().err == "pydamon: a\\x1b]0;owned\\x07\\nb\\u202e\n"


class _Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, _Broken(), closed()])
def test_nothing_fails_where_nobody_hears(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    messages.say("a")
    messages.draw("\r")
    assert not messages.on_terminal()


@pytest.mark.parametrize("where", ["full", "nobody reads", "nobody reads any more"])
def test_files_that_take_nothing(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "full":
        fd, other = os.open("/dev/full", os.O_WRONLY), -1
    else:
        other, fd = os.pipe()
        if where == "nobody reads any more":
            os.close(other)
            other = -1
    with open(fd, "w", encoding="utf-8", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(messages, "_PATIENCE_MS", 10)
        monkeypatch.setattr(messages, "_reader", messages._Reader())
        began = time.monotonic()
        for _ in range(2000):  # more than a pipe holds
            messages.say("x" * 100)
        assert time.monotonic() - began < 60  # it would wait for ever
        monkeypatch.undo()
        if other >= 0:
            os.close(other)
        try:
            stream.close()
        except OSError:
            pass


def found_in(source: str) -> list[str]:
    """Places that would write to standard error themselves."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "err" or (keyword.arg == "file" and "stderr" in ast.unparse(keyword.value)):
                    found.append(f"{node.lineno}: {ast.unparse(node.func)}")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stderr.write", "sys.stderr.isatty"):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize(
    "source", ["print(a, file=sys.stderr)", "click.echo(a, err=True)", "sys.stderr.write(a)", "sys.stderr.isatty()"]
)
def test_what_is_refused_is_found(source: str) -> None:
    assert found_in(source)


def test_messages_are_written_in_one_place() -> None:
    files = [file for file in sorted(ROOT.rglob("*.py")) if file.name != "messages.py"]
    assert [f"{file.relative_to(ROOT)}:{line}" for file in files for line in found_in(file.read_text())] == []
