"""Nonsense where specs, schemes and other tools' files are read: an answer of one line, in bounded time and memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.robustness_tally import SEED, STATUSES, Tally, run, simulated
from benchmarks.robustness_worker import tally
from pydamon.cli import main

FULL = {"scheme": 60_000, "spec": 30_000, "file": 30_000, "import": 12_000}
_WORDS = {
    "scheme": "--scheme in the short form, fuzzed",
    "spec": "files of specs and schemes, fuzzed",
    "file": "lines of schemes (damo, debugfs), fuzzed",
    "import": "files to import, fuzzed",
}
_SHORT = (
    "pageout size>=4K rate=0% age>=60s quota=10ms+128M/1s watermarks=free:50%:40%:20%/5s filter=!anon",
    "collapse rate>=50% age>=10s quota=5ms/1s",
    "migrate_cold rate=0% node=1 goal=node_mem_free_bp@0:0.5% every=1s filter=young",
    'migrate_hot rate>=1samples dests=0:7,1:3 goal=node_mem_used_bp@0:99.7% quota=200M/1s name="to the top"',
    "stat size=2M..1G age>=3aggrs filter=allow:addr=0x1000000-0x8000000 snapshots=10",
)
_LINES = (
    "min max 80 max 100ms max willneed",
    "2M max 0 0 7s max nohugepage",
    "4096 8192 0 5 10 20 2",
    "0 4294967295 5 4294967295 0 4294967295 3 2097152 4294967295 0 0 7 4294967295 4",
)
# What breaks careless readers.
_TOKENS = (
    *b"0 -1 1e400 NaN Infinity 18446744073709551616 0x max min .. % , = : null true [ ] { } \"".split(),
    *b"\\u0000 \\ud800 \x1b[31m \x00 \xff 4K 1s -5% 1_000 1.5.2 ' # ? --- &a *a !!python/x".split(),
    *b"size age rate filter quota goal wmarks dest schemes kdamonds target_id nr_regions".split(),
    *"\u202e \x9b é ١٢٣".encode().split(b" "),
    b"\n", b"\r", b"\t", b" ", b"- ", b"<<: *a", b"9" * 400, b"[" * 100, b"{a: " * 100,
)  # fmt: skip
Say = tuple[int, str]


def fuzz(scale: float, folder: Path) -> list[Tally]:
    """A row for each kind of input."""
    make_samples(folder)
    return [
        tally(_WORDS[kind], "benchmarks.robustness_fuzz", kind, folder, max(round(full * scale), 1))
        for kind, full in FULL.items()
    ]


def make_samples(folder: Path) -> None:
    """Files of all formats, to be damaged; in ``samples``."""
    simulated(folder, "r.damon", "300ms")
    samples = folder / "samples"
    samples.mkdir()
    for kind in ("damo", "perf-script", "parquet", "csv", "jsonl"):
        done = run("export", "r.damon", "--format", kind, "-o", f"samples/{kind}", folder=folder)
        if done.returncode:
            raise RuntimeError(done.stderr.decode("utf-8", "replace"))
    for table in samples.glob("*.*"):  # side tables beside the Parquet file
        table.unlink()


def attempts(kind: str, folder: Path, count: int) -> Iterator[str]:
    """What did not hold of each of so many damaged inputs of that kind."""
    chance = random.Random(f"{SEED} {kind}")
    os.chdir(folder)
    samples = _samples(kind, folder)
    for name, sound in samples.items():
        status, said = _TRY[kind](sound)
        if status != (2 if kind == "scheme" else 0) or (kind == "scheme" and "none" not in said):
            raise RuntimeError(f"{name} itself is refused: {said}")
    for _ in range(count):
        name = chance.choice(sorted(samples))
        content = damaged(samples[name], chance)
        status, said = _TRY[kind](content)
        failure = _judged(status, said)
        yield failure and f"{name} as {content[:200]!r}: {failure}"


def damaged(sample: bytes, chance: random.Random) -> bytes:
    """A copy with one to six changes: bytes and pieces put in, taken out, doubled, swapped, replaced."""
    data = bytearray(sample)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(data))
        end = min(at + min(int(chance.paretovariate(0.7)), 1 << 16), len(data))
        change = chance.randrange(6)
        if change == 0:
            data[at:at] = chance.choice(_TOKENS)
        elif change == 1:
            data[at:end] = b""
        elif change == 2:
            data[at:at] = data[at:end]
        elif change == 3 and data:
            data[min(at, len(data) - 1)] = chance.randrange(256)
        elif change == 4:
            words = list(re.finditer(rb"[\w.%]+", data[:65536]))
            if words:
                word = chance.choice(words)
                data[word.start() : word.end()] = chance.choice(_TOKENS)
        else:
            data[at:end] = data[at:end][::-1]
    return bytes(data)


def _samples(kind: str, folder: Path) -> dict[str, bytes]:
    if kind == "import":
        return {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    if kind == "spec":
        return _spec_samples()
    return {f"no. {at}": text.encode() for at, text in enumerate(_SHORT if kind == "scheme" else _LINES)}


def _spec_samples() -> dict[str, bytes]:
    """The schemes in each form, and in whole specs."""
    Path("short").write_text("\n".join(_SHORT))
    found = {form: _shown("short", form) for form in ("json", "yaml", "short")}
    context = {"ops": "vaddr", "targets": [{"pid": 1}], "intervals": {"sample_us": 5000, "aggr_us": "100 ms"}}
    context |= {"schemes": json.loads(found["json"])["schemes"], "nr_regions": {"min": 10, "max": 1000}}
    Path("spec").write_text(json.dumps({"kdamonds": [{"contexts": [context]}]}))
    return found | {f"spec, {form}": _shown("spec", form) for form in ("json", "yaml")}


def _shown(name: str, form: str) -> bytes:
    """The file in that form."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        main(["schemes", "show", name, "--format", form])
    return printed.getvalue().encode()


def _say(*arguments: str) -> Say:
    """(exit status, all that was printed) of the command, in this process."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(arguments)
    return status, printed.getvalue()


def _scheme(content: bytes) -> Say:
    # It gets to the end of what is checked before anything runs: there is no such workload.
    text = os.fsdecode(content).replace("\0", "")
    return _say("record", "--ops", "sim", "--workload", "none", "-o", "out", "--scheme", text)


def _check(content: bytes) -> Say:
    Path("fuzzed").write_bytes(content)
    return _say("schemes", "check", "fuzzed")


def _import(content: bytes) -> Say:
    Path("fuzzed").write_bytes(content)
    return _say("import", "fuzzed", "-o", "out.damon")


_TRY: dict[str, Callable[[bytes], Say]] = {"scheme": _scheme, "spec": _check, "file": _check, "import": _import}


def _judged(status: int, said: str) -> str:
    if "internal error" in said or "Traceback" in said:
        return said[-300:]
    if status not in STATUSES:
        return f"status {status}"
    if status and not said.strip():
        return f"status {status}, and nothing is said"
    found = [c for c in said if c != "\n" and not c.isprintable()]
    return f"prints {found[:5]!r}" if found else ""
