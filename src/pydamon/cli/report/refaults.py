"""What schemes would bring back of what they page out, as a record's page panel tells it: for `modules explain`."""

from __future__ import annotations

from collections.abc import Iterable

from pydamon.analysis.refaults import foretold
from pydamon.analysis.window import Window
from pydamon.cli.report.common import empty, opened
from pydamon.cli.report.panel import looks, why_none
from pydamon.errors import PydamonError
from pydamon.records.reader import RecordReader
from pydamon.spec import Scheme


def foretell(path: str, schemes: Iterable[Scheme]) -> list[str]:
    """Lines for those of the schemes that page out. Raises PydamonError for a record without a page panel."""
    with opened(path) as reader:
        if reader.time_range() is None:
            raise empty(reader, None)
        found = looks(reader, Window())
        if not found:
            reason = f"has no page panel, which tells what would come back: {why_none(reader)}"
            raise PydamonError(reason, where=path)
        lines = [line for scheme in schemes for line in foretold(found, scheme)]
        if lines and _took(reader):
            lines.append("a scheme paged out while it was recorded: what came back of that is not in these numbers")
        return lines


def _took(reader: RecordReader) -> bool:
    """Whether schemes paged out while it was recorded (or found out what they would)."""
    rows = reader.table_rows("schemes")
    return any(row["sz_applied"] for row in rows if row["action"] == "pageout")
