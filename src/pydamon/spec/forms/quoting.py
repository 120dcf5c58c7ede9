"""Names and paths in short forms: quoted where they have to be."""

from __future__ import annotations

import json
import re

_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+", re.ASCII)


def quoted(text: str) -> str:
    """The text as JSON quotes it, or as it is if nothing in it could be taken for something else."""
    if _PLAIN.fullmatch(text):
        return text
    # Control characters and what a line could end with are escaped; letters of all languages stay.
    plain = json.dumps(text, ensure_ascii=False)
    return "".join(f"\\u{ord(c):04x}" if not c.isprintable() and ord(c) < 0x10000 else c for c in plain)
