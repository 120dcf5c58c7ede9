"""The legacy debugfs files (``attrs``, ``target_ids``, ``schemes``, ``monitor_on``, …), as text over a context each.

Behind every context lies a `DamonTree` with one kdamond that nobody sees: a line of text becomes its files, and
``monitor_on`` its ``state``.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from pydamon.damonfs import formats
from pydamon.damonfs.formats import U32_MAX, U64_MAX, fail
from pydamon.damonfs.levels import Level
from pydamon.damonfs.nodes import Computed, Directory, Node, Tree
from pydamon.damonfs.runner import Start
from pydamon.damonfs.tree import DamonTree
from pydamon.errors import PydamonError
from pydamon.records.writer import check_output
from pydamon.spec.actions import DEBUGFS_ACTIONS
from pydamon.spec.damon_files import READ_ONLY, files_in


class MakeStart(Protocol):
    """Makes what opens kdamonds; ``record`` says where each is to write a record, if anywhere (`runner.starter`)."""

    def __call__(self, *, record: Callable[[], str | None]) -> Start: ...


_LAST: tuple[int, int] = (6, 12)  # the level at which the names say that it is deprecated
_MOST_CONTEXTS = 256
_MOST_TARGETS = 32
_RECORD_SIZES = range(4096, 4 * 1024 * 1024 + 1)
_METRICS = ("none", "free_mem_rate")
# The numbers of a line of `schemes`, in order; those of 32 bits wrap around in the kernel and are refused here.
_SCHEME = (
    "access_pattern/sz/min", "access_pattern/sz/max", "access_pattern/nr_accesses/min",
    "access_pattern/nr_accesses/max", "access_pattern/age/min", "access_pattern/age/max", "action", "quotas/ms",
    "quotas/bytes", "quotas/reset_interval_ms", "quotas/weights/sz_permil", "quotas/weights/nr_accesses_permil",
    "quotas/weights/age_permil", "watermarks/metric", "watermarks/interval_us", "watermarks/high", "watermarks/mid",
    "watermarks/low",
)  # fmt: skip
_STATS = [file.name for file in files_in("schemes/*/stats") if file.mode == READ_ONLY and Level(_LAST).has(file)]
_ATTRS = ("intervals/sample_us", "intervals/aggr_us", "intervals/update_us", "nr_regions/min", "nr_regions/max")
_KDAMOND = "/admin/kdamonds/0"
_CONTEXT = f"{_KDAMOND}/contexts/0"
_NOTICE = "DAMON's debugfs interface was deprecated, and removed in Linux 6.15; the sysfs interface has all of it.\n"
_NUMBER = re.compile(r"\s*(-?[0-9]{1,30})(?=\s|$)", re.ASCII)


def _numbers(text: str, *, most: int | None = None) -> list[int]:
    """The whole numbers at the beginning of ``text``, until something else comes."""
    found: list[int] = []
    at = 0
    while (most is None or len(found) < most) and (match := _NUMBER.match(text, at)) is not None:
        found.append(int(match[1]))
        at = match.end()
    return found


class _File(Computed):
    """A file of debugfs: one that has no reader says EINVAL, and a write goes to the beginning only."""

    __slots__ = ()

    def show(self) -> str:
        if self._show is None:
            fail(errno.EINVAL)
        return super().show()

    def read(self) -> bytes:
        return self.show().encode("latin-1")  # not bound to a page

    def write(self, data: bytes, offset: int = 0) -> int:
        if offset:
            fail(errno.EINVAL)
        return super().write(data)

    def store(self, data: bytes) -> None:
        if self._store is None:
            fail(errno.EINVAL)
        super().store(data)


class _Context:
    """One context: its files, and the kdamond behind them."""

    def __init__(self, level: Level, make_start: MakeStart, say: Callable[[str], object]) -> None:
        self.record: str | None = None
        self.record_size = 0
        start = make_start(record=lambda: self.record)
        self._hidden = DamonTree(level, start=start, avail_operations=list, say=say)
        self._hidden.write("/admin/kdamonds/nr_kdamonds", 1)
        self._hidden.write(f"{_KDAMOND}/contexts/nr_contexts", 1)
        (self._controller,) = self._hidden.controllers()
        self._had_targets = False

    def files(self) -> dict[str, Node]:
        """The context's files."""
        return {
            "attrs": _File(self._show_attrs, self._store_attrs),
            "target_ids": _File(self._show_targets, self._store_targets),
            "init_regions": _File(self._show_regions, self._store_regions),
            "schemes": _File(self._show_schemes, self._store_schemes),
            "kdamond_pid": _File(self._show_pid, mode=0o600),
        }

    # -- on and off ---------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it is monitored; the targets go when that ends."""
        running = self._controller.running
        if self._had_targets and not running:
            with contextlib.suppress(OSError):  # somebody else is about to do so
                if self._ops != "paddr":
                    self._hidden.write(f"{_CONTEXT}/targets/nr_targets", 0)
                self._had_targets = False
        return running

    @property
    def has_targets(self) -> bool:
        """Whether there is something to monitor."""
        return self._number("targets/nr_targets") > 0

    def on(self) -> None:
        """Monitor; raises OSError."""
        self._hidden.write(f"{_KDAMOND}/state", "on")
        self._had_targets = True

    def off(self) -> None:
        """Stop; raises OSError if it does not run."""
        self._hidden.write(f"{_KDAMOND}/state", "off")

    def close(self) -> None:
        """Stop if it runs."""
        self._hidden.close()

    def refuse_if_running(self) -> None:
        """EBUSY while it is monitored."""
        if self.running:
            fail(errno.EBUSY)

    # -- files --------------------------------------------------------------------------------------------------

    def _write(self, name: str, value: object) -> None:
        self._hidden.write(f"{_CONTEXT}/{name}", str(value))

    def _read(self, name: str) -> str:
        return self._hidden.read(f"{_CONTEXT}/{name}").strip("\n")

    def _number(self, name: str) -> int:
        return int(self._read(name))

    @property
    def _ops(self) -> str:
        return self._read("operations")

    def _show_attrs(self) -> str:
        return " ".join(self._read(f"monitoring_attrs/{name}") for name in _ATTRS) + "\n"

    def _store_attrs(self, data: bytes) -> None:
        numbers = _numbers(formats.text(data), most=5)
        if len(numbers) != 5 or not all(0 <= number <= U64_MAX for number in numbers):
            fail(errno.EINVAL)
        self.refuse_if_running()
        sample, aggr, _, least, most = numbers
        if sample > aggr or not 3 <= least <= most:
            fail(errno.EINVAL)
        for name, number in zip(_ATTRS, numbers, strict=True):
            self._write(f"monitoring_attrs/{name}", number)

    def _pids(self) -> list[str]:
        _ = self.running
        if self._ops == "paddr":
            return ["42"]  # what the kernel says there
        return [self._read(f"targets/{number}/pid_target") for number in range(self._number("targets/nr_targets"))]

    def _show_targets(self) -> str:
        return " ".join(self._pids() if self.has_targets else []) + "\n"

    def _store_targets(self, data: bytes) -> None:
        words = formats.text(data)
        physical = words in ("paddr", "paddr\n")
        pids = [] if physical else _numbers(words, most=_MOST_TARGETS)
        if not all(0 < pid < 2**31 and os.path.exists(f"/proc/{pid}") for pid in pids):
            fail(errno.ENOMEM)  # the kernel's word for a process that does not exist
        self.refuse_if_running()
        self._write("operations", "paddr" if physical else "vaddr")
        self._write("targets/nr_targets", 1 if physical else len(pids))
        for number, pid in enumerate(pids):
            self._write(f"targets/{number}/pid_target", pid)

    def _show_regions(self) -> str:
        self.refuse_if_running()
        lines = []
        for target in range(self._number("targets/nr_targets")):
            regions = f"targets/{target}/regions"
            for number in range(self._number(f"{regions}/nr_regions")):
                start, end = (self._read(f"{regions}/{number}/{name}") for name in ("start", "end"))
                lines.append(f"{target} {start} {end}\n")
        return "".join(lines)

    def _store_regions(self, data: bytes) -> None:
        self.refuse_if_running()
        nr_targets = self._number("targets/nr_targets")
        wanted: list[list[tuple[int, int]]] = [[] for _ in range(nr_targets)]
        numbers = _numbers(formats.text(data))
        right = True
        for target, start, end in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=False):
            right = right and 0 <= target < nr_targets and 0 <= start < end <= U64_MAX
            right = right and not (wanted[target] and wanted[target][-1][1] > start)
            if right:
                wanted[target].append((start, end))
        for target, ranges in enumerate(wanted):
            regions = f"targets/{target}/regions"
            self._write(f"{regions}/nr_regions", len(ranges) if right else 0)
            for number, (start, end) in enumerate(ranges if right else []):
                self._write(f"{regions}/{number}/start", start)
                self._write(f"{regions}/{number}/end", end)
        if not right:
            fail(errno.EINVAL)

    def _show_schemes(self) -> str:
        if self.running:
            self._hidden.write(f"{_KDAMOND}/state", "update_schemes_stats")
        lines = []
        for number in range(self._number("schemes/nr_schemes")):
            names = [*_SCHEME, *(f"stats/{name}" for name in _STATS)]
            fields = {name: self._read(f"schemes/{number}/{name}") for name in names}
            fields["action"] = str(DEBUGFS_ACTIONS.index(fields["action"]))
            fields["watermarks/metric"] = str(_METRICS.index(fields["watermarks/metric"]))
            lines.append(" ".join(fields.values()) + "\n")
        return "".join(lines)

    def _store_schemes(self, data: bytes) -> None:
        numbers = _numbers(formats.text(data))
        count = len(_SCHEME)
        # What follows the last whole scheme does not count.
        lines = [numbers[at : at + count] for at in range(0, len(numbers) - count + 1, count)][:_MOST_CONTEXTS]
        for line in lines:
            _check_scheme(line)
        self.refuse_if_running()
        self._write("schemes/nr_schemes", len(lines))
        for number, line in enumerate(lines):
            for name, value in zip(_SCHEME, line, strict=True):
                words = {"action": DEBUGFS_ACTIONS, "watermarks/metric": _METRICS}.get(name)
                self._write(f"schemes/{number}/{name}", value if words is None else words[value])

    def _show_pid(self) -> str:
        return f"{self._controller.pid}\n" if self.running else "none\n"


def _check_scheme(line: Sequence[int]) -> None:
    """Raise OSError EINVAL for numbers that are no scheme."""
    sizes, rates, ages = line[0:2], line[2:4], line[4:6]
    high, mid, low = line[15:18]
    if (
        not all(0 <= value <= U64_MAX for value in line)
        or any(value > U32_MAX for value in (*rates, *ages, *line[10:13]))
        or any(pair[0] > pair[1] for pair in (sizes, rates, ages))
        or line[6] >= len(DEBUGFS_ACTIONS)
        or line[13] >= len(_METRICS)
        or not high >= mid >= low
    ):
        fail(errno.EINVAL)


class LegacyTree(Tree):
    """The directory ``damon`` of debugfs. At level 6.12 ``monitor_on`` is called as in that kernel, and there is no
    ``record``; otherwise the files are those of the patches before. ``record`` makes pydamon's records."""

    file_size = 0

    def __init__(
        self, level: Level, *, make_start: MakeStart, say: Callable[[str], object] = lambda line: None
    ) -> None:
        self._make = functools.partial(_Context, level, make_start, say)
        self._say = say
        self._lock = threading.Lock()
        first = self._make()
        self._contexts: dict[str, _Context] = {"": first}
        switch = _File(self._show_on, self._store_on)
        files: dict[str, Node] = {
            **first.files(),
            "mk_contexts": _File(None, self._make_context),
            "rm_contexts": _File(None, self._remove_context),
        }
        if level.version == _LAST:
            files |= {"monitor_on_DEPRECATED": switch, "DEPRECATED": _File(lambda: _NOTICE)}
        else:
            files |= {"monitor_on": switch, "record": _File(self._show_record, self._store_record)}
        super().__init__(Directory(files))

    def close(self) -> None:
        """Stop everything."""
        for context in list(self._contexts.values()):
            context.close()

    @property
    def _running(self) -> bool:
        running = [context.running for context in list(self._contexts.values())]  # each notices its end
        return any(running)

    def _show_on(self) -> str:
        return "on\n" if self._running else "off\n"

    def _store_on(self, data: bytes) -> None:
        word = formats.text(data).strip()
        with self._lock:
            if word == "off":
                self._turn_off()
            elif word == "on":
                self._turn_on()
            else:
                fail(errno.EINVAL)

    def _turn_on(self) -> None:
        contexts = list(self._contexts.values())
        if not all(context.has_targets for context in contexts):
            fail(errno.EINVAL)
        if self._running:
            fail(errno.EBUSY)
        try:
            for context in contexts:
                context.on()
        except OSError:
            for context in contexts:
                context.close()
            raise

    def _turn_off(self) -> None:
        if not self._running:
            fail(errno.EPERM)
        self.close()

    def _name(self, data: bytes) -> str:
        words = formats.text(data).split()
        if not words:
            fail(errno.EINVAL)
        if "/" in words[0] or words[0] in (".", ".."):
            fail(errno.EACCES)
        if len(words[0]) > 255:
            fail(errno.ENAMETOOLONG)
        return words[0]

    def _make_context(self, data: bytes) -> None:
        name = self._name(data)
        with self._lock:
            if self._running:
                fail(errno.EBUSY)
            if name in self.root:
                fail(errno.EEXIST)
            if len(self._contexts) >= _MOST_CONTEXTS:
                fail(errno.ENOMEM)
            context = self._make()
            self._contexts[name] = context
            self.root.replace(self._children() | {name: Directory(context.files())})

    def _remove_context(self, data: bytes) -> None:
        name = self._name(data)
        with self._lock:
            if self._running:
                fail(errno.EBUSY)
            node = self.root.get(name)
            if node is None:
                fail(errno.ENOENT)
            if not isinstance(node, Directory):
                fail(errno.EINVAL)
            children = self._children()
            del children[name], self._contexts[name]
            self.root.replace(children)

    def _children(self) -> dict[str, Node]:
        return {name: node for name in self.root.names() if (node := self.root.get(name)) is not None}

    def _show_record(self) -> str:
        first = self._contexts[""]
        return f"{first.record_size} {first.record or ''}\n"

    def _store_record(self, data: bytes) -> None:
        """``SIZE PATH``: the size of the buffer (0: no record), which does not matter here, and an absolute path."""
        size, _, path = formats.text(data).strip().partition(" ")
        number = _numbers(size, most=1)
        if not number or (number[0] and (number[0] not in _RECORD_SIZES or not path.startswith("/"))):
            fail(errno.EINVAL)
        first = self._contexts[""]
        first.refuse_if_running()
        if number[0]:
            try:
                check_output(path, keep_old=True)
            except PydamonError as error:
                self._say(f"record: {error}")
                fail(errno.EINVAL)
        first.record_size, first.record = number[0], path if number[0] else None
