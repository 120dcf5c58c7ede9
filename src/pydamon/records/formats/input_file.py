"""A file of another tool as a stream of bytes: as it is, decompressed, or printed by the tool; again if need be.

Pipes are copied to an unnamed temporary file first. Nothing is ever decompressed as a whole.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import shutil
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import IO, Self

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.plain import printable

CHUNK_BYTES = 1 << 20
HEAD_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 16
_MAX_XZ_MEMORY = 1 << 27

# A tool that turns its binary recordings into text, by how these begin.
_TOOLS: dict[bytes, tuple[str, ...]] = {
    b"PERFILE2": ("perf", "script", "--force", "-i"),
    b"2ELIFREP": ("perf", "script", "--force", "-i"),
    b"\x17\x08\x44tracing": ("trace-cmd", "report", "-i"),
}


class InputFile:
    """An open file. Use as a context manager, or call `close`.

    ``packing`` is how it is compressed (None, ``gzip``, ``xz``, ``zlib``); ``tool`` the program that prints it, where
    it is a binary recording. ``head`` is the beginning of the text. Raises RequestError for what cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.cut_short = ""  # where the compressed stream, or the tool, ended early or is damaged; else empty
        self._fd = _open(path)
        try:
            self.size = os.fstat(self._fd).st_size
            first = self.read_at(0, HEAD_BYTES)
            self.first = first
            self.packing = _packing(first)
            self.tool = next((command for magic, command in _TOOLS.items() if first.startswith(magic)), None)
            self.head = first if self.packing is None and self.tool is None else b""
            if self.packing is not None or self.tool is not None:
                self.head = self._start()
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def fd(self) -> int:
        """The descriptor of the file as it is, which can be read anywhere."""
        return self._fd

    @property
    def plain(self) -> bool:
        """Whether the text is in the file as it is, so that `read_at` reads text."""
        return self.packing is None and self.tool is None

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes of the file as it is; RequestError if it cannot be read."""
        try:
            return os.pread(self._fd, length, offset)
        except OSError as error:
            raise RequestError(f"cannot be read: {error.strerror}", where=self.path) from None

    def chunks(self) -> Generator[bytes, None, None]:
        """The text from its beginning, in pieces of about `CHUNK_BYTES`."""
        self.cut_short = ""
        if self.tool is not None:
            return self._printed(self.tool)
        raw = self._raw()
        kind = self.packing
        return raw if kind is None else self._unpacked(raw, lambda: _Unpacker(kind))

    def blocks(self) -> Generator[bytes, None, None]:
        """The text in pieces of whole lines; a last line gets the newline that it may lack.

        A line that is longer than any of a text is left out up to its end.
        """
        rest, skipping = b"", False
        for chunk in self.chunks():
            end = chunk.rfind(b"\n") + 1
            if not end:
                rest += chunk
                if len(rest) > MAX_LINE_BYTES:
                    rest, skipping = b"", True
                continue
            if skipping:
                rest, skipping, begin = b"", False, chunk.find(b"\n") + 1
                block = chunk[begin:end]
            else:
                block = rest + chunk[:end]
            rest = chunk[end:]
            if block:
                yield block
        if rest and not skipping:
            yield rest + b"\n"

    def came_before(self) -> str:
        """The line about a file that ends early and yet gave something."""
        return f"ends early ({self.cut_short}); this is what came before"

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> bytes:
        found = b""
        with contextlib.closing(self.chunks()) as chunks:
            for chunk in chunks:
                found += chunk[:HEAD_BYTES]
                if len(found) >= HEAD_BYTES:
                    break
        return found[:HEAD_BYTES]

    def _raw(self) -> Generator[bytes, None, None]:
        offset = 0
        while data := self.read_at(offset, CHUNK_BYTES):
            yield data
            offset += len(data)

    def _unpacked(self, raw: Iterable[bytes], make: Callable[[], _Unpacker]) -> Generator[bytes, None, None]:
        unpacker, whole, taken = make(), 0, 0
        try:
            for data in raw:
                taken += len(data)
                unpacker.feed(data)
                while True:
                    if unpacker.eof:  # another one may follow
                        whole += 1
                        rest = unpacker.pending
                        unpacker = make()
                        unpacker.feed(rest)
                    if not (text := unpacker.read()) and not unpacker.eof:
                        break
                    yield text
        except (zlib.error, lzma.LZMAError, EOFError):
            if text := unpacker.salvage():
                yield text
            # Behind whole streams there may be anything; gzip and xz pass over it as well.
            if not whole or unpacker.begun:
                self.cut_short = f"its {self.packing} data is damaged at byte {taken - len(unpacker.pending):,}"
            return
        if not unpacker.eof and (unpacker.begun or not whole):
            self.cut_short = f"its {self.packing} data is cut off after {taken:,} bytes"

    def _printed(self, tool: tuple[str, ...]) -> Generator[bytes, None, None]:
        program = shutil.which(tool[0])
        if program is None:
            hint = f"or print it where it was recorded: {' '.join(tool[:2])} > text"
            raise MachineError(
                f"is a recording of {tool[0]}, which is not installed; install it, {hint}", where=self.path
            )
        name = f"/proc/self/fd/{self._fd}"
        with tempfile.TemporaryFile() as complaints:
            process = subprocess.Popen(
                [program, *tool[1:], name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                pass_fds=[self._fd],
            )
            assert process.stdout is not None
            printed = 0
            try:
                while data := process.stdout.read(CHUNK_BYTES):
                    printed += len(data)
                    yield data
            finally:
                process.stdout.close()
                if process.poll() is None:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.2)
                if process.poll() is None:
                    process.kill()
                process.wait()
            if process.returncode:
                self.cut_short = f"{' '.join(tool[:2])} failed"
                if not printed:
                    raise PydamonError(f"{' '.join(tool[:2])} failed: {_last_line(complaints)}", where=self.path)


def _last_line(file: IO[bytes]) -> str:
    file.seek(0)
    lines = file.read(1 << 16).decode("utf-8", "replace").split("\n")
    said = [" ".join(line.split()) for line in lines if line.strip()]
    return printable(said[-1][:200]) if said else "it said nothing"


class _Unpacker:
    """Decompresses one stream in steps of at most `CHUNK_BYTES`; ``pending`` is what it has not looked at."""

    def __init__(self, kind: str) -> None:
        self._xz = lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY) if kind == "xz" else None
        self._zlib = zlib.decompressobj(wbits=31 if kind == "gzip" else 15)
        self.pending = b""
        self.begun = False  # it has given some text
        self._before = self._zlib.copy()  # as it was when it was read last

    @property
    def eof(self) -> bool:
        """Whether the stream's end was reached."""
        return (self._xz or self._zlib).eof

    def feed(self, data: bytes) -> None:
        """Add packed bytes."""
        self.pending += data

    def read(self) -> bytes:
        """Some text; none if more must be fed first, or at the end."""
        if self._xz is None:
            self._before = self._zlib.copy()
            text = self._zlib.decompress(self.pending, CHUNK_BYTES) if self.pending else b""
            self.pending = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
        else:
            hungry = self._xz.needs_input
            if hungry and not self.pending:
                return b""
            text = self._xz.decompress(self.pending if hungry else b"", CHUNK_BYTES)
            if hungry:
                self.pending = b""
            if self._xz.eof:
                self.pending = self._xz.unused_data + self.pending
        self.begun = self.begun or bool(text)
        return text

    def salvage(self) -> bytes:
        """After an error: the text up to it, no more than `read` gives; ``pending`` begins at the byte that is wrong.

        An xz stream is only known to be damaged somewhere behind that byte.
        """
        found: list[bytes] = []
        if self._xz is None:
            for number in range(len(self.pending)):
                try:
                    found.append(self._before.decompress(self.pending[number : number + 1]))
                except zlib.error:
                    self.pending = self.pending[number:]
                    break
        text = b"".join(found)
        self.begun = self.begun or bool(text)
        return text


def _packing(first: bytes) -> str | None:
    if first.startswith(b"\x1f\x8b"):
        return "gzip"
    if first.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if len(first) > 1 and first[0] == 0x78 and not (first[0] << 8 | first[1]) % 31:
        with contextlib.suppress(zlib.error):
            zlib.decompressobj().decompress(first, 64)
            return "zlib"
    return None


def _open(path: str) -> int:
    """A descriptor that can be read anywhere; what comes through a pipe is copied first."""
    try:
        fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot be read: {getattr(error, 'strerror', 'embedded null byte')}", where=path) from None
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind):
        return fd
    try:
        if stat.S_ISDIR(kind):
            raise RequestError("is a directory, not a file", where=path)
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)) and os.path.realpath(path) != os.devnull:
            raise RequestError("is neither a file nor a pipe", where=path)
        with tempfile.TemporaryFile() as copy:
            try:
                while data := os.read(fd, CHUNK_BYTES):
                    copy.write(data)
                copy.flush()
            except OSError as error:
                raise PydamonError(
                    f"cannot be copied to {tempfile.gettempdir()}: {error.strerror}", where=path
                ) from None
            return os.dup(copy.fileno())
    finally:
        os.close(fd)
