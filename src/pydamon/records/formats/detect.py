"""Which format a file is of, from what is in it; its name does not matter."""

from __future__ import annotations

import re

from pydamon.errors import RequestError
from pydamon.records.formats.damo_values import BINARY_MAGIC
from pydamon.records.formats.foreign import Foreign, Hints, hints_beside
from pydamon.records.formats.input_file import InputFile
from pydamon.records.formats.trace_lines import PERF_TRACE
from pydamon.records.schema import COLUMNS

# A line of a trace: time and event.
_TRACE = re.compile(rb"^[^\n]*?[ \t]?\d{1,9}\.\d{1,9}:[ \t]+[^\n]*?[A-Za-z_][\w:./=,-]*:", re.MULTILINE)
# An address sample: behind the event an address, and what perf knows of it.
_SAMPLE = re.compile(
    rb"^[^\n]*\d\.\d+:[ \t]+(?:\d+[ \t]+)?[^\s:][^\n]*:[ \t]+[0-9a-f]{5,16}[ \t]+[0-9a-f]+ \|OP ", re.M
)
_MEMORY_EVENT = re.compile(
    rb"^[^\n]*\d\.\d+:[ \t]+(?:\d+[ \t]+)?[^\s]*mem[-_](?:loads|stores)[^\n]*:[ \t]+[0-9a-f]{5,16}\b", re.M
)

_SURE = 8  # so many bytes of a mark are enough to know it, in a file that was cut off there

ADDRESS_SAMPLES = "address samples"


def detect(source: InputFile) -> str | None:
    """``trace``, ``damo``, ``damo binary``, ``parquet``, ``csv``, ``jsonl`` or `ADDRESS_SAMPLES`;
    None if it is none of these."""
    head = source.head
    if source.tool is not None:
        return ADDRESS_SAMPLES if _is_samples(head) else "trace"
    if source.packing is None and source.first.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(BINARY_MAGIC) or (len(head) >= _SURE and BINARY_MAGIC.startswith(head)):
        return "damo binary"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"[":
        return "damo"
    if text[:1] == b"{":
        line, ended, _ = text.partition(b"\n")
        return "jsonl" if b'"start_ns"' in line and (ended or len(text) < 1 << 15) else "damo"
    first = text.split(b"\n", 1)[0].replace(b'"', b"").strip().split(b",")
    if {*COLUMNS} - {"age"} <= {name.decode("ascii", "replace").strip() for name in first}:
        return "csv"
    if b"damon_aggregated:" in head:
        return "trace"
    if _is_samples(head):
        return ADDRESS_SAMPLES
    if b"\0" not in head and (_TRACE.search(head) or PERF_TRACE.search(head) or head.startswith((b"# ", b"cpus="))):
        return "trace"
    return None


def _is_samples(head: bytes) -> bool:
    return b"damon_aggregated:" not in head and bool(_SAMPLE.search(head) or _MEMORY_EVENT.search(head))


def open_foreign(source: InputFile, hints: Hints | None = None) -> Foreign:
    """The reader for the file's format. Raises RequestError if it is of none that becomes a record by itself."""
    hints = hints or Hints()
    kind = detect(source)
    if hints == Hints() and source.path != "-" and kind in ("trace", "damo", "damo binary"):
        hints = hints_beside(source.path)
    if kind == "trace":
        from pydamon.records.formats.trace_text import TraceText

        return TraceText(source, hints)
    if kind == "damo":
        from pydamon.records.formats.damo_json import DamoRecord

        return DamoRecord(source, hints)
    if kind == "damo binary":
        from pydamon.records.formats.damo_binary import DamoBinary

        return DamoBinary(source, hints)
    if kind in ("parquet", "csv", "jsonl"):
        from pydamon.records.formats.flat import FlatRows

        return FlatRows(source, hints, kind)
    if kind == ADDRESS_SAMPLES:
        raise RequestError(
            "holds address samples, which have to be monitored; convert it with pydamon import FILE -o RECORD",
            where=source.path,
        )
    if not source.first:
        raise RequestError("is empty; it is not a pydamon record", where=source.path)
    if source.cut_short and not source.head:
        raise RequestError(f"is truncated or damaged: {source.cut_short}", where=source.path)
    if source.cut_short:
        raise RequestError(
            f"is truncated or damaged ({source.cut_short}), and what came before is of no format that is known",
            where=source.path,
        )
    raise RequestError("is not a pydamon record, and of no format that pydamon import knows", where=source.path)
