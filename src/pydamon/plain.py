"""What others have chosen (names, command lines, what stands in files) made harmless for terminals and for JSON."""

from __future__ import annotations

import re
from typing import Any

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_IN_JSON = re.compile("[^\x20-\x7e\n]")  # what may stand raw in JSON, and is to be looked at


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str) -> str:
    """The text on one line with control characters (C0, C1), bidirectional marks and lone surrogates escaped.

    ``\\x1b`` stands for the character that begins a terminal's commands. What is printable already stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """The text, cut to ``width`` columns."""
    if len(text) <= width:
        return text
    return text[: max(width - len(ellipsis), 0)] + ellipsis[:width]


def encodable(text: str) -> str:
    """The text with lone surrogates (bytes that are not UTF-8) escaped as ``\\xff``, so that it can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(_escaped(c) if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def encodable_value(value: Any) -> Any:
    """Plain values (of JSON) with all texts in them `encodable`, keys as well."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {encodable_value(key): encodable_value(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [encodable_value(each) for each in value]
    return value


def safe_json(text: str) -> str:
    """JSON that says the same and can be shown on any terminal: what `printable` escapes is written ``\\u009b``.

    Beyond U+FFFF that takes two, as JSON has it.
    """
    return _IN_JSON.sub(lambda match: match[0] if match[0].isprintable() else _json_escaped(match[0]), text)


def _json_escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON for people's eyes and for programs, on one line unless it is to be indented; see `safe_json`."""
    import msgspec

    encoded = json_bytes(value)
    return safe_json((encoded if indent is None else msgspec.json.format(encoded, indent=indent)).decode())


def json_bytes(value: Any) -> bytes:
    """JSON for programs. Texts that are not UTF-8 never fail: see `encodable`."""
    import msgspec

    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(encodable_value(msgspec.to_builtins(value)))
