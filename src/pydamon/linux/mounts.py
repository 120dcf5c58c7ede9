"""Where file systems of a type are mounted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # starting up counts against the bound on the CPU share, and most machines lack what is looked for
    from pathlib import Path

from pydamon.linux.texts import read_text


def mounts(kind: str, mountinfo: str | None = None) -> list[Path]:
    """Mount points of type ``kind``, by ``mountinfo`` or else ``/proc/self/mountinfo`` (proc_pid_mountinfo(5))."""
    text = read_text("/proc/self/mountinfo") if mountinfo is None else mountinfo
    found = []
    for line in text.split("\n"):
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if after.startswith(f"{kind} ") and len(fields) > 4:
            from pathlib import Path

            # Spaces and the like are written as octal numbers.
            found.append(Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])))
    return found
