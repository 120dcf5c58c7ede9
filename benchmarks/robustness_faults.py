"""A system call that fails, one at a time: of what reads and writes the files of each verb, by strace's injection.

Each verb is traced once, which lists its calls in its own folder; then it runs again for each chosen call and error.
What was asked for is then there, whole, or what was there before is; and one line names a path and the cause.
"""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.robustness_tally import PYDAMON, SEED, Tally, run, simulated, unforeseen
from pydamon.errors import PydamonError
from pydamon.linux import temporary
from pydamon.records.joined import open_record

FULL = 1300
ERRORS = {
    "openat": ("EMFILE", "ENFILE", "EACCES", "ENOSPC", "EIO", "EINTR"),
    "write": ("ENOSPC", "EIO", "EDQUOT", "EINTR", "EFBIG"),
    "read": ("EIO", "EINTR"),
    "pread64": ("EIO", "EINTR"),
    "pwrite64": ("ENOSPC", "EIO"),
    "linkat": ("ENOSPC", "EPERM", "EIO", "EOPNOTSUPP"),
    "rename": ("ENOSPC", "EIO", "EACCES"),
    "renameat": ("ENOSPC", "EIO", "EACCES"),
    "renameat2": ("EINVAL", "ENOSPC", "EIO"),
    "unlink": ("EIO", "EACCES"),
    "unlinkat": ("EIO", "EACCES"),
    "ftruncate": ("EIO", "ENOSPC", "EINTR"),
    "flock": ("ENOLCK", "EINTR", "EOPNOTSUPP"),
    "fsync": ("EIO", "ENOSPC"),
    "fchmod": ("EPERM", "EIO"),
    "newfstatat": ("EIO", "EACCES", "ELOOP"),
    "lseek": ("ESPIPE", "EIO"),
    "close": ("EIO",),
    "mmap": ("ENOMEM", "ENODEV"),
    "getdents64": ("EIO",),
}
_SIM = ("--ops", "sim", "--workload", "stairs", "--duration", "3s")
# What runs (in a folder with r.damon and t.csv), and the names of what it makes.
VERBS: dict[str, tuple[tuple[str, ...], str]] = {
    "record": (("record", *_SIM, "-o", "out.damon"), "out.damon"),
    "rotate": (("record", *_SIM, "--rotate", "1s", "-o", "out.damon"), "out.*.damon"),
    "cut": (("record", "cut", "-i", "r.damon", "--to", "2s", "-o", "out.damon"), "out.damon"),
    "merge": (("record", "merge", "r.damon", "-o", "out.damon"), "out.damon"),
    "aggregate": (("record", "aggregate", "-i", "r.damon", "--factor", "2", "-o", "out.damon"), "out.damon"),
    "import": (("import", "t.csv", "-o", "out.damon"), "out.damon"),
    "export": (("export", "r.damon", "--format", "csv", "-o", "out.csv"), "out.csv"),
    "export damo": (("export", "r.damon", "--format", "damo", "-o", "out.json"), "out.json"),
    "heatmap": (("report", "heatmap", "-i", "r.damon", "-o", "out.html"), "out.html"),
}
_CALL = re.compile(r"(\d+) +(\w+)\((.*)")
_OTHER_WORDS = {"ENOSPC": ("the disk is full",), "EFBIG": ("the limit of the file size is reached",)}
_ELSEWHERE = re.compile(r'AT_FDCWD<[^>]*>, "/')  # an absolute path: where the process is does not matter
_CAUSE_FREE = ("close", "lseek", "flock", "newfstatat", "mmap")  # of which it may say something else, or need nothing


@dataclass(frozen=True)
class Fault:
    """The ``number``-th call of that name fails; ``line`` is how strace showed it when it did not."""

    call: str
    number: int
    error: str
    line: str

    def __str__(self) -> str:
        return f"{self.call} no. {self.number} {self.error} ({self.line[:120]})"


def faults(scale: float, folder: Path) -> list[Tally]:
    """A row for each verb."""
    if shutil.which("strace") is None:
        return [Tally("system calls that fail", note="left out: there is no strace")]
    make_inputs(folder)
    return [faults_of(name, max(round(FULL * scale / len(VERBS)), 1), folder) for name in VERBS]


def make_inputs(folder: Path) -> None:
    """What the verbs read, and what may be where they write."""
    simulated(folder, "r.damon")
    simulated(folder, "old.damon", "1s")
    if run("export", "r.damon", "--format", "csv", "-o", "t.csv", folder=folder).returncode:
        raise RuntimeError("the record cannot be exported")


def faults_of(name: str, count: int, folder: Path) -> Tally:
    """So many faults of one verb, in a folder with its inputs."""
    arguments, makes = VERBS[name]
    chance = random.Random(f"{SEED} {name}")
    place = folder / name.replace(" ", "_")
    _prepare(folder, place)
    _traced(arguments, place, ())
    _prepare(folder, place)  # again: what Python compiles at its first run is compiled now
    lines = _traced(arguments, place, ())[1]
    whole = _content(place, makes)
    possible = _possible(lines, str(place))
    tally = Tally(f"a call fails: {name}", note=f"of {len(possible)} possible")
    elsewhere = 0
    for fault in sorted(chance.sample(possible, min(count, len(possible))), key=str):
        before = {}
        _prepare(folder, place)
        if chance.random() < 0.5 and "*" not in makes:
            shutil.copy(folder / ("old.damon" if makes.endswith("damon") else "t.csv"), place / makes)
            before = _content(place, makes)
        done, shown = _traced(arguments, place, (f"inject={fault.call}:error={fault.error}:when={fault.number}",))
        if not any("(INJECTED)" in line and str(place) in _ELSEWHERE.sub("", line) for line in shown):
            elsewhere += 1
        tally.add(_judged(fault, done, place, makes, before, whole))
    if elsewhere:
        tally.note += f"; {elsewhere} met another file"
    return tally


def _prepare(folder: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name in ("r.damon", "t.csv"):
        shutil.copy(folder / name, place / name)


def _traced(
    arguments: tuple[str, ...], place: Path, inject: tuple[str, ...]
) -> tuple[subprocess.CompletedProcess[bytes], list[str]]:
    """(what became of it, the calls of its main thread)."""
    log = place.parent / "strace.out"
    options = [word for each in inject for word in ("-e", each)]
    command = ["strace", "-f", "--seccomp-bpf", "-y", "-o", str(log), "-e", f"trace={','.join(ERRORS)}", *options]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(place), "PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [*command, *PYDAMON, *arguments], cwd=place, env=environment, capture_output=True, check=False, timeout=120
    )
    text = log.read_text("utf-8", "replace").splitlines()
    main = text[0].split(" ", 1)[0] if text else ""
    return done, [line for line in text if line.startswith(f"{main} ")]


def _possible(lines: list[str], place: str) -> list[Fault]:
    """All faults of calls that concern files in the folder."""
    seen: dict[str, int] = {}
    found = []
    for line in lines:
        match = _CALL.match(line)
        if match is None or match[2] not in ERRORS:
            continue
        call = match[2]
        seen[call] = seen.get(call, 0) + 1
        if place in _ELSEWHERE.sub("", match[3]):
            found += [Fault(call, seen[call], error, match[3].replace(place, "")) for error in ERRORS[call]]
    return found


def _content(place: Path, makes: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.glob(makes))}


def _judged(
    fault: Fault,
    done: subprocess.CompletedProcess[bytes],
    place: Path,
    makes: str,
    before: dict[str, bytes],
    whole: dict[str, bytes],
) -> str:
    """What did not hold, or nothing."""
    said = done.stderr.decode("utf-8", "replace")
    failure = unforeseen(done.returncode, done.stderr) or _files(done.returncode, said, place, makes, before, whole)
    if not failure and done.returncode:
        failure = _words(fault, said)
    left = [each for each in os.listdir(place) if temporary.NAME.fullmatch(each)]
    if not failure and left and not fault.call.startswith(("unlink", "getdents", "openat", "newfstat")):
        failure = f"{left} is left"
    return failure and f"{fault}: {failure}; status {done.returncode}, said {said!r}"


def _files(status: int, said: str, place: Path, makes: str, before: dict[str, bytes], whole: dict[str, bytes]) -> str:
    found = _content(place, makes)
    if not makes.endswith("damon"):
        expected = whole if status == 0 else before
        return "" if found == expected else f"half-written, or not: {[(k, len(v)) for k, v in found.items()]}"
    if status == 0 and set(found) != set(whole):
        return f"made {sorted(found)}, not {sorted(whole)}"
    if not found or found == before:
        return "" if status else "nothing was made, and the status is 0"
    return _records(status, place, makes)


def _records(status: int, place: Path, makes: str) -> str:
    try:
        with open_record(str(place / makes)) as reader:
            snapshots = sum(1 for _ in reader.snapshots())
            damage = [line for line in reader.warnings() if "not closed" not in line]
    except PydamonError as error:
        return f"cannot be read: {error}"
    if damage:
        return f"damaged: {damage}"
    return "no snapshots" if status == 0 and not snapshots else ""


def _words(fault: Fault, said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("pydamon")]
    cause = os.strerror(getattr(errno, fault.error))
    if len(lines) != len(said.splitlines()) or not lines:
        return "something that is no message"
    if fault.call in _CAUSE_FREE:
        return ""
    causes = (cause.lower(), *_OTHER_WORDS.get(fault.error, ()))
    if not any(each in line.lower() for line in lines for each in causes):
        return f"the cause is not said ({cause})"
    names = ("out.", "r.damon", "t.csv")
    return "" if any(name in line for name in names for line in lines) else "no path is said"
