"""Records that are made of others: the file is there when it is complete, and not before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pydamon.records.writer import RecordWriter, check_output


@contextmanager
def whole_record(
    output: str, metadata: Mapping[str, Any], optional: Iterable[str] | None = None
) -> Iterator[RecordWriter]:
    """A writer of the record ``output``, which appears (or is replaced) only once it is complete.

    ``metadata`` and ``optional`` as `RecordWriter` takes them. Raises RequestError for a file that is no record.
    """
    check_output(output)
    if os.path.exists(output) and not os.path.isfile(output):  # /dev/null, say
        with RecordWriter(output, metadata=metadata, optional=optional) as writer:
            yield writer
        return
    path = os.path.realpath(output)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name[:200]}.{os.getpid()}")
    try:
        with RecordWriter(temporary, metadata=metadata, optional=optional) as writer:
            yield writer
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
