"""Records that are being written."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError
from pydamon.records.reader import RecordReader


def recorded(path: Path) -> list[Snapshot]:
    """What is in the file so far."""
    with contextlib.suppress(PydamonError, OSError), RecordReader(path) as reader:
        return list(reader.snapshots())
    return []
