"""A workload: regions of memory and phases that say how each is accessed. Pure: text in, values out.

The text is the configuration format of the ``masim`` access simulator, so its files load unchanged::

    #regions
    hot, 10485760
    cold, 1 GiB, data.bin

    warm-up
    1000
    hot, 0, 4096, 1
    cold, 1, 64, 3, ro

Paragraphs are separated by blank lines, and lines that begin with ``#`` are left out. The first paragraph lists the
regions (``name, bytes[, init file]``); each other one is a phase: its name, its milliseconds, then lines
``region, random 0/1, stride, probability[, ro|wo|rw]``. The one extension: sizes and times may carry a unit.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from pydamon.errors import RequestError, located
from pydamon.spec.units import parse_size, parse_time_us

MAX_FILE_BYTES = 1 << 20
MAX_TOTAL_BYTES = 8 << 40  # all regions together; leaves room for gaps in the 47-bit address space of a process
MAX_DURATION_MS = 2**32 - 1
MAX_PROBABILITY = 2**31 - 1
MAX_NAME_CHARS = 255

MODES = ("ro", "wo", "rw")
DEFAULT_MODE = "wo"  # masim's


@dataclass(frozen=True, slots=True)
class WorkloadRegion:
    """A named piece of memory; ``init_file`` is loaded into it first. Raises RequestError for impossible values."""

    name: str
    size_bytes: int
    init_file: str | None = None

    def __post_init__(self) -> None:
        _check_name("region", self.name)
        if "," in self.name:
            raise RequestError(f"region name {_quote(self.name)} has a comma; commas separate the fields")
        if not 0 < self.size_bytes <= MAX_TOTAL_BYTES:
            raise RequestError(
                f"region {_quote(self.name)} has a size of {self.size_bytes} bytes; it must be 1 to {MAX_TOTAL_BYTES}"
            )
        if self.init_file is not None:
            _check_name("init file", self.init_file, max_chars=4096)
            if "," in self.init_file or self.init_file == "none":
                raise RequestError(f"init file {_quote(self.init_file)} must have no comma, and not be named 'none'")


@dataclass(frozen=True, slots=True)
class Access:
    """One pattern of a phase. ``region`` is an index into the workload's regions.

    Sequential accesses touch bytes 0, stride, 2 * stride, ... of the region, again and again; random ones touch any
    byte of it, whatever the stride. A pattern gets ``probability`` out of the sum of its phase's share of the accesses.
    """

    region: int
    random: bool
    stride_bytes: int
    probability: int
    mode: str = DEFAULT_MODE

    def __post_init__(self) -> None:
        if not (0 if self.random else 1) <= self.stride_bytes <= MAX_TOTAL_BYTES:
            raise RequestError(f"a stride of {self.stride_bytes} bytes; it must be 1 to {MAX_TOTAL_BYTES}")
        if not 0 <= self.probability <= MAX_PROBABILITY:
            raise RequestError(f"a probability of {self.probability}; it must be 0 to {MAX_PROBABILITY}")
        if self.mode not in MODES:
            raise RequestError(f"unknown access mode {_quote(self.mode)}; it is ro, wo or rw")


@dataclass(frozen=True, slots=True)
class Phase:
    """A span of time and what is accessed in it."""

    name: str
    duration_ms: int
    accesses: tuple[Access, ...]

    def __post_init__(self) -> None:
        _check_name("phase", self.name)
        _check_duration(self.duration_ms)
        if not self.accesses:
            raise RequestError(
                f"phase {_quote(self.name)} has no line 'region, random 0/1, stride, probability' "
                "(with probability 0 in a pause)"
            )

    @property
    def total_probability(self) -> int:
        """The sum of the patterns' probabilities, of which each one is a share; 0: nothing is accessed, a pause."""
        return sum(access.probability for access in self.accesses)


@dataclass(frozen=True, slots=True)
class Workload:
    """A known access pattern. Raises RequestError for what no process could do."""

    regions: tuple[WorkloadRegion, ...]
    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.regions:
            raise RequestError("no regions; the first paragraph must list them, as lines 'name, bytes[, init file]'")
        if not self.phases:
            raise RequestError(
                "no phases; after the regions and a blank line comes each one's name, milliseconds, accesses"
            )
        names = [region.name for region in self.regions]
        if len(set(names)) < len(names):
            raise RequestError("two regions have the same name")
        if self.total_bytes > MAX_TOTAL_BYTES:
            raise RequestError(f"the regions sum up to {self.total_bytes} bytes; the most is {MAX_TOTAL_BYTES}")
        for phase in self.phases:
            for access in phase.accesses:
                if not 0 <= access.region < len(self.regions):
                    raise RequestError(
                        f"phase {_quote(phase.name)} accesses a region that is not there: {access.region}"
                    )

    @property
    def total_bytes(self) -> int:
        """The size of all regions."""
        return sum(region.size_bytes for region in self.regions)

    @property
    def duration_ms(self) -> int:
        """The length of all phases."""
        return sum(phase.duration_ms for phase in self.phases)

    def to_text(self) -> str:
        """The workload in masim's format, plain numbers only; ``parse`` gives back an equal workload."""
        lines = ["#regions"]
        for region in self.regions:
            lines.append(f"{region.name}, {region.size_bytes}, {region.init_file or 'none'}")
        for phase in self.phases:
            lines += ["", phase.name, str(phase.duration_ms)]
            for access in phase.accesses:
                name = self.regions[access.region].name
                lines.append(
                    f"{name}, {int(access.random)}, {access.stride_bytes}, {access.probability}, {access.mode}"
                )
        return "\n".join(lines) + "\n"


def read(path: str) -> Workload:
    """The workload that the file ``path`` describes. Raises RequestError, also if it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise RequestError(f"cannot read the workload file: {error.strerror}", where=path) from None
    except ValueError:
        raise RequestError("not a file name: it contains a zero byte", where="workload") from None
    return parse_bytes(data, source=path)


def parse_bytes(data: bytes, *, source: str) -> Workload:
    """Like ``parse``, of UTF-8 bytes; refuses more than 1 MiB and what is not text."""
    if len(data) > MAX_FILE_BYTES:
        raise RequestError(f"larger than {MAX_FILE_BYTES} bytes; that is not a workload file", where=source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RequestError("not UTF-8 text; a workload is a plain text file", where=f"{source}:{line}") from None
    return parse(text, source=source)


def parse(text: str, *, source: str) -> Workload:
    """The workload described by ``text``; ``source`` names it in errors.

    Raises RequestError whose ``where`` is ``SOURCE:LINE``, or ``SOURCE`` where no line is to blame.
    """
    paragraphs = _paragraphs(text, source)
    if not paragraphs:
        raise RequestError("empty; a workload has a paragraph of regions, then one per phase", where=source)
    regions: list[WorkloadRegion] = []
    index_of: dict[str, int] = {}
    for number, line in paragraphs[0]:
        with located(f"{source}:{number}"):
            region = _parse_region(line)
            if region.name in index_of:
                raise RequestError(f"a second region named {_quote(region.name)}; the names must differ")
        index_of[region.name] = len(regions)
        regions.append(region)
    phases = [_parse_phase(lines, index_of, source) for lines in paragraphs[1:]]
    with located(source):
        return Workload(tuple(regions), tuple(phases))


def _paragraphs(text: str, source: str) -> list[list[tuple[int, str]]]:
    """Paragraphs of (line number, stripped line), without comments."""
    paragraphs: list[list[tuple[int, str]]] = [[]]
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        # Comments go before paragraphs are told apart, as in masim: one inside a paragraph does not end it.
        if line.startswith("#"):
            continue
        if not line:
            paragraphs.append([])
        elif not _is_printable(line):
            raise RequestError("control characters; a workload is a plain text file", where=f"{source}:{number}")
        else:
            paragraphs[-1].append((number, line))
    return [paragraph for paragraph in paragraphs if paragraph]


def _parse_region(line: str) -> WorkloadRegion:
    fields = _fields(line, 2, 3, "name, bytes[, init file]")
    init_file = fields[2] if len(fields) == 3 and fields[2] != "none" else None
    return WorkloadRegion(fields[0], _size(fields[1], "the size"), init_file)


def _parse_phase(lines: list[tuple[int, str]], index_of: dict[str, int], source: str) -> Phase:
    number, name = lines[0]
    if len(lines) < 3:
        raise RequestError(
            f"phase {_quote(name)} is too short; it is a name, its milliseconds, then at least one line "
            "'region, random 0/1, stride, probability[, ro|wo|rw]'",
            where=f"{source}:{lines[-1][0]}",
        )
    with located(f"{source}:{lines[1][0]}"):
        duration_ms = _check_duration(_duration_ms(lines[1][1]))
    accesses = []
    for at, line in lines[2:]:
        with located(f"{source}:{at}"):
            accesses.append(_parse_access(line, index_of))
    with located(f"{source}:{number}"):
        return Phase(name, duration_ms, tuple(accesses))


def _parse_access(line: str, index_of: dict[str, int]) -> Access:
    fields = _fields(line, 4, 5, "region, random 0/1, stride, probability[, ro|wo|rw]")
    if fields[0] not in index_of:
        known = ", ".join(list(index_of)[:10]) + (", ..." if len(index_of) > 10 else "")
        raise RequestError(f"unknown region {_quote(fields[0])}; the regions are {known}")
    if fields[1] not in ("0", "1"):
        raise RequestError(f"{_quote(fields[1])} for random; it is 1 (random) or 0 (sequential)")
    if not _is_plain_number(fields[3]):
        raise RequestError(f"the probability {_quote(fields[3])} must be a whole number (it is relative to the others)")
    mode = fields[4] if len(fields) == 5 else DEFAULT_MODE
    return Access(index_of[fields[0]], fields[1] == "1", _size(fields[2], "the stride"), int(fields[3]), mode)


def _fields(line: str, least: int, most: int, form: str) -> list[str]:
    fields = [field.strip() for field in line.split(",")]
    if not least <= len(fields) <= most:
        problem = "a field is missing" if len(fields) < least else "too many fields"
        raise RequestError(f"{problem} in {_quote(line)}; the form is '{form}'")
    if "" in fields:
        raise RequestError(f"field {fields.index('') + 1} of {_quote(line)} is empty; the form is '{form}'")
    return fields


def _size(text: str, what: str) -> int:
    if _is_plain_number(text):
        return int(text)
    try:
        return parse_size(text)
    except RequestError as error:
        raise RequestError(f"{what}: {error.message}") from None


def _duration_ms(text: str) -> int:
    if _is_plain_number(text):
        return int(text)
    try:
        duration_us = parse_time_us(text)
    except RequestError:
        raise RequestError(
            f"the second line of a phase is its milliseconds, like 5000 or 5s; found {_quote(text)}"
        ) from None
    if duration_us % 1000:
        raise RequestError(f"the duration {_quote(text)} is not a whole number of milliseconds")
    return duration_us // 1000


def _check_duration(duration_ms: int) -> int:
    if not 0 < duration_ms <= MAX_DURATION_MS:
        raise RequestError(f"a duration of {duration_ms} ms; it must be 1 to {MAX_DURATION_MS}")
    return duration_ms


def _is_plain_number(text: str) -> bool:
    # The length keeps int() linear; what is longer is refused by the parsers of units, or as too large.
    return text.isascii() and text.isdigit() and len(text) <= 20


def _check_name(what: str, name: str, max_chars: int = MAX_NAME_CHARS) -> None:
    # What could not be written as a line (or field) and read back the same, or would garble a terminal.
    if not name or name != name.strip() or name.startswith("#") or not _is_printable(name):
        raise RequestError(f"{_quote(name)} cannot be the name of a{'n' if what[0] in 'aeiou' else ''} {what}")
    if len(name) > max_chars:
        raise RequestError(f"the name of {what} {_quote(name)} is longer than {max_chars} characters")


def _is_printable(text: str) -> bool:
    """Whether ``text`` has no control characters (a tab is none) and no lone surrogates."""
    if text.isprintable():
        return True
    return all(char == "\t" or unicodedata.category(char) not in ("Cc", "Cs") for char in text)


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")
