"""Random bytes and random operations on every file of the tree, with real kdamonds behind it.

Two seconds of it in a normal run, from one seed. ``PYDAMON_FUZZ_SECONDS=60`` makes it longer, and a seed of its own
(``PYDAMON_FUZZ_SEED=$RANDOM``) another one.
"""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pydamon.damonfs.levels import NAMES, level
from pydamon.damonfs.nodes import Directory, File, Value
from pydamon.damonfs.runner import Running, Say, starter
from pydamon.damonfs.tree import DamonTree
from pydamon.errors import RequestError
from pydamon.spec import Context

SECONDS = float(os.environ.get("PYDAMON_FUZZ_SECONDS", "2"))
SEED = int(os.environ.get("PYDAMON_FUZZ_SEED", "1"))
WORDS = (
    b"on", b"on\n", b"off", b"commit", b"commit_schemes_quota_goals", b"update_schemes_stats",
    b"update_schemes_tried_regions\n", b"update_schemes_tried_bytes", b"clear_schemes_tried_regions",
    b"update_schemes_effective_quotas", b"update_tuned_intervals",
    b"vaddr", b"fvaddr", b"paddr", b"stat", b"cold", b"willneed", b"pageout", b"hugepage", b"migrate_hot", b"lru_prio",
    b"anon", b"addr", b"target", b"memcg", b"young", b"hugepage_size", b"free_mem_rate", b"none", b"user_input",
    b"some_mem_psi_us", b"node_mem_used_bp", b"temporal", b"Y", b"N", b"",
)  # fmt: skip
NUMBERS = (
    0,
    1,
    2,
    3,
    5,
    10,
    100,
    1000,
    4096,
    5000,
    10_000,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**63,
    2**64 - 1,
    2**64,
)
# What a write may be refused with.
REFUSALS = {errno.EINVAL, errno.ERANGE, errno.EBUSY, errno.ENOMEM, errno.ECANCELED, errno.EIO, errno.ENODEV}


class Fuzzer:
    """Does one random thing after the other to a tree."""

    def __init__(self, tree: DamonTree, pid: int, seed: int) -> None:
        self.tree = tree
        self.pid = pid
        self.random = random.Random(seed)
        self.done = self.taken = 0

    def content(self) -> bytes:
        kind = self.random.randrange(6)
        if kind == 0:
            return self.random.randbytes(self.random.choice((0, 1, 5, 40, 4096, 9000)))
        if kind == 1:
            return self.random.choice(WORDS)
        if kind == 2:
            return str(self.pid).encode()
        if kind == 3:
            return f"{self.random.choice(('-', '+', '0x', '0', ' '))}{self.random.choice(NUMBERS)}".encode()
        return f"{self.random.choice(NUMBERS)}\n".encode()

    def pick(self) -> tuple[str, File] | None:
        """A random file: down from the root, so that deep and shallow ones have their turn."""
        path, node = "", self.tree.root
        while True:
            names = node.names()
            name = self.random.choice(names)
            child = node.get(name)
            path += f"/{name}"
            if child is None:
                return None  # it has just gone
            if isinstance(child, File):
                return path, child
            assert isinstance(child, Directory)
            node = child

    def step(self) -> None:
        picked = self.pick()
        self.done += 1
        if picked is None:
            return
        path, file = picked
        if self.random.random() < 0.3:
            self.allowed(file.read)
            return
        content = self.content()
        if path.endswith("/state") and self.random.random() < 0.7:
            content = self.random.choice(WORDS[:11])
        elif "/nr_" in path and self.random.random() < 0.8:
            content = self.random.choice((b"0", b"1", b"2", b"3"))
        taken = self.allowed(lambda: file.write(content))
        if taken:
            self.taken += 1
            self.read_back(path, file)

    def read_back(self, path: str, file: File) -> None:
        """What was taken can be read, and written again as it was read."""
        shown: list[bytes] = []
        self.allowed(lambda: shown.append(file.read()))
        if shown and isinstance(file, Value) and not path.endswith("path"):
            assert len(shown[0].split(b"\n")) == 2, (path, shown)
            assert self.allowed(lambda: file.write(shown[0])), (path, shown)

    def allowed(self, action: Callable[[], object]) -> bool:
        """Whether the action worked; otherwise it must be with one of the known errors."""
        try:
            action()
        except OSError as error:
            assert error.errno in REFUSALS, error
            return error.errno == errno.ENODEV  # another thread took the file away: nobody's fault
        return True


@pytest.fixture(name="sleeper")
def sleeper_fixture() -> Iterator[int]:
    code = "import time; block = bytearray(8 << 20); print(flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.kill()


def start_only(pid: int) -> Callable[..., Running]:
    """Starts kdamonds for the process ``pid`` only: whatever is written, no other one is touched."""
    start = starter("auto")

    def guarded(number: int, context: Context, *, every_sample: Callable[[], object], say: Say) -> Running:
        if context.ops == "paddr" or any(target.pid != pid for target in context.targets):
            raise RequestError("is not to be touched by this test", where="targets")
        kdamond = start(number, context, every_sample=every_sample, say=say)
        commit = kdamond.commit

        def guarded_commit(context: Context) -> None:
            if context.ops == "paddr" or any(target.pid != pid for target in context.targets):
                raise RequestError("is not to be touched by this test", where="targets")
            commit(context)

        kdamond.commit = guarded_commit  # type: ignore[method-assign]
        return kdamond

    return guarded


def test_nothing_that_is_written_breaks_the_tree(sleeper: int) -> None:
    said: list[str] = []
    name = NAMES[SEED % len(NAMES)]
    tree = DamonTree(level(name), start=start_only(sleeper), avail_operations=lambda: ["vaddr"], say=said.append)
    failures: list[BaseException] = []
    fuzzers = [Fuzzer(tree, sleeper, SEED + number) for number in range(2)]
    until = time.monotonic() + SECONDS

    def work(fuzzer: Fuzzer) -> None:
        try:
            # However slow it is: not before enough has been taken.
            while (time.monotonic() < until or fuzzer.taken <= 50) and not failures:
                fuzzer.step()
                if fuzzer.done % 2000 == 0:
                    once_more(tree, sleeper, fuzzer)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(fuzzer,), daemon=True) for fuzzer in fuzzers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS + 120)
        assert not thread.is_alive(), f"it hangs; seed {SEED}"
    try:
        assert not failures, (SEED, failures)
        assert sum(fuzzer.taken for fuzzer in fuzzers) > 100
        assert not [line for line in said if " ended: " in line], (SEED, said)
        tree.close()
        answers(tree, sleeper)
    finally:
        tree.close()


def once_more(tree: DamonTree, pid: int, fuzzer: Fuzzer) -> None:
    """Something that runs, so that not only refused requests are met."""
    for controller in tree.controllers():
        controller.close()
    fuzzer.allowed(lambda: set_up(tree, pid))


def set_up(tree: DamonTree, pid: int) -> None:
    kdamond, context = "/admin/kdamonds/0", "/admin/kdamonds/0/contexts/0"
    try:
        for path, value in (
            ("/admin/kdamonds/nr_kdamonds", 1),
            (f"{kdamond}/contexts/nr_contexts", 1),
            (f"{context}/monitoring_attrs/intervals/aggr_us", 20_000),
            (f"{context}/targets/nr_targets", 1),
            (f"{context}/targets/0/pid_target", pid),
            (f"{context}/schemes/nr_schemes", 1),
            (f"{context}/schemes/0/access_pattern/sz/max", 2**64 - 1),
            (f"{context}/schemes/0/access_pattern/nr_accesses/max", 2**64 - 1),
            (f"{context}/schemes/0/access_pattern/age/max", 2**64 - 1),
            (f"{kdamond}/state", "on"),
        ):
            tree.write(path, value)
    except FileNotFoundError:
        raise OSError(errno.ENODEV, "another thread took it away") from None


def answers(tree: DamonTree, pid: int) -> None:
    """The engine still does what it is for."""
    set_up(tree, pid)
    tree.write("/admin/kdamonds/0/state", "update_schemes_tried_regions")
    total = tree.read("/admin/kdamonds/0/contexts/0/schemes/0/tried_regions/total_bytes")
    assert int(total) >= 8 << 20
