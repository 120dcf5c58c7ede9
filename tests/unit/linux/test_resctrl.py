"""Cache and bandwidth from a tree as the kernel lays it out: groups, values that are none, counters that start over."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pydamon.errors import MachineError, RequestError
from pydamon.linux import resctrl
from pydamon.linux.resctrl import OwnGroup, Reading, Resctrl, group_of, probe, read_group
from pydamon.records.side_tables import TABLES

# Domain → occupancy, total, local: the texts of the three files, None where there is no such file.
Values = dict[int, tuple[object, object, object]]


class Tree:
    """A resctrl mount and a /proc, both below a directory of the test."""

    def __init__(self, path: Path) -> None:
        self.mount, self.proc = path / "resctrl", path / "proc"
        (self.mount / "info" / "L3_MON").mkdir(parents=True)
        self.proc.mkdir()
        self.group("", {0: (100, 200, 50), 1: (101, 201, 51)}, tasks=[1, 77])

    def group(self, name: str, values: Values, tasks: list[int]) -> Path:
        path = self.mount / name
        (path / "mon_groups").mkdir(parents=True, exist_ok=True)
        (path / "tasks").write_text("".join(f"{task}\n" for task in tasks))
        for domain, texts in values.items():
            data = path / "mon_data" / f"mon_L3_{domain:02}"
            data.mkdir(parents=True, exist_ok=True)
            for event, text in zip(("llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"), texts, strict=True):
                if text is not None:
                    (data / event).write_text(f"{text}\n")
        return path

    def process(self, pid: int, groups: str | None = None, threads: tuple[int, ...] = ()) -> None:
        for thread in threads or (pid,):
            (self.proc / str(pid) / "task" / str(thread)).mkdir(parents=True)
        if groups is not None:
            (self.proc / str(pid) / "cpu_resctrl_groups").write_text(groups)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def rows(source: Resctrl, pids: dict[int, int]) -> list[tuple[Any, ...]]:
    found = source.rows(5, pids)
    assert all(list(row) == list(TABLES["resctrl"].schema.names) and row["time_ns"] == 5 for row in found)
    return [tuple(row.values())[1:] for row in found]


class TestProbe:
    MOUNTED = "40 30 0:50 / {} rw,relatime shared:20 - resctrl resctrl rw\n"

    def test_what_is_missing_is_said(self, tree: Tree) -> None:
        with pytest.raises(MachineError, match="kernel lacks it"):
            probe("", "nodev\tsysfs\nnodev\tcgroup2\n")
        with pytest.raises(MachineError, match="is not mounted; as root: mount -t resctrl"):
            probe("", "nodev\tsysfs\nnodev\tresctrl\n")
        mountinfo = self.MOUNTED.format(tree.mount)
        assert probe(mountinfo) == tree.mount
        shutil.rmtree(tree.mount / "mon_data")
        with pytest.raises(MachineError, match="no permission"):
            probe(mountinfo)
        shutil.rmtree(tree.mount / "info" / "L3_MON")
        with pytest.raises(MachineError, match="can allocate, but not monitor"):
            probe(mountinfo)

    def test_this_machine_gets_an_answer(self) -> None:
        try:
            assert probe().is_dir()
        except MachineError as error:
            assert error.where == "resctrl"


class TestGroupOf:
    @pytest.mark.parametrize(
        ("text", "name"),
        [  # the cases that the comment above the kernel's proc_resctrl_show lists
            ("res:/\nmon:\n", ""),
            ("res:/\nmon:mon0\n", "mon_groups/mon0"),
            ("res:group0\nmon:\n", "group0"),
            ("res:group0\nmon:mon1\n", "group0/mon_groups/mon1"),
        ],
    )
    def test_as_the_kernel_tells_it(self, tree: Tree, text: str, name: str) -> None:
        tree.process(5, text)
        assert group_of(5, tree.mount, tree.proc) == tree.mount / name

    def test_not_available(self, tree: Tree) -> None:
        tree.process(5, "res:\nmon:\n")
        assert group_of(5, tree.mount, tree.proc) is None

    def test_else_the_smallest_group_that_lists_it(self, tree: Tree) -> None:
        tree.group("group0", {}, [5, 6])
        tree.group("group0/mon_groups/mon1", {}, [6])
        tree.group("mon_groups/mon0", {}, [7])
        tree.group("", {}, [1, 7])
        found = [group_of(pid, tree.mount, tree.proc) for pid in (1, 5, 6, 7, 8)]
        names = ["", "group0", "group0/mon_groups/mon1", "mon_groups/mon0"]
        assert found == [*(tree.mount / name for name in names), None]


def test_values_that_are_none_read_as_none(tree: Tree) -> None:
    group = tree.group(
        "mon_groups/a",
        {3: ("Unavailable", "Error", "Unassigned"), 0: (1, None, ""), 10: (0, 18446744073709551615, 7)},
        [5],
    )
    (group / "mon_data" / "mon_PERF_PKG_00").mkdir()
    assert read_group(group) == [Reading(0, 1, None, None), Reading(3, None, None, None), Reading(10, 0, 2**64 - 1, 7)]
    assert read_group(tree.mount / "gone") == []


class TestRows:
    def test_bandwidth_counts_from_the_first_row_on(self, tree: Tree) -> None:
        tree.process(5, "res:/\nmon:a\n")
        tree.group("mon_groups/a", {0: (1000, 10_000, 7_000), 1: (0, 0, 0)}, [5])
        source = Resctrl(tree.mount, tree.proc)
        assert rows(source, {4: 5}) == [(4, "mon_groups/a", 0, 1000, 0, 0), (4, "mon_groups/a", 1, 0, 0, 0)]
        tree.group("mon_groups/a", {0: (900, 10_500, "Unavailable"), 1: ("Error", 64, 64)}, [5])
        assert rows(source, {4: 5}) == [(4, "mon_groups/a", 0, 900, 500, None), (4, "mon_groups/a", 1, None, 64, 64)]
        tree.group("mon_groups/a", {0: (900, 10_600, 7_100), 1: (5, 64, 64)}, [5])
        assert rows(source, {4: 5}) == [(4, "mon_groups/a", 0, 900, 600, 100), (4, "mon_groups/a", 1, 5, 64, 64)]

    def test_a_counter_wraps_or_starts_over(self, tree: Tree) -> None:
        tree.process(5, "res:/\nmon:a\n")
        source = Resctrl(tree.mount, tree.proc)
        seen = []
        for total, local in ((2**64 - 100, 1000), (50, 1400), (60, 30), (70, 40)):
            tree.group("mon_groups/a", {0: (0, total, local)}, [5])
            seen += [row[4:] for row in rows(source, {0: 5})]
        assert seen == [(0, 0), (150, 400), (160, 430), (170, 440)]

    def test_another_group_adds_nothing_by_itself(self, tree: Tree) -> None:
        tree.process(5, "res:/\nmon:a\n")
        tree.group("mon_groups/a", {0: (0, 1000, 1000)}, [5])
        tree.group("mon_groups/b", {0: (0, 90_000, 90_000)}, [5])
        source = Resctrl(tree.mount, tree.proc)
        rows(source, {0: 5})
        (tree.proc / "5" / "cpu_resctrl_groups").write_text("res:/\nmon:b\n")
        assert rows(source, {0: 5}) == [(0, "mon_groups/b", 0, 0, 0, 0)]
        tree.group("mon_groups/b", {0: (0, 90_010, 90_001)}, [5])
        assert rows(source, {0: 5}) == [(0, "mon_groups/b", 0, 0, 10, 1)]

    def test_a_group_with_others_is_said_once(self, tree: Tree) -> None:
        tree.process(77, "res:/\nmon:\n", threads=(77, 78))
        tree.process(5, "res:/\nmon:a\n", threads=(5, 6))
        tree.group("mon_groups/a", {}, [5, 6])
        tree.group("", {}, [1, 77, 78, 99])
        source = Resctrl(tree.mount, tree.proc)
        for _ in range(3):
            source.rows(0, {0: 77, 1: 5})
        assert source.notices == [
            "resctrl: process 77 is in the default group with 2 threads of others, which its numbers include"
        ]

    def test_what_has_ended_or_lost_its_group_has_no_rows(self, tree: Tree) -> None:
        source = Resctrl(tree.mount, tree.proc)
        tree.process(5, "res:/\nmon:gone\n")
        assert rows(source, {0: 5, 1: 6}) == []
        assert rows(source, {}) == []


class TestOwnGroup:
    @pytest.fixture
    def kernel(self, tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
        """Directories that behave like the kernel's: made with their files, removed with them."""
        mkdir = Path.mkdir

        def make(path: Path, *args: Any, **kwargs: Any) -> None:
            mkdir(path, *args, **kwargs)
            (path / "tasks").touch()

        rmdir = os.rmdir

        def remove(path: Path) -> None:
            (path / "tasks").unlink(missing_ok=True)
            rmdir(path)

        monkeypatch.setattr(resctrl, "group_of", lambda pid, mount: tree.mount / "group0" / "mon_groups" / "x")
        (tree.mount / "group0" / "mon_groups").mkdir(parents=True)
        monkeypatch.setattr(Path, "mkdir", make)
        monkeypatch.setattr(os, "rmdir", remove)
        return tree

    def test_is_made_beside_the_old_one_and_taken_away(self, kernel: Tree) -> None:
        group = OwnGroup(5, kernel.mount)
        assert group.path == kernel.mount / "group0" / "mon_groups" / f"pydamon-{os.getpid()}-5"
        assert (group.path / "tasks").read_text() == "5\n"
        group.close()
        assert not group.path.exists()
        group.close()

    def test_a_process_that_has_ended_leaves_no_group(self, kernel: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        def write(fd: int, data: bytes) -> int:
            raise ProcessLookupError(3, "No such process")

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(RequestError, match="process 5 has ended"):
            OwnGroup(5, kernel.mount)
        assert list((kernel.mount / "group0" / "mon_groups").iterdir()) == []

    def test_no_free_group(self, kernel: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(path: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "mkdir", full)
        with pytest.raises(MachineError, match="there is no free monitoring group"):
            OwnGroup(5, kernel.mount)
