"""Lines of a kernel trace as columns: what ``perf script`` and ``trace-cmd report`` print of ``damon_aggregated``.

    kdamond.0  4452 [000] 82820.952659: damon:damon_aggregated: target_id=0 nr_regions=8 4096-8192: 0 12

The number at the end, the age, is missing on old kernels; ``damon_region_aggregated`` says the same, and what probes
have hit. Such text comes by hundreds of megabytes, so lines are not
looked at one by one. A regular expression understands one line; where its separators are (blanks, colons, ...) becomes
a `_Template`, and all lines of a block with the same separators are then cut at once and their digits converted eight
at a time. Lines that fit no template go through the expression, which may give a further template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from pydamon.plain import printable

AGGREGATED, PROBED = b"damon_aggregated", b"damon_region_aggregated"
# What damo writes behind a single snapshot so that its duration is known: a region 0-0 with these counters.
NO_REGION = (1 << 32) - 1
# More regions than this are in no snapshot; such a line is damaged.
MAX_REGIONS = 1 << 20

_LINE = re.compile(
    rb"(?:[^\n]*?[ \t])?(?P<second>\d{1,9})\.(?P<fraction>\d{1,9}):[ \t]++"
    rb"(?:damon:)?(?P<event>damon_(?:region_)?aggregated):[ \t]++"
    rb"target_id=(?P<target>\d{1,20})[ \t]++nr_regions=(?P<nr_regions>\d{1,8})[ \t]++"
    rb"(?P<start>\d{1,20})-(?P<end>\d{1,20}):[ \t]++(?P<nr>\d{1,10}|-1)(?:[ \t]++(?P<age>\d{1,10}|-1))?"
    rb"(?:[ \t]++probe_hits=[0-9a-f ]{0,64})?[ \t\r]*+\n"
)
_TUNED = re.compile(
    rb"^(?:[^\n]*?[ \t])?(\d{1,9})\.(\d{1,9}):[ \t]+"
    rb"(?:damon:)?damon_monitor_intervals_tune:[ \t]+sample_us=(\d{1,15})[ \t\r]*$",
    re.MULTILINE,
)
# What perf trace prints of DAMON's events: another form.
PERF_TRACE = re.compile(rb"\bdamon:[a-z_]+\(")
# perf script -F tod: dates in place of the seconds since the machine was started.
_DATED = re.compile(rb"([ \t])(\d{4}-\d\d-\d\d \d\d:\d\d):(\d\d)(\.\d{1,9}):?[ \t]+(?=[A-Za-z_])")
_HEAD = 1 << 14
_FIELDS = ("second", "fraction", "target", "nr_regions", "start", "end", "nr", "age")
# The words before these separators must be as long as these; of the event's name the last letters count, too.
_WORDS = ((b"target_id", b"="), (b"nr_regions", b"="))

_EVENT_END = np.uint64(int.from_bytes(AGGREGATED[-8:], "little"))
assert AGGREGATED[-8:] == PROBED[-8:]

_PAD = b"\n" * 64  # room for reading words that begin before the first line
_MAX_TEMPLATES = 8
_ZEROS = np.uint64(0x3030303030303030)
_HIGH = np.uint64(0x8080808080808080)
_NOT_DIGIT = np.uint64(0x7676767676767676)
_EVEN_PAIRS = np.uint64(0x000000FF000000FF)
_U64_MAX = (1 << 64) - 1
# The last n bytes of a word, n = 0..8: the bytes that were read last are the word's highest.
_LAST = np.array([_U64_MAX ^ ((1 << (64 - 8 * n)) - 1) for n in range(9)], np.uint64)
_LAST[8] = _U64_MAX


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Region lines in the order of the text, one array entry each; ``age`` is 0 where the text has none."""

    time_ns: NDArray[np.int64]
    target: NDArray[np.uint64]
    nr_regions: NDArray[np.int64]
    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    nr_accesses: NDArray[np.uint32]
    age: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.time_ns)

    def columns(self) -> tuple[NDArray[np.generic], ...]:
        """The arrays, in the order of the fields."""
        return (self.time_ns, self.target, self.nr_regions, self.start, self.end, self.nr_accesses, self.age)

    def pick(self, rows: slice | NDArray[np.generic]) -> Lines:
        """The lines at these places."""
        return Lines(*(column[rows] for column in self.columns()))  # type: ignore[arg-type]

    @classmethod
    def join(cls, parts: Sequence[Lines]) -> Lines:
        """All lines of the parts (at least one), one after the other."""
        if len(parts) == 1:
            return parts[0]
        columns = zip(*(part.columns() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


_KINDS = (np.int64, np.uint64, np.int64, np.uint64, np.uint64, np.uint32, np.uint32)
NO_LINES = Lines(*(np.zeros(0, kind) for kind in _KINDS))  # type: ignore[arg-type]


@dataclass(slots=True)
class LineCounts:
    """What the lines were: regions, tuned intervals, something else that we pass over, or damaged."""

    regions: int = 0
    tuned: int = 0
    others: int = 0
    damaged: int = 0
    example: str = ""  # the first damaged one, shortened

    def note_damaged(self, line: bytes) -> None:
        """A line names the event, but cannot be understood."""
        if not self.damaged:
            text = line.strip()[:60].decode("ascii", "replace")
            self.example = printable(text)
        self.damaged += 1


@dataclass(frozen=True, slots=True, eq=False)
class _Template:
    """The separators of a line, from the one before its time to its end, and where among them its fields are."""

    pattern: bytes
    words: NDArray[np.uint64]  # the pattern in eights, from the right, ...
    masks: NDArray[np.uint64]  # ... and which of their bytes count
    fields: tuple[tuple[int, int] | None, ...]  # per field of _FIELDS: the separators before and after it
    literals: tuple[tuple[int, int, int], ...]  # the separator behind a word, the one before it, their distance


@dataclass(slots=True)
class LineParser:
    """Turns blocks of whole lines into `Lines`; what it learned of the text's form stays from block to block.

    ``event`` is the one whose lines are regions. ``tuned`` grows: when (ns) the sampling interval was changed, to how
    many microseconds.
    """

    event: bytes = AGGREGATED
    counts: LineCounts = field(default_factory=LineCounts)
    tuned: list[tuple[int, int]] = field(default_factory=list)
    _dates: dict[bytes, int] | None = None
    _seen: bool = False
    _templates: list[_Template] = field(default_factory=list)

    def parse(self, data: bytes) -> Lines:
        """The region lines in ``data``, which ends with a newline; other lines are counted."""
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if not self._seen:
            self._seen = True
            self._dates = {} if _DATED.search(data, 0, _HEAD) else None
        if self._dates is not None:
            data = _DATED.sub(self._seconds, data)
        before = self.counts.tuned
        if b"damon_monitor_intervals_tune:" in data:
            self._note_tuned(data)
        text = _Text(data)
        todo = np.ones(len(text.newlines) - 1, np.bool_)
        found: list[tuple[NDArray[np.intp], Lines]] = []
        for template in self._templates:
            if todo.any():
                self._apply(template, text, todo, found)
        if todo.any():
            if sum(len(part) for _, part in found) < data.count(self.event + b":"):
                self._learn(data, text, todo, found)
            self._count(data, text, todo)
            self.counts.others -= self.counts.tuned - before
        if not found:
            return NO_LINES
        lines = Lines.join([part for _, part in found])
        if len(found) > 1:
            lines = lines.pick(np.argsort(np.concatenate([places for places, _ in found]), kind="stable"))
        self.counts.regions += len(lines)
        return lines

    def _apply(
        self,
        template: _Template,
        text: _Text,
        todo: NDArray[np.bool_],
        found: list[tuple[NDArray[np.intp], Lines]],
    ) -> None:
        places, lines = text.cut(template, todo)
        if len(lines):
            todo[places] = False
            found.append((places, lines))

    def _learn(
        self, data: bytes, text: _Text, todo: NDArray[np.bool_], found: list[tuple[NDArray[np.intp], Lines]]
    ) -> None:
        """Take the lines that no template has fitted one by one; a new form of line becomes a template."""
        singles: list[tuple[int, tuple[int, ...]]] = []
        event = self.event + b":"
        for number in np.flatnonzero(todo).tolist():
            begin, end = text.bounds(number)
            if not todo[number] or data.find(event, begin, end) < 0:
                continue
            match = _LINE.fullmatch(data, begin, end)
            row = _row(match) if match is not None and match["event"] == self.event else None
            if match is None or row is None:
                self.counts.note_damaged(data[begin : min(end, begin + 200)])
                todo[number] = False
                continue
            if len(self._templates) < _MAX_TEMPLATES and row[5] != NO_REGION:
                template = _template(data, match)
                if all(known.pattern != template.pattern for known in self._templates):
                    self._templates.append(template)
                    self._apply(template, text, todo, found)
            if todo[number]:
                todo[number] = False
                singles.append((number, row))
        if singles:
            columns = zip(*(row for _, row in singles), strict=True)
            lines = Lines(*(np.array(c, kind) for c, kind in zip(columns, _KINDS, strict=True)))
            found.append((np.array([number for number, _ in singles], np.intp), lines))

    def _note_tuned(self, data: bytes) -> None:
        for second, fraction, sample_us in _TUNED.findall(data):
            self.counts.tuned += 1
            if int(sample_us):
                self.tuned.append((int(second) * 10**9 + int(fraction.ljust(9, b"0")), int(sample_us)))

    def _seconds(self, match: re.Match[bytes]) -> bytes:
        """The seconds since 1970 of a date, as if it were in UTC: only the distances count."""
        blank, minute, second, fraction = match.groups()
        assert self._dates is not None
        if minute not in self._dates:
            try:
                moment = datetime.fromisoformat(minute.decode()).replace(tzinfo=UTC)
            except ValueError:
                return match[0]
            self._dates[minute] = int(moment.timestamp()) % 10**9
        return b"%s%d%s: " % (blank, self._dates[minute] + int(second), fraction)

    def _count(self, data: bytes, text: _Text, todo: NDArray[np.bool_]) -> None:
        """Note the lines of other events; empty lines and comments are part of the format."""
        lines = np.flatnonzero(todo)
        firsts = text.first_bytes(lines)
        sure = (firsts > 0x23) | (firsts == 0x21) | (firsts == 0x22)
        unsure = (text.bounds(number) for number in lines[~sure].tolist())
        self.counts.others += int(sure.sum()) + sum(data[a:b].strip()[:1] not in (b"", b"#") for a, b in unsure)


def _row(match: re.Match[bytes]) -> tuple[int, ...] | None:
    """The columns of one line; None for numbers that cannot be."""
    time_ns = int(match["second"]) * 10**9 + int(match["fraction"].ljust(9, b"0"))
    target, nr_regions, start, end = (int(match[name]) for name in ("target", "nr_regions", "start", "end"))
    nr, age = int(match["nr"]), int(match["age"] or 0)
    if (nr, start, end) == (-1, 0, 0):
        nr = age = NO_REGION
    if min(nr, age) < 0 or max(nr, age) > NO_REGION or max(target, start, end) > _U64_MAX:
        return None
    if not 1 <= nr_regions <= MAX_REGIONS:
        return None
    return time_ns, target, nr_regions, start, end, nr, age


def _template(data: bytes, match: re.Match[bytes]) -> _Template:
    """The form of the line that matched."""
    first = match.start("second") - 1  # -1: the line before this one's, whose newline is in the padding
    places = [at for at in range(first, match.end()) if at < 0 or _is_separator(data[at])]
    index = {at: number for number, at in enumerate(places)}
    pattern = bytes(data[at] if at >= 0 else 10 for at in places)
    fields = tuple(
        None if match[name] is None else (index[match.start(name) - 1], index[match.end(name)]) for name in _FIELDS
    )
    literals = []
    words = ((match["event"], b":"), *_WORDS)
    for (word, sign), behind in zip(words, ("target", "target", "nr_regions"), strict=True):
        # What stands before the time may look like anything.
        at = data.rindex(word + sign, match.end("fraction"), match.start(behind)) + len(word)
        literals.append((index[at], index[at - len(word) - 1], len(word) + 1))
    count = -(-len(pattern) // 8)
    padded = pattern.rjust(8 * count, b"\0")
    shown = bytes(len(padded) - len(pattern)) + b"\xff" * len(pattern)
    return _Template(pattern, np.frombuffer(padded, "<u8"), np.frombuffer(shown, "<u8"), fields, tuple(literals))


def _is_separator(byte: int) -> bool:
    """Whether it is one of ``!"#$%&'()*+,-./:;<=>?``, a blank or a control character."""
    return byte < 0x30 or 0x3A <= byte < 0x40


class _Text:
    """A block of text with its separators found."""

    def __init__(self, data: bytes) -> None:
        self._bytes = np.frombuffer(_PAD + data, np.uint8)
        is_separator = self._bytes < 0x30
        is_separator |= (self._bytes - np.uint8(0x3A)) < 6
        self._places = np.flatnonzero(is_separator)
        self._separators = self._bytes.take(self._places)
        # Among the separators, the newlines; the first is the padding's last one.
        self.newlines = np.flatnonzero(self._separators == 10)[len(_PAD) - 1 :]
        self._ends = self._places.take(self.newlines)

    def first_bytes(self, numbers: NDArray[np.intp]) -> NDArray[np.uint8]:
        """The byte that each of these lines begins with."""
        return self._bytes.take(self._ends.take(numbers) + 1)

    def bounds(self, number: int) -> tuple[int, int]:
        """Offsets in the data of that line, its newline included."""
        return int(self._ends[number]) + 1 - len(_PAD), int(self._ends[number + 1]) + 1 - len(_PAD)

    def cut(self, template: _Template, todo: NDArray[np.bool_]) -> tuple[NDArray[np.intp], Lines]:
        """Of the lines to do those that have the template's form: their numbers, and what they say."""
        count = len(template.pattern)
        last = self.newlines[1:]
        fits = todo & (last - self.newlines[:-1] >= count - 1) & (last >= 8 * len(template.words))
        numbers = np.flatnonzero(fits)
        if len(numbers) < len(last):
            last = last[numbers]
        shown = _words_before(self._separators, last + 1, len(template.words))
        alike = np.ones(len(last), np.bool_)
        for number, (word, mask) in enumerate(zip(template.words, template.masks, strict=True)):
            alike &= (shown[:, number] & mask) == word
        if not alike.all():
            numbers, last = numbers[alike], last[alike]
        # One gather for all separators of a line.
        rows = np.ndarray((len(self._places) - count + 1,), f"V{8 * count}", self._places, 0, (8,))
        places = np.ascontiguousarray(rows[last - (count - 1)].view(np.int64).reshape(-1, count).T)
        good = np.ones(len(numbers), np.bool_)
        for at, before, distance in template.literals:
            good &= places[at] - places[before] == distance
        good &= _words_before(self._bytes, places[template.literals[0][0]], 1)[:, 0] == _EVENT_END
        values = []
        for name, bounds in zip(_FIELDS, template.fields, strict=True):
            if bounds is None:
                values.append(np.zeros(len(numbers), np.uint64))
                continue
            begin, end = places[bounds[0]] + 1, places[bounds[1]]
            value, is_number = _numbers(self._bytes, begin, end)
            good &= is_number
            if name in ("second", "fraction"):
                good &= end - begin <= 9
                if name == "fraction":
                    value = value * _SCALE[np.minimum(end - begin, 9)]
            values.append(value)
        second, fraction, target, nr_regions, start, stop, nr, age = values
        good &= (nr_regions - np.uint64(1) < MAX_REGIONS) & (nr < NO_REGION) & (age <= NO_REGION)
        lines = Lines(
            (second * np.uint64(10**9) + fraction).astype(np.int64),
            target,
            nr_regions.astype(np.int64),
            start,
            stop,
            nr.astype(np.uint32),
            age.astype(np.uint32),
        )
        if good.all():
            return numbers, lines
        return numbers[good], lines.pick(good)


_SCALE = np.array([10 ** (9 - digits) for digits in range(10)], np.uint64)


def _words_before(data: NDArray[np.uint8], ends: NDArray[np.int64], words: int) -> NDArray[np.uint64]:
    """The ``8 * words`` bytes before each place, as little-endian words of shape (places, words)."""
    kind = np.dtype(f"V{8 * words}")
    rows = np.ndarray((len(data) - 8 * words + 1,), kind, data, 0, (1,))
    return np.ascontiguousarray(rows[ends - 8 * words]).view("<u8").reshape(-1, words)


def _numbers(
    data: NDArray[np.uint8], begin: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """(the decimal numbers between these places, which of them are such numbers of at most 64 bits)."""
    length = end - begin
    if not len(length):
        return np.zeros(0, np.uint64), np.zeros(0, np.bool_)
    shortest, longest = int(length.min()), int(length.max())
    words = -(-min(max(longest, 1), 20) // 8)
    shown = _words_before(data, end, words)
    if shortest == longest and (shown[1:] == shown[0]).all():  # the target of all lines, say
        value, good = _numbers_of(shown[:1], length[:1])
        return np.broadcast_to(value, len(length)), np.broadcast_to(good, len(length))
    return _numbers_of(shown, length)


def _numbers_of(shown: NDArray[np.uint64], length: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """As `_numbers`: the numbers that are the last so many bytes of these words."""
    shortest, longest = int(length.min()), int(length.max())
    words = shown.shape[1]
    value = np.zeros(len(length), np.uint64)
    signs = np.zeros(len(length), np.uint64)  # a high bit for each byte that is no digit
    overflows = np.zeros(len(length), np.bool_)
    for number in range(words):
        behind = 8 * (words - 1 - number)
        word = shown[:, number] ^ _ZEROS
        if shortest < behind + 8:
            digits = length - behind
            word &= _LAST[max(min(longest - behind, 8), 0)] if shortest == longest else _LAST.take(digits, mode="clip")
        check = word + _NOT_DIGIT
        check |= word
        signs |= check
        before, value = value, _eight_digits(word)
        if number == 2:  # 20 digits may be more than 64 bits
            high = before // np.uint64(10**8)
            low = before % np.uint64(10**8) * np.uint64(10**8) + value
            overflows = (high > 1844) | ((high == 1844) & (low > _U64_MAX - 1844 * 10**16))
        if number:
            before *= np.uint64(10**8)
            value += before
    signs &= _HIGH
    return value, (signs == 0) & ~overflows & (length >= 1) & (length <= 20)


def _eight_digits(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The number that eight digits (0 to 9, the first in the lowest byte) make: pairs, fours, then all eight."""
    pairs = word * np.uint64(10)
    word >>= np.uint64(8)
    pairs += word
    fours = pairs & _EVEN_PAIRS
    fours *= np.uint64(0x000F424000000064)
    pairs >>= np.uint64(16)
    pairs &= _EVEN_PAIRS
    pairs *= np.uint64(0x0000271000000001)
    fours += pairs
    fours >>= np.uint64(32)
    return fours
