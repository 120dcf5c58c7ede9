"""Writing files of the data set that may be larger than memory: a new name first, its own once it is complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pydamon.dataset.files import arrow_schema
from pydamon.errors import PydamonError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

_LEVEL = 1  # of zstd: what is written once is read a few times, and half the time goes into this
_MODE = 0o600
NEW = ".new-"  # begins the names of what is not finished


def minutes_schema(*, dictionaries: bool = False) -> pa.Schema:
    """Arrow's schema of rows of minutes; ``dictionaries``: with texts as they are cheapest to make."""
    import pyarrow as pa

    schema = arrow_schema()
    if not dictionaries:
        return schema
    texts = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([one.with_type(texts) if one.type == pa.string() else one for one in schema], schema.metadata)


class NewFile:
    """A Parquet file of the data set in the making; `finish` gives it the name of its content, `discard` removes it."""

    def __init__(self, folder: Path, schema: pa.Schema, prefix: str = "") -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._folder, self._prefix = folder, prefix
        self._path = folder / f"{NEW}{os.getpid()}-{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._path, flags, _MODE), "wb")
        self._schema = schema
        numbers = [field.name for field in schema if field.type == pa.int64()]
        texts = [field.name for field in schema if field.name not in numbers]
        self._writer = pq.ParquetWriter(
            self._file, schema, compression="zstd", compression_level=_LEVEL, use_dictionary=texts,
            column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),  # twice as fast to write and read as plain
            write_statistics=True, store_schema=True,
        )  # fmt: skip
        self._name = ""
        self.rows = 0

    @property
    def bytes_written(self) -> int:
        return self._file.tell()

    def write(self, batch: pa.RecordBatch) -> None:
        """A row group of its own: give it some 100,000 rows."""
        self._writer.write_batch(batch, row_group_size=max(batch.num_rows, 1))
        self.rows += batch.num_rows

    def finish(self) -> str:
        """Its name, under which it stands from now on."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with self._path.open("rb") as file:
            name = f"{self._prefix}{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.parquet"
        self._path.rename(self._folder / name)
        self._name = name
        return name

    def column_bytes(self) -> dict[str, int]:
        """The size of each column in the file, once that is complete."""
        import pyarrow.parquet as pq

        sizes: dict[str, int] = {}
        with pq.ParquetFile(self._folder / self._name) as file:
            for group in range(file.metadata.num_row_groups):
                about = file.metadata.row_group(group)
                for at in range(about.num_columns):
                    column = about.column(at)
                    sizes[column.path_in_schema] = sizes.get(column.path_in_schema, 0) + column.total_compressed_size
        return sizes

    def discard(self) -> None:
        """Nothing of it is left."""
        # What cannot be written stays open for pyarrow, which would try it again whenever this is collected.
        with suppress(Exception):
            self._writer.close()
        self._writer.is_open = False
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


def write_all(folder: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], prefix: str = "") -> tuple[str, int]:
    """(name, rows) of a file of the batches; nothing is left of it if that fails."""
    new = NewFile(folder, schema, prefix)
    try:
        for batch in batches:
            new.write(batch)
        return new.finish(), new.rows
    except BaseException as error:
        new.discard()
        if isinstance(error, OSError):
            raise PydamonError(f"cannot write it: {error.strerror or error}", where=str(folder)) from None
        raise


def made_folder(root: Path, *parts: str) -> Path:
    """The folder below ``root``, made where it is missing. Raises RequestError if a link is in its place."""
    path = root
    for part in (".", *parts):
        path = path / part
        try:
            path.mkdir(mode=0o700, parents=part == ".", exist_ok=True)
        except OSError as error:
            raise RequestError(f"is no folder that can be written: {error.strerror}", where=str(path)) from None
        if part != "." and path.is_symlink():
            raise RequestError("is a link; folders of a data set are none", where=str(path))
    return path


def write_text(path: Path, text: str) -> None:
    """Put a small file in its place at once."""
    new = path.parent / f"{NEW}{os.getpid()}-{os.urandom(8).hex()}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise PydamonError(f"cannot write it: {error.strerror}", where=str(path)) from None
