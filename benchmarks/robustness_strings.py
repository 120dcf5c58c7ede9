"""Hostile names of programs, files, folders and arguments, through every output; a terminal's emulator looks at it.

A program with such a name, in such a folder, which maps such a file, is recorded to such a file by a daemon of such a
log; then all that shows something shows it.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import re
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pyte

from benchmarks.robustness_tally import PYDAMON, SEED, STATUSES, Tally, unforeseen
from pydamon.cli import main

FULL = 40  # names
_PIECES = (
    b"\r", b"\n", b"\t", b"\x1b[31m", b"\x1b]0;owned\x07", b"\x1b[2J", b"\x1bc", b"\x08\x08", b"\x7f",
    b"\xff\xfe", b"\xc2\x9b31m", b"\xe2\x80\xae", b"\xe2\x81\xa6", b"\xe2\x80\xa8", b"\xe2\x80\x8b", b"\xed\xa0\x80",
    b"<script>document.title=1<!--<script>", b"&lt;", b'"><img src=x onerror=alert(1)>', b"'", b"\\", b"%s%n",
    b"@DATA@", b"]]>", b"--", b"{}", b" (deleted)", b"\xf0\x9f\x92\xa9", b"\xcc\x88\xcc\x88", b"$(id)", b";", b"a,b",
    b"$\\frac{$",
    b"7f0000000000-7f8000000000 rw-p 00000000 00:00 0 ",
)  # fmt: skip
_TARGET = """
import mmap, os, sys, time
os.makedirs(sys.argv[1].encode("utf-8", "surrogateescape"), exist_ok=True)
path = os.path.join(os.fsencode(sys.argv[1]), os.fsencode(sys.argv[2]))
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20)
print("there", flush=True)
while True:
    for at in range(0, len(m), 4096): m[at] = 1
    time.sleep(0.005)
"""
_REPORTS = (
    "access", "bandwidth", "cost", "footprint", "heatmap", "idle", "info", "attrs", "raw", "recency", "regions",
    "schemes", "summary", "temperature", "wss",
)  # fmt: skip
_SGR = re.compile("\x1b\\[[0-9;]*m")
_FAST = ("--primitive", "smaps", "--sample", "10ms", "--aggr", "50ms")


def strings(scale: float, folder: Path) -> list[Tally]:
    """A row for each kind of output, over all names."""
    rows = {what: Tally(f"hostile names: {what}") for what in ("terminal", "json", "files", "page", "background")}
    for name in names(max(round(FULL * scale), 1)):
        place = folder / f"n{rows['page'].count}"
        place.mkdir()
        for what, failure in shown(name, place):
            rows[what].add(failure and f"{name!r}: {failure}")
    return list(rows.values())


def names(count: int) -> Iterator[bytes]:
    """So many, each of some pieces; the first ones together have all."""
    chance = random.Random(SEED)
    for number in range(count):
        pieces = list(_PIECES[number % 4 :: 4]) + chance.sample(_PIECES, 3)
        chance.shuffle(pieces)
        yield b"n" + b"".join(pieces)[:180]


def shown(name: bytes, place: Path) -> Iterator[tuple[str, str]]:
    """(kind of output, what did not hold or nothing) of each output of a recording in which all is called that."""
    folder, program = os.fsdecode(b"d" + name), os.fsdecode(name)
    record = os.fsdecode(name + b".damon")
    command = [program, "-c", _TARGET, folder, program]
    with subprocess.Popen(command, executable=sys.executable, cwd=place, stdout=subprocess.PIPE) as target:
        try:
            assert target.stdout is not None
            target.stdout.readline()
            yield from _background(record, target.pid, place)
        finally:
            target.kill()
    with contextlib.chdir(place):
        yield from _reports(record)
        yield from _files(record)
        for arguments in _wrong(program):
            yield "terminal", _harmless(*_printed(arguments))


# -- what shows -------------------------------------------------------------------------------------------------------


def _background(record: str, pid: int, place: Path) -> Iterator[tuple[str, str]]:
    """By processes of their own, as they live longer than one command."""
    log = record + ".log"

    def run(*arguments: str) -> str:
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(place)}
        command = [*PYDAMON, *arguments]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, check=False, timeout=120)
        failure = unforeseen(done.returncode, done.stderr) or (f"{done.returncode}" if done.returncode else "")
        said = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
        failure = failure or (_json(done.stdout.decode()) if "--json" in arguments else _terminal(said))
        return failure and f"{arguments[:2]}: {failure}"

    yield "background", run("start", "--name", "d", *_FAST, "-o", record, "--log", log, str(pid))
    yield "background", run("status")
    yield "background", run("status", "d")
    yield "background", run("status", "--json")
    yield "background", run("stop", "d")
    said = (place / log).read_bytes().decode("utf-8", "surrogateescape")
    yield "background", _terminal(said)
    # Long enough for some snapshots.
    yield "background", run("record", *_FAST, "--duration", "500ms", "-o", record, str(pid))


def _reports(record: str) -> Iterator[tuple[str, str]]:
    for report in _REPORTS:
        for terminal in (False, True):
            failure = _harmless(*_printed(["report", report, "-i", record], terminal=terminal))
            yield "terminal", failure and f"{report}: {failure}"
        status, said = _printed(["report", report, "-i", record, "--json"], errors=False)
        yield "json", _harmless(status, said) or (_json_lines(said) if status == 0 else "")
    for arguments in (["report", "diff", record, record], ["report", "diff", record, record, "--by", "mapping"]):
        yield "terminal", _harmless(*_printed(arguments))
        yield "json", _json(_printed([*arguments, "--json"], errors=False)[1])
    yield "terminal", _harmless(*_printed(["trace", "-i", record, "-e", "all"]))


def _files(record: str) -> Iterator[tuple[str, str]]:
    checks: dict[str, Callable[[str], str]] = {
        "csv": _terminal,
        "perf-script": _terminal,
        "jsonl": _json_lines,
        "trace-events": _json,
    }
    for kind, check in checks.items():
        status, said = _printed(["export", record, "--format", kind, "-o", "out"])
        yield "files", _harmless(status, said) or check(Path("out").read_bytes().decode("utf-8", "surrogateescape"))
    pictures: dict[str, tuple[list[str], Callable[[str], str]]] = {
        "wss.svg": (["report", "wss", "-i", record], _picture),
        "heatmap.svg": (["report", "heatmap", "-i", record], _picture),
        "heatmap.html": (["report", "heatmap", "-i", record], _picture_page),
        "page.html": (["export", record, "--format", "html"], _page),
    }
    for output, (command, look) in pictures.items():
        status, said = _printed([*command, "-o", output])
        failure = _harmless(status, said) or (f"status {status}: {said}" if status else "")
        yield "page", failure or look(Path(output).read_bytes().decode())


def _wrong(name: str) -> list[list[str]]:
    """What is refused, with a message in which the name stands."""
    Path("s.json").write_text(json.dumps({"kdamonds": [{"contexts": [{"ops": "vaddr", name: 1}]}]}))
    return [
        ["schemes", "check", "s.json"],
        ["schemes", "check", name],
        ["report", "info", "-i", name],
        ["record", f"--{name}"],
        ["record", "--sample", name, "1"],
        ["record", "--scheme", name, "1"],
        ["record", "--ops", "sim", "--workload", name],
        ["record", "--cgroup", name],
        ["record", "--", name],
        ["status", name],
        ["import", name, "-o", "x"],
        ["export", name, "--format", "csv", "-o", "x"],
        ["report", "heatmap", "-i", name, "-o", name],
        [name],
    ]


# -- how it is judged -------------------------------------------------------------------------------------------------


class _Terminal(io.StringIO):
    """Standard output that says that a person looks at it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def _printed(arguments: list[str], *, terminal: bool = False, errors: bool = True) -> tuple[int, str]:
    """(exit status, what is printed; ``errors``: to standard error, too) of a command, in this process."""
    output = _Terminal() if terminal else io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output if errors else io.StringIO()):
        status = main(arguments)
    return status, output.getvalue()


def _harmless(status: int, said: str) -> str:
    if "internal error" in said or status not in STATUSES:
        return f"status {status}: {said[-300:]!r}"
    return _terminal(said)


def _terminal(text: str) -> str:
    """Nothing but lines of characters that are shown, and colours."""
    plain = _SGR.sub("", text)
    found = sorted({c for c in plain if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")})
    if found:
        at = plain.index(found[0])
        return f"prints {found!r}, as in {plain[max(at - 60, 0) : at + 20]!r}"
    lines = text.split("\n")
    # As wide and high as it needs to be: then the cursor has moved by characters and lines only.
    screen = pyte.Screen(2 * max(map(len, lines)) + 2, len(lines) + 1)
    pyte.Stream(screen).feed("\r\n".join(lines))
    if screen.title or screen.icon_name:
        return "the title of the terminal was changed"
    return "" if screen.cursor.y == len(lines) - 1 else "the cursor was moved"


def _json(text: str) -> str:
    """One value, and nothing in its text that drives a terminal."""
    try:
        json.loads(text)
    except ValueError as error:
        return f"no JSON ({error}): {text[:200]!r}"
    return _terminal(text)


def _json_lines(text: str) -> str:
    return "".join(_json(line) for line in text.splitlines())


# What the page has of its own, and where its script puts what it shows.
_OWN = """html head meta title link style body header main h1 div p form label input output select canvas details
summary"""
_DATA = "data:"  # nothing is loaded by such an address


class _Elements(HTMLParser):
    """Counts the elements of a page; ``bad`` are those that are not among ``own``, and attributes that run or load."""

    def __init__(self, own: str) -> None:
        super().__init__()
        self._own = own.split()
        self.scripts: list[str | None] = []
        self.policies: list[str] = []
        self.bad: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self.scripts.append(given.get("type"))
        elif tag == "meta" and given.get("http-equiv") == "Content-Security-Policy":
            self.policies.append(given.get("content") or "")
        elif tag not in self._own:
            self.bad.append(tag)
        self.bad += [key for key in given if key.startswith("on")]
        self.bad += [key for key in ("src", "href") if not (given.get(key) or _DATA).startswith(_DATA)]


def _page(text: str) -> str:
    """Only our own scripts, data that are JSON, and a policy that allows nothing else."""
    failure = _elements(text, _OWN, ["application/json", None, "module"])
    return failure or _json(text.split('id="held">', 1)[1].split("</script>", 1)[0])


def _picture_page(text: str) -> str:
    """Nothing but a harmless picture, and no script."""
    failure = _elements(text, "html head meta title body img", [])
    return failure or _picture(base64.b64decode(text.split("base64,", 1)[1].split('"', 1)[0]).decode())


def _elements(text: str, own: str, scripts: list[str | None]) -> str:
    elements = _Elements(own)
    elements.feed(text)
    if elements.scripts != scripts or elements.bad:
        return f"scripts {elements.scripts}, other elements or attributes {elements.bad[:5]}"
    if len(elements.policies) != 1 or not elements.policies[0].startswith("default-src 'none'"):
        return f"policies {elements.policies}"
    return ""


def _picture(text: str) -> str:
    """SVG without anything that runs or loads."""
    tags = {element.tag.rsplit("}", 1)[-1] for element in ElementTree.fromstring(text).iter()}
    bad = tags & {"script", "foreignObject", "iframe", "a"}
    return f"has {sorted(bad)}" if bad else ""
