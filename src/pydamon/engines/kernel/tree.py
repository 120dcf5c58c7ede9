"""Writes a context into the kernel's DAMON tree, changes it while it runs, and takes it out again."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from pydamon.engines.kernel import layout
from pydamon.engines.kernel.layout import Scenery, Setting
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux import memcg
from pydamon.linux.damon_sysfs import NR_KDAMONDS, Tree
from pydamon.linux.mounts import mounts
from pydamon.ops.base import Ranges
from pydamon.spec import Context, Kdamond, Scheme
from pydamon.spec.address_units import to_units
from pydamon.spec.schemes import Filter

KDAMOND = "kdamonds/0"
CONTEXT = f"{KDAMOND}/contexts/0"
SCHEMES = f"{CONTEXT}/schemes"
STATE = f"{KDAMOND}/state"
PATH = "kdamonds[0].contexts[0]"  # of the context in the spec, for messages


@dataclass(slots=True)
class KernelTree:
    """Our one kdamond in the tree. ``extra`` gives schemes for so many targets, which follow those of the context, and
    are not the user's.

    ``running`` are the targets that the kernel has, by their numbers in the spec and in its order: those that became
    obsolete are not among them. ``unit`` is how many bytes one of the kernel's addresses and sizes stands for.
    """

    tree: Tree
    ranges: list[Ranges]
    extra: Callable[[int], tuple[Scheme, ...]] = lambda _: ()
    running: tuple[int, ...] = ()
    unit: int = 1

    def build(self, kdamond: Kdamond) -> None:
        """Make the kdamond with all that it and its context ask for, not yet running.

        Raises MachineError (the kernel lacks it) or RequestError, which name the field; the tree is empty then.
        """
        (context,) = kdamond.contexts
        self.running, self.unit = tuple(range(len(context.targets))), context.addr_unit
        try:
            self._write(NR_KDAMONDS, 1)
            self._write(f"{KDAMOND}/contexts/nr_contexts", 1)
            self._check_ops(context.ops)
            self._apply(layout.refresh_ms(kdamond, KDAMOND), PATH.partition(".")[0])
            self._apply(self._all(context))
        except BaseException:
            self.clear()
            raise

    def _all(self, context: Context) -> Iterator[Setting]:
        yield from layout.operations(context, CONTEXT)
        yield from layout.attributes(context, CONTEXT)
        yield from layout.probes(context.probes, CONTEXT, self._scenery())
        yield from layout.targets(context, CONTEXT, self.ranges)
        yield from self._schemes(context, self.running)

    def _schemes(self, context: Context, running: Sequence[int]) -> Iterator[Setting]:
        """The schemes, for a kernel that has these targets."""
        wanted = by_place(to_units(context.schemes, self.unit), running) + self.extra(len(running))
        return layout.schemes(wanted, CONTEXT, context.intervals, context.ops, self._scenery())

    def change(self, before: Context, after: Context) -> None:
        """Have a running kdamond go on as ``after``. Raises RequestError or MachineError, and it goes on as before."""
        staying = tuple(number for number in self.running if not after.targets[number].obsolete)
        try:
            self._write_obsolete(staying)
            self._write_anew(after, staying, probes=after.probes != before.probes)
            self.command("commit")
        except BaseException:
            # The files again as they were, so that the next commit begins there; that worked before.
            with contextlib.suppress(PydamonError):
                self._write_obsolete(self.running)
                self._write_anew(before, self.running, probes=after.probes != before.probes)
            raise
        if staying != self.running:
            self.running = staying
            # The kernel pairs directories with its targets by their order: the next commit must not meet the old ones.
            left = msgspec.structs.replace(after, targets=tuple(after.targets[number] for number in staying))
            self._apply(layout.targets(left, CONTEXT, [self.ranges[number] for number in staying]))

    def _write_obsolete(self, staying: Sequence[int]) -> None:
        """Which of the kernel's targets a commit is to take out: all but these."""
        self._apply(
            layout.obsolete(place, number, number not in staying, CONTEXT) for place, number in enumerate(self.running)
        )

    def set_current_value(self, scheme: int, goal: int, value: int) -> None:
        """Give a ``user_input`` goal its value, also in the running kdamond. Raises MachineError."""
        self._write(f"{SCHEMES}/{scheme}/quotas/goals/{goal}/current_value", value)
        self.command("commit_schemes_quota_goals")

    def command(self, text: str, patience_s: float | None = None) -> None:
        """Write to the state file; waits until the kdamond has done it. Raises MachineError."""
        try:
            self.tree.write(STATE, text, patience_s)
        except OSError as error:
            hint = ""
            if error.errno == errno.EINVAL:
                hint = "; it does not know it, or something does not fit together"
            elif error.errno == errno.EBUSY:
                hint = "; it, or another user of DAMON, is busy"
            raise MachineError(f"refuses {text!r}: {error.strerror}{hint}", where="the kernel's DAMON") from None

    def clear(self) -> None:
        """Take everything out; to be called when the kdamond does not run. Raises MachineError."""
        self._write(NR_KDAMONDS, 0)

    # -- writing ------------------------------------------------------------------------------------------------------

    def _write_anew(self, context: Context, running: Sequence[int], *, probes: bool) -> None:
        self._apply(layout.pause(context, CONTEXT))
        self._apply(layout.attributes(context, CONTEXT))
        if probes:
            self._apply(layout.probes(context.probes, CONTEXT, self._scenery()))
        # Always: what a pattern says in percent or seconds depends on the intervals.
        self._apply(self._schemes(context, running))

    def _check_ops(self, ops: str) -> None:
        offered = self.tree.read(f"{CONTEXT}/avail_operations").split() if self._has("avail_operations") else [ops]
        if ops not in offered:
            nearest = "the user engine" if ops != "paddr" else "vaddr, or the user engine"
            raise MachineError(
                f"is {ops}; this kernel's DAMON has only {', '.join(offered)}; nearest: {nearest}", where=f"{PATH}.ops"
            )

    def _has(self, name: str) -> bool:
        return self.tree.exists(f"{CONTEXT}/{name}")

    def _scenery(self) -> Scenery:
        return Scenery(exists=self.tree.exists, cgroup=kernel_cgroup, migrates_processes=self._migrates_processes())

    def _migrates_processes(self) -> bool:
        # Together with `dests`; only a scheme shows whether there are any.
        if not self.tree.exists(f"{SCHEMES}/0"):
            self._write(f"{SCHEMES}/nr_schemes", 1)
        return self.tree.exists(f"{SCHEMES}/0/dests")

    def _apply(self, settings: Iterable[Setting], of: str = PATH) -> None:
        """Write all of them; ``of`` is what in the spec their fields belong to."""
        try:
            for setting in settings:
                self._set(setting, of)
        except RequestError as error:
            if (error.where or "").startswith(PATH):
                raise
            raise RequestError(error.message, where=f"{PATH}.{error.where}") from None

    def _set(self, setting: Setting, of: str) -> None:
        where = f"{of}.{setting.field}"
        nearest = f"; nearest: {setting.nearest}" if setting.nearest else ""
        if not self.tree.exists(setting.path):
            if setting.value == setting.default:
                return
            since = f" (Linux {setting.since} has it)" if setting.since else ""
            name = setting.path.removeprefix(f"{CONTEXT}/").removeprefix(f"{KDAMOND}/")
            raise MachineError(f"this kernel's DAMON has no file {name} for it{since}{nearest}", where=where)
        try:
            self.tree.write(setting.path, setting.value)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise MachineError(
                    f"this kernel's DAMON knows no {setting.value!r} here{nearest}", where=where
                ) from None
            raise MachineError(f"{setting.value!r} cannot be written: {error.strerror}", where=where) from None

    def _write(self, path: str, value: int) -> None:
        try:
            self.tree.write(path, value)
        except OSError as error:
            hint = "; it needs root" if error.errno in (errno.EACCES, errno.EPERM) else ""
            raise MachineError(f"cannot be written: {error.strerror}{hint}", where=self.tree.path(path)) from None


def by_place(schemes: tuple[Scheme, ...], running: Sequence[int]) -> tuple[Scheme, ...]:
    """Schemes whose filters name targets by their places among those that run; of others by one that there is not."""

    def of(item: Filter) -> Filter:
        number = item.damon_target_idx
        if number is None:
            return item
        place = running.index(number) if number in running else max(len(running), number)
        return msgspec.structs.replace(item, damon_target_idx=place)

    return tuple(msgspec.structs.replace(one, filters=tuple(map(of, one.filters))) for one in schemes)


def kernel_cgroup(path: str) -> str:
    """What the kernel calls the cgroup ``path``: its path from the root of cgroup v2. Raises MachineError."""
    found = memcg.directory(path)
    for root in mounts("cgroup2"):
        if found.is_relative_to(root.resolve()):
            return "/" if found == root.resolve() else f"/{found.relative_to(root.resolve())}"
    raise MachineError("is not below a mount of cgroup v2", where=path)
