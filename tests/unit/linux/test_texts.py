"""Texts of the kernel: lines end at a newline only, and nobody reads them in any other way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pydamon
from pydamon.linux.texts import decode, lines_of, read_lines

ROOT = Path(pydamon.__file__).parent
READERS = ("linux", "ops", "primitives", "engines", "run", "views", "damonfs", "service")  # of /proc, /sys, cgroupfs


def test_lines_end_at_a_newline_only() -> None:
    assert lines_of(b"a\rb\x0bc\xc2\x85d\ne\xff\n") == ["a\rb\x0bc\x85d", "e\udcff"]
    assert lines_of(b"a\n\nb") == ["a", "", "b"]
    assert lines_of(b"") == []


def test_a_text_encodes_to_the_same_bytes_again(tmp_path: Path) -> None:
    raw = bytes(range(256))
    assert decode(raw).encode("utf-8", "surrogateescape") == raw
    (tmp_path / "text").write_bytes(raw)
    assert "\n".join(read_lines(tmp_path / "text")).encode("utf-8", "surrogateescape") == raw


def found_in(source: str) -> list[str]:
    """Calls by which a text would be read in text mode, or cut elsewhere than at newlines."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        match call.func:
            case ast.Attribute(attr="read_text" | "splitlines" as name):
                found.append(f"{call.lineno}: .{name}()")
            case ast.Name(id="open") | ast.Attribute(attr="fdopen"):
                modes = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
                if not any(isinstance(mode, ast.Constant) and "b" in str(mode.value) for mode in modes):
                    found.append(f"{call.lineno}: open() in text mode")
    return found


@pytest.mark.parametrize(
    "source",
    ["p.read_text()", "open(p)", 'open(p, "r")', 'open(p, encoding="utf-8")', "os.fdopen(f)", "t.splitlines()"],
)
def test_what_is_refused_is_found(source: str) -> None:
    assert found_in(source)


@pytest.mark.parametrize("folder", READERS)
def test_nobody_reads_texts_of_the_kernel_in_text_mode(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [f"{file.relative_to(ROOT)}:{line}" for file in files for line in found_in(file.read_text())] == []
