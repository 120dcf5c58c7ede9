"""The legacy debugfs files, as the seeds (and Linux 6.12, where they were last) use them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.damonfs.damonfs_helpers import FakeKdamond

from pydamon.damonfs.legacy import LegacyTree
from pydamon.damonfs.levels import level
from pydamon.damonfs.nodes import Directory
from pydamon.spec import Context

# A line of the seeds (18 numbers): 1 to 2 bytes, …, nohugepage, quotas, weights, watermarks.
SCHEME = "1 2 3 4 5 6 4 0 0 0 1 2 3 1 100 3 2 1"


class World:
    """A legacy tree whose kdamonds are known, without any process."""

    def __init__(self, name: str = "mm") -> None:
        self.kdamonds: list[FakeKdamond] = []
        self.records: list[str | None] = []
        self.tree = LegacyTree(level(name), make_start=self._make_start)

    def _make_start(self, *, record: Callable[[], str | None]) -> Callable[..., FakeKdamond]:
        def start(number: int, context: Context, *, every_sample: object, say: object) -> FakeKdamond:
            self.kdamonds.append(FakeKdamond(context))
            self.records.append(record())
            return self.kdamonds[-1]

        return start

    def read(self, name: str) -> str:
        return self.tree.read(f"/{name}")

    def error(self, name: str, text: str) -> int | None:
        try:
            self.tree.write(f"/{name}", text)
        except OSError as error:
            return error.errno
        return None

    def write(self, name: str, text: str) -> None:
        assert self.error(name, text) is None


@pytest.fixture
def world() -> World:
    return World()


def test_the_files_are_those_of_the_seeds_and_of_6_12(world: World) -> None:
    common = ["attrs", "target_ids", "init_regions", "schemes", "kdamond_pid", "mk_contexts", "rm_contexts"]
    assert world.tree.names("/") == [*common, "monitor_on", "record"]
    assert World("6.12").tree.names("/") == [*common, "monitor_on_DEPRECATED", "DEPRECATED"]
    assert world.read("attrs") == "5000 100000 60000000 10 1000\n"
    assert world.read("kdamond_pid") == "none\n"
    assert world.read("monitor_on") == "off\n"


def test_attrs_are_five_numbers(world: World) -> None:
    world.write("attrs", "5000 100000 1000000 10 1000\n")
    assert world.read("attrs") == "5000 100000 1000000 10 1000\n"
    for wrong in ("1 2 3 4", "1 2 3 5 4", "1 2 3 2 4", "2 1 3 4 5", "\n", "a b c d e", "1 2 3 4 -5", "1 2 3 4 5x"):
        assert world.error("attrs", wrong) == errno.EINVAL
    assert world.read("attrs") == "5000 100000 1000000 10 1000\n"


def test_targets_are_the_numbers_up_to_the_first_word(world: World) -> None:
    mine, parent = os.getpid(), os.getppid()
    world.write("target_ids", f"{mine} {parent} abc 4\n")
    assert world.read("target_ids") == f"{mine} {parent}\n"
    assert world.error("target_ids", f"{2**31 - 1}") == errno.ENOMEM  # the kernel's word for "no such process"
    assert world.error("target_ids", "-1") == errno.ENOMEM
    world.write("target_ids", "\n")
    assert world.read("target_ids") == "\n"
    world.write("target_ids", "paddr\n")
    assert world.read("target_ids") == "42\n"


def test_a_scheme_is_a_line_of_18_numbers_and_shows_what_it_did(world: World) -> None:
    world.write("schemes", f"{SCHEME}\n4096 8192 0 5 10 20 2 0 0 0 0 0 0 0 0 0 0 0\n1 2 3")
    assert world.read("schemes").splitlines() == [
        f"{SCHEME} 0 0 0 0 0",
        "4096 8192 0 5 10 20 2 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
    ]
    for wrong in (
        "2 1 2 1 10 1 3 10 1 1 1 1 1 1 1 1 2 3",  # minimum above maximum
        SCHEME.replace("5 6 4", "5 6 6"),  # no such action
        SCHEME.replace("100 3 2 1", "100 1 2 3"),  # watermarks in the wrong order
        f"{2**64}{SCHEME[1:]}",
    ):
        assert world.error("schemes", wrong) == errno.EINVAL
    assert len(world.read("schemes").splitlines()) == 2
    world.write("schemes", "\n")
    assert world.read("schemes") == ""


def test_only_the_beginning_of_a_file_can_be_written(world: World) -> None:
    with pytest.raises(OSError) as caught:
        world.tree.file("/schemes").write(b"3 4", 4)
    assert caught.value.errno == errno.EINVAL


def test_initial_regions_belong_to_targets(world: World) -> None:
    world.write("target_ids", f"{os.getpid()} {os.getppid()}")
    world.write("init_regions", "0 4096 8192\n0 8192 12288\n1 4096 8192\n")
    assert world.read("init_regions") == "0 4096 8192\n0 8192 12288\n1 4096 8192\n"
    for wrong in ("2 4096 8192", "0 8192 4096", "0 8192 12288 0 4096 8192", "-1 4096 8192"):
        assert world.error("init_regions", wrong) == errno.EINVAL
        assert world.read("init_regions") == ""  # as in the kernel


def test_monitor_on_starts_all_contexts_and_off_ends_them(world: World) -> None:
    assert world.error("monitor_on", "on") == errno.EINVAL  # no target
    assert world.error("monitor_on", "off") == errno.EPERM
    world.write("target_ids", str(os.getpid()))
    world.write("schemes", "0 4294967295 5 4294967295 0 4294967295 3 0 0 0 0 0 0 0 0 0 0 0")
    world.write("mk_contexts", "foo\n")
    assert isinstance(world.tree.find("/foo"), Directory)
    assert world.error("monitor_on", "on") == errno.EINVAL  # foo has none
    world.write("foo/target_ids", str(os.getppid()))
    world.write("monitor_on", "on\n")
    assert world.read("monitor_on") == "on\n"
    assert world.read("kdamond_pid") == "4242\n"
    asked = [kdamond.asked[0] for kdamond in world.kdamonds]
    assert [context.targets[0].pid for context in asked] == [os.getpid(), os.getppid()]
    assert [scheme.action for scheme in asked[0].schemes] == ["hugepage"]
    for name, text in (("attrs", "1 2 3 4 5"), ("target_ids", "\n"), ("schemes", "\n"), ("mk_contexts", "bar")):
        assert world.error(name, text) == errno.EBUSY
    assert world.error("monitor_on", "on") == errno.EBUSY
    assert world.error("monitor_on", "maybe") == errno.EINVAL
    world.kdamonds[0].schemes[0].stats.nr_tried = 7
    assert world.read("schemes").split()[18] == "7"
    world.write("monitor_on", "off")
    assert world.read("monitor_on") == "off\n"
    assert world.read("target_ids") == "\n"  # the targets go with the end, as in the kernel


def test_contexts_are_made_and_removed(world: World) -> None:
    world.write("mk_contexts", " foo \n")
    assert world.error("mk_contexts", "foo") == errno.EEXIST
    assert world.error("mk_contexts", "attrs") == errno.EEXIST
    assert world.error("mk_contexts", "a/b") == errno.EACCES
    assert world.error("mk_contexts", "..") == errno.EACCES
    assert world.error("mk_contexts", "x" * 256) == errno.ENAMETOOLONG
    assert world.error("rm_contexts", "attrs") == errno.EINVAL
    assert world.error("rm_contexts", "bar") == errno.ENOENT
    world.write("rm_contexts", "foo")
    assert "foo" not in world.tree.names("/")
    with pytest.raises(OSError) as caught:
        world.read("mk_contexts")
    assert caught.value.errno == errno.EINVAL


def test_record_names_a_file_for_a_record(world: World, tmp_path: Path) -> None:
    path = tmp_path / "damon.data"
    world.write("record", f"4096 {path}\n")
    assert world.read("record") == f"4096 {path}\n"
    for wrong in ("4096 damon.data", f"100 {path}", f"x {path}", "4096", f"4096 {tmp_path}/none/x"):
        assert world.error("record", wrong) == errno.EINVAL
    world.write("target_ids", str(os.getpid()))
    world.write("monitor_on", "on")
    assert world.records == [str(path)]
    assert world.error("record", f"0 {path}") == errno.EBUSY
    world.write("monitor_on", "off")
    world.write("record", "0")
    assert world.read("record") == "0 \n"
