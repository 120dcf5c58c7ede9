"""Text from outside made harmless for terminals and for JSON."""

from __future__ import annotations

import ast
import json
import unicodedata
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

import pydamon
from pydamon.plain import encodable, json_bytes, json_text, printable, safe_json

ROOT = Path(pydamon.__file__).parent
ANY_TEXT = st.text(st.characters(), max_size=30)  # lone surrogates as well
C0 = "".join(map(chr, range(0x20))) + "\x7f"
C1 = "".join(map(chr, range(0x80, 0xA0)))
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def drives_a_terminal(text: str) -> bool:
    """Whether there is a character in it that is no glyph: of control, of format, of half a character, a separator."""
    return any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


@given(ANY_TEXT)
def test_printable_text_drives_no_terminal(text: str) -> None:
    shown = printable(text)
    assert not drives_a_terminal(shown)
    assert printable(shown) == shown


def test_what_is_escaped_can_be_told() -> None:
    assert printable("a\x1b[31m\r\n\x9b\u202eb\udcff ü") == "a\\x1b[31m\\r\\n\\x9b\\u202eb\\xff ü"


def test_characters_of_format_beyond_the_first_plane_are_escaped_in_json() -> None:
    tag = "\U000e0020"  # "tag space": no glyph
    assert json_text([tag, "\U0001f600"]) == '["\\udb40\\udc20","\U0001f600"]'
    assert json.loads(json_text(tag)) == tag


@given(st.recursive(ANY_TEXT | st.integers(0, 9), lambda each: st.lists(each) | st.dictionaries(ANY_TEXT, each)))
def test_json_never_fails_and_drives_no_terminal(value: object) -> None:
    for text in (json_text(value), json_text(value, indent=2)):
        assert not drives_a_terminal(text.replace("\n", ""))
        json.loads(text)
    assert msgspec.json.decode(json_bytes(value)) == json.loads(json_text(value))


def test_json_says_the_same() -> None:
    text = json.dumps(C0 + C1 + BIDI + "ü", ensure_ascii=False)
    assert json.loads(safe_json(text)) == C0 + C1 + BIDI + "ü"
    assert json.loads(json_text({"a": C0 + C1 + BIDI})) == {"a": C0 + C1 + BIDI}


def test_bytes_that_are_not_utf_8_are_escaped() -> None:
    assert encodable("n\udcff.damon") == "n\\xff.damon"
    assert json_bytes({"n\udcff": ["\ud800"]}) == b'{"n\\\\xff":["\\\\ud800"]}'


def test_the_command_writes_json_in_one_way() -> None:
    """`json_text`; but for a snapshot's numbers."""
    others = {"report/regions.py"}
    found = {
        str(file.relative_to(ROOT / "cli"))
        for file in (ROOT / "cli").rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("json.dumps", "msgspec.json.encode")
    }
    assert found <= others


def test_what_is_printable_is_told_in_one_place() -> None:
    """Nobody has a way of their own; but a workload's names may be refused, and short forms are quoted."""
    others = {"plain.py", "workload/model.py", "spec/forms/quoting.py"}
    found = {str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if ".isprintable()" in file.read_text()}
    assert found == others
