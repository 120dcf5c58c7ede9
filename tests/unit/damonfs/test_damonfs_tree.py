"""The tree as a program sees it: its files, what they take, and what ``state`` does with them."""

from __future__ import annotations

import errno
import itertools
from fractions import Fraction
from pathlib import Path

import pytest
from tests.unit.damonfs.damonfs_helpers import CONTEXT, KDAMOND, KDAMONDS, SCHEME, World, tried

from pydamon.damonfs.levels import NAMES, level
from pydamon.damonfs.nodes import Directory
from pydamon.errors import RequestError
from pydamon.spec import Intervals, IntervalsGoal
from pydamon.spec.probes import parse_probe

HERE = Path(__file__).parent


def listing(world: World) -> set[str]:
    """``mode type path`` of everything below ``admin``, as find(1) prints it."""
    lines = set()
    for path, node in world.tree.paths():
        if path.startswith("/admin"):
            kind = "d" if isinstance(node, Directory) else "f"
            lines.add(f"{node.mode:o} {kind} {path.removeprefix('/admin').lstrip('/')}".rstrip())
    return lines


class TestLayout:
    def test_it_is_that_of_linux_6_18(self) -> None:
        # find . -printf '%m %y %P\n' on a machine with Linux 6.18, one target with a region, two filters.
        wanted = set((HERE / "tree-6.18.txt").read_text().splitlines())
        world = World("6.18")
        world.one_of_each()
        world.write(f"{CONTEXT}/targets/0/regions/nr_regions", 1)
        world.write(f"{SCHEME}/ops_filters/nr_filters", 2)
        assert listing(world) == wanted

    def test_it_is_that_of_linux_6_12(self) -> None:
        # The same in the guest lab (6.12.117), with one of everything.
        wanted = set((HERE / "tree-6.12.txt").read_text().splitlines())
        world = World("6.12")
        world.one_of_each()
        for name in ("targets/0/regions/nr_regions", "schemes/0/filters/nr_filters", "schemes/0/quotas/goals/nr_goals"):
            world.write(f"{CONTEXT}/{name}", 1)
        assert listing(world) == wanted

    @pytest.mark.parametrize(("older", "newer"), list(itertools.pairwise(NAMES)))
    def test_a_newer_kernel_has_all_of_an_older_one(self, older: str, newer: str) -> None:
        trees = []
        for name in (older, newer):
            world = World(name)
            world.one_of_each()
            world.write(f"{SCHEME}/quotas/goals/nr_goals", 1)
            world.write(f"{SCHEME}/filters/nr_filters", 1)
            trees.append(listing(world))
        assert trees[0] <= trees[1]

    def test_what_came_later_is_not_in_6_12(self) -> None:
        world = World("6.12")
        world.one_of_each()
        names = {line.rpartition("/")[2] for line in listing(world)}
        later = {"refresh_ms", "intervals_goal", "core_filters", "dests", "addr_unit", "obsolete_target", "pause"}
        assert not names & later
        assert world.error(f"{KDAMOND}/state", "update_tuned_intervals") == errno.EINVAL

    def test_an_unknown_level_is_refused(self) -> None:
        with pytest.raises(RequestError, match=r"^level: '5.15' is not known; there are 6.12"):
            level("5.15")

    def test_new_files_hold_the_kernels_defaults(self) -> None:
        # Read from a new context of Linux 6.18.
        world = World()
        world.one_of_each()
        intervals = f"{CONTEXT}/monitoring_attrs/intervals"
        assert [world.read(f"{intervals}/{name}_us") for name in ("sample", "aggr", "update")] == [
            "5000\n",
            "100000\n",
            "60000000\n",
        ]
        assert world.read(f"{CONTEXT}/avail_operations") == "vaddr\nfvaddr\n"
        assert world.read(f"{CONTEXT}/operations") == "vaddr\n"
        assert world.read(f"{SCHEME}/action") == "stat\n"
        assert world.read(f"{SCHEME}/target_nid") == "-1\n"
        assert world.read(f"{KDAMOND}/state") == "off\n"
        assert world.read(f"{KDAMOND}/pid") == "-1\n"


class TestProbes:
    # The names of the files are those that damo 3.4.3 writes and reads (_damon_sysfs.py).
    PROBES = f"{CONTEXT}/monitoring_attrs/probes"

    def started(self, *more: tuple[str, str]) -> World:
        world = World()
        world.one_of_each()
        world.write(f"{self.PROBES}/nr_probes", 2)
        for probe in range(2):
            world.write(f"{self.PROBES}/{probe}/filters/nr_filters", 1)
            world.write(f"{self.PROBES}/{probe}/filters/0/matching", "Y")
            world.write(f"{self.PROBES}/{probe}/filters/0/allow", "Y")
        world.write(f"{self.PROBES}/1/filters/0/type", "memcg")
        world.write(f"{self.PROBES}/1/filters/0/path", "/a\n")
        for path, value in more:
            world.write(f"{self.PROBES}/{path}", value)
        return world

    def test_they_are_what_the_kdamond_counts(self) -> None:
        world = self.started()
        world.write(f"{KDAMOND}/state", "on")
        ((context, _),) = world.kdamonds[0].asked
        assert context.probes == (parse_probe("anon"), parse_probe("memcg=/a"))
        world.write(f"{self.PROBES}/nr_probes", 0)
        world.write(f"{KDAMOND}/state", "commit")
        assert world.kdamonds[0].asked[-1][0].probes == ()

    def test_more_than_can_be_counted_are_refused_when_turned_on(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{self.PROBES}/nr_probes", 5)
        assert world.error(f"{KDAMOND}/state", "on") == errno.EINVAL
        assert "the most is 4" in world.said[0]

    def test_a_cgroup_must_be_named(self) -> None:
        world = self.started(("1/filters/0/path", "\n"))
        assert world.error(f"{KDAMOND}/state", "on") == errno.EINVAL

    def test_a_type_must_be_known(self) -> None:
        world = self.started()
        for kind in ("young", "addr", "hugepage_size"):
            assert world.error(f"{self.PROBES}/0/filters/0/type", kind) == errno.EINVAL
        assert world.read(f"{self.PROBES}/1/filters/0/type") == "memcg\n"

    def test_kernels_that_are_released_have_none(self) -> None:
        world = World("7.1")
        world.one_of_each()
        assert not [line for line in listing(world) if "probes" in line]


class TestFiles:
    def test_a_refused_write_changes_nothing(self) -> None:
        world = World()
        world.one_of_each()
        path = f"{CONTEXT}/monitoring_attrs/nr_regions/max"
        world.write(path, "0x20\n")
        assert world.error(path, "1e3") == errno.EINVAL
        assert world.error(path, "99999999999999999999") == errno.ERANGE
        assert world.read(path) == "32\n"

    def test_some_files_have_no_ERANGE(self) -> None:
        world = World()
        world.one_of_each()
        for path in (f"{CONTEXT}/targets/0/pid_target", f"{SCHEME}/quotas/bytes"):
            assert world.error(path, "99999999999999999999") == errno.EINVAL

    def test_a_word_must_be_known(self) -> None:
        world = World()
        world.one_of_each()
        assert world.error(f"{SCHEME}/action", "pageout\n") is None
        assert world.error(f"{SCHEME}/action", "page out") == errno.EINVAL
        assert world.read(f"{SCHEME}/action") == "pageout\n"

    def test_a_path_is_kept_as_it_was_written(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{SCHEME}/filters/nr_filters", 1)
        world.write(f"{SCHEME}/filters/0/memcg_path", "/a b\n")
        assert world.read(f"{SCHEME}/filters/0/memcg_path") == "/a b\n\n"  # as the kernel shows it

    def test_filter_directories_take_their_types_only(self) -> None:
        world = World()
        world.one_of_each()
        for name in ("filters", "core_filters", "ops_filters"):
            world.write(f"{SCHEME}/{name}/nr_filters", 1)
        assert world.error(f"{SCHEME}/core_filters/0/type", "anon") == errno.EINVAL
        assert world.error(f"{SCHEME}/core_filters/0/type", "addr") is None
        assert world.error(f"{SCHEME}/ops_filters/0/type", "addr") == errno.EINVAL
        assert world.error(f"{SCHEME}/filters/0/type", "target") is None

    def test_only_a_page_of_a_write_is_taken(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{SCHEME}/filters/nr_filters", 1)
        assert world.tree.file(f"{SCHEME}/filters/0/memcg_path").write(b"x" * 5000) == 4096

    def test_an_empty_write_does_nothing(self) -> None:
        world = World()
        world.one_of_each()
        assert world.tree.file(f"{KDAMOND}/state").write(b"") == 0

    def test_there_is_nothing_beside_the_tree(self) -> None:
        world = World()
        for path, number in (
            ("/admin/x", errno.ENOENT),
            (f"{KDAMONDS}/0", errno.ENOENT),
            (f"{KDAMONDS}/nr_kdamonds/x", errno.ENOTDIR),
        ):
            with pytest.raises(OSError) as caught:
                world.tree.find(path)
            assert caught.value.errno == number
        assert world.error(KDAMONDS, "1") == errno.EISDIR


class TestCounts:
    def test_writing_a_number_makes_new_directories(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{SCHEME}/action", "cold")
        world.write(f"{CONTEXT}/schemes/nr_schemes", "2\n")
        assert world.tree.names(f"{CONTEXT}/schemes") == ["nr_schemes", "0", "1"]
        assert world.read(f"{SCHEME}/action") == "stat\n"
        world.write(f"{CONTEXT}/schemes/nr_schemes", 0)
        assert world.tree.names(f"{CONTEXT}/schemes") == ["nr_schemes"]

    def test_who_has_a_file_open_that_goes_gets_ENODEV(self) -> None:
        world = World()
        world.one_of_each()
        file = world.tree.file(f"{SCHEME}/quotas/weights/sz_permil")
        world.write(f"{KDAMONDS}/nr_kdamonds", 1)
        for action in (file.read, lambda: file.write(b"1")):
            with pytest.raises(OSError) as caught:
                action()
            assert caught.value.errno == errno.ENODEV

    def test_wrong_numbers(self) -> None:
        world = World()
        world.one_of_each()
        assert world.error(f"{CONTEXT}/schemes/nr_schemes", "-1") == errno.EINVAL
        assert world.error(f"{CONTEXT}/schemes/nr_schemes", "x") == errno.EINVAL
        assert world.error(f"{CONTEXT}/schemes/nr_schemes", "4294967296") == errno.ERANGE
        assert world.error(f"{KDAMOND}/contexts/nr_contexts", 2) == errno.EINVAL
        assert world.read(f"{CONTEXT}/schemes/nr_schemes") == "1\n"

    @pytest.mark.slow
    def test_memory_is_not_the_users_to_fill(self) -> None:
        world = World()
        world.one_of_each()
        assert world.error(f"{CONTEXT}/targets/0/regions/nr_regions", 2**31 - 1) == errno.ENOMEM
        assert world.error(f"{CONTEXT}/targets/nr_targets", 1000) is None
        made = 0
        while world.error(f"{CONTEXT}/targets/{made}/regions/nr_regions", 50_000) is None:
            made += 1
        assert made == 2  # of 150,000 nodes each: 400,000 is the limit
        assert world.read(f"{CONTEXT}/targets/{made}/regions/nr_regions") == "0\n"
        world.write(f"{CONTEXT}/targets/nr_targets", 1)  # gives all of it back
        assert world.error(f"{CONTEXT}/targets/0/regions/nr_regions", 100_000) is None

    def test_kdamonds_stay_while_one_runs(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{KDAMOND}/state", "on")
        assert world.error(f"{KDAMONDS}/nr_kdamonds", 2) == errno.EBUSY
        world.write(f"{KDAMOND}/state", "off")
        assert world.error(f"{KDAMONDS}/nr_kdamonds", 2) is None


class TestOnAndOff:
    def test_on_starts_what_the_files_say(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{CONTEXT}/monitoring_attrs/intervals/update_us", 0)
        for name, value in (("access_bp", 400), ("aggrs", 3), ("min_sample_us", 5000), ("max_sample_us", 10**7)):
            world.write(f"{CONTEXT}/monitoring_attrs/intervals/intervals_goal/{name}", value)
        world.write(f"{SCHEME}/access_pattern/age/max", 7)
        world.write(f"{KDAMOND}/state", "on\n")
        ((context, paused),) = world.kdamonds[0].asked
        assert (context.ops, [target.pid for target in context.targets], paused) == ("vaddr", [1], False)
        goal = IntervalsGoal(access_bp=400, aggrs=3, min_sample_us=5000, max_sample_us=10**7)
        # An update interval of 0 is "with every sample".
        assert context.intervals == Intervals(sample_us=5000, aggr_us=100_000, ops_update_us=5000, intervals_goal=goal)
        (scheme,) = context.schemes
        assert (scheme.action, scheme.access_pattern.age.max.value) == ("stat", Fraction(7))
        assert scheme.access_pattern.nr_accesses.max.value is None
        assert (world.read(f"{KDAMOND}/state"), world.read(f"{KDAMOND}/pid")) == ("on\n", "4242\n")

    def test_on_twice_is_EBUSY_and_off_without_on_an_error(self) -> None:
        world = World()
        world.one_of_each()
        assert world.error(f"{KDAMOND}/state", "off") == errno.EINVAL
        world.write(f"{KDAMOND}/state", "on")
        assert world.error(f"{KDAMOND}/state", "on") == errno.EBUSY
        world.write(f"{KDAMOND}/state", "off")
        assert world.error(f"{KDAMOND}/state", "off") == errno.EPERM
        assert (world.read(f"{KDAMOND}/state"), world.read(f"{KDAMOND}/pid")) == ("off\n", "-1\n")

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (f"{CONTEXT}/monitoring_attrs/nr_regions/min", 2),
            (f"{CONTEXT}/monitoring_attrs/nr_regions/max", 9),
            (f"{CONTEXT}/monitoring_attrs/intervals/aggr_us", 4999),
            (f"{CONTEXT}/targets/0/pid_target", 404),
            (f"{CONTEXT}/targets/0/pid_target", -1),
            (f"{CONTEXT}/addr_unit", 4096),
        ],
    )
    def test_what_cannot_be_is_EINVAL_and_the_reason_is_said(self, path: str, value: int) -> None:
        world = World()
        world.one_of_each()
        world.write(path, value)
        assert world.error(f"{KDAMOND}/state", "on") == errno.EINVAL
        assert world.said
        assert world.said[0].startswith("kdamond 0: on: ")
        assert world.read(f"{KDAMOND}/state") == "off\n"

    def test_a_goal_needs_a_target_value_to_start(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{SCHEME}/quotas/goals/nr_goals", 1)
        assert world.error(f"{KDAMOND}/state", "on") == errno.EINVAL
        world.write(f"{SCHEME}/quotas/goals/0/target_value", 10_000)
        assert world.error(f"{KDAMOND}/state", "on") is None
        world.write(f"{SCHEME}/quotas/goals/0/target_value", 0)
        assert world.error(f"{KDAMOND}/state", "commit") is None  # left out, as in the kernel
        assert world.kdamonds[0].asked[-1][0].schemes[0].quotas.goals == ()

    def test_a_range_that_is_none_matches_nothing(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{SCHEME}/access_pattern/age/min", 5)
        world.write(f"{SCHEME}/access_pattern/age/max", 4)
        world.write(f"{KDAMOND}/state", "on")
        pattern = world.kdamonds[0].asked[0][0].schemes[0].access_pattern
        assert pattern.sz_bytes.min == 2**64 - 1

    def test_regions_are_whole_pages(self) -> None:
        world = World()
        world.one_of_each()
        world.write(f"{CONTEXT}/targets/0/regions/nr_regions", 2)
        for number, (start, end) in enumerate(((4097, 8191), (8192, 12289))):
            world.write(f"{CONTEXT}/targets/0/regions/{number}/start", start)
            world.write(f"{CONTEXT}/targets/0/regions/{number}/end", end)
        world.write(f"{KDAMOND}/state", "on")
        (target,) = world.kdamonds[0].asked[0][0].targets
        assert [(region.start, region.end) for region in target.regions] == [(4096, 8192), (8192, 16384)]

    def test_commands_need_a_context_and_a_running_kdamond(self) -> None:
        world = World()
        world.write(f"{KDAMONDS}/nr_kdamonds", 1)
        assert world.error(f"{KDAMOND}/state", "on") == errno.EINVAL
        world.one_of_each()
        for word in ("commit", "update_schemes_stats", "update_schemes_tried_regions", "nonsense", ""):
            assert world.error(f"{KDAMOND}/state", f"{word}\n") == errno.EINVAL


class TestRunning:
    @pytest.fixture
    def world(self) -> World:
        world = World()
        world.one_of_each()
        world.write(f"{SCHEME}/quotas/bytes", 2**20)
        world.write(f"{SCHEME}/quotas/reset_interval_ms", 1000)
        world.write(f"{KDAMOND}/state", "on")
        return world

    def test_stats_are_told_when_asked(self, world: World) -> None:
        state = world.kdamonds[0].schemes[0]
        state.stats.nr_tried, state.stats.sz_applied, state.stats.qt_exceeds = 5, 4096, 2
        assert world.read(f"{SCHEME}/stats/nr_tried") == "0\n"
        world.write(f"{KDAMOND}/state", "update_schemes_stats\n")
        names = ("nr_tried", "sz_applied", "qt_exceeds")
        assert [world.read(f"{SCHEME}/stats/{name}") for name in names] == ["5\n", "4096\n", "2\n"]

    def test_tried_regions_become_directories(self, world: World) -> None:
        world.kdamonds[0].schemes[0].tried = [tried((0, 4096), (8192, 16384)), tried((2**47, 2**47 + 4096))]
        world.write(f"{KDAMOND}/state", "update_schemes_tried_regions")
        folder = f"{SCHEME}/tried_regions"
        assert world.tree.names(folder) == ["total_bytes", "0", "1", "2"]
        assert world.read(f"{folder}/total_bytes") == f"{4096 + 8192 + 4096}\n"
        fields = ("start", "end", "nr_accesses", "age", "sz_filter_passed")
        assert [world.read(f"{folder}/1/{name}") for name in fields] == [
            "8192\n",
            "16384\n",
            "1\n",
            "10\n",
            "8192\n",
        ]
        for name in ("3", "01", "-1", "x", "99999999999"):
            with pytest.raises(FileNotFoundError):
                world.tree.find(f"{folder}/{name}")
        opened = world.tree.file(f"{folder}/1/start")
        world.write(f"{KDAMOND}/state", "clear_schemes_tried_regions")
        assert world.tree.names(folder) == ["total_bytes"]
        assert world.read(f"{folder}/total_bytes") == "0\n"
        with pytest.raises(OSError) as caught:
            opened.read()
        assert caught.value.errno == errno.ENODEV

    def test_tried_regions_show_the_hits_of_probes(self, world: World) -> None:
        hits = [[20, 0], [1, 19]]
        world.kdamonds[0].schemes[0].tried = [tried((0, 4096), (8192, 16384), hits=hits), tried((2**47, 2**47 + 4096))]
        world.write(f"{KDAMOND}/state", "update_schemes_tried_regions")
        folder = f"{SCHEME}/tried_regions"
        assert [[world.read(f"{folder}/{region}/probes/{probe}/hits") for region in "01"] for probe in "01"] == [
            ["20\n", "0\n"],
            ["1\n", "19\n"],
        ]
        assert world.tree.names(f"{folder}/2/probes") == []

    def test_tried_bytes_come_without_regions(self, world: World) -> None:
        world.kdamonds[0].schemes[0].tried = [tried((0, 4096))]
        world.write(f"{KDAMOND}/state", "update_schemes_tried_bytes")
        assert world.tree.names(f"{SCHEME}/tried_regions") == ["total_bytes"]
        assert world.read(f"{SCHEME}/tried_regions/total_bytes") == "4096\n"

    def test_effective_quota_and_tuned_intervals(self, world: World) -> None:
        kdamond = world.kdamonds[0]
        kdamond.schemes[0].quota.esz = 12345
        kdamond.schemes[0].passes = 1
        kdamond.now = Intervals(sample_us=7000, aggr_us=140_000)
        world.write(f"{KDAMOND}/state", "update_schemes_effective_quotas")
        world.write(f"{KDAMOND}/state", "update_tuned_intervals")
        assert world.read(f"{SCHEME}/quotas/effective_bytes") == "12345\n"
        intervals = f"{CONTEXT}/monitoring_attrs/intervals"
        assert world.read(f"{intervals}/sample_us") == "7000\n"
        assert world.read(f"{intervals}/aggr_us") == "140000\n"

    def test_refresh_ms_tells_without_being_asked(self, world: World) -> None:
        world.kdamonds[0].schemes[0].stats.nr_tried = 9
        world.tick()
        assert world.read(f"{SCHEME}/stats/nr_tried") == "0\n"
        world.write(f"{KDAMOND}/refresh_ms", 1)
        world.tick()
        assert world.read(f"{SCHEME}/stats/nr_tried") == "9\n"

    def test_commit_hands_over_what_the_files_say_now(self, world: World) -> None:
        world.write(f"{CONTEXT}/monitoring_attrs/nr_regions/max", 77)
        world.write(f"{CONTEXT}/pause", "Y")
        world.write(f"{KDAMOND}/state", "commit")
        context, paused = world.kdamonds[0].asked[-1]
        assert (context.nr_regions.max, paused) == (77, True)

    def test_a_commit_that_is_refused_leaves_it_running(self, world: World) -> None:
        world.write(f"{CONTEXT}/targets/0/pid_target", 404)
        assert world.error(f"{KDAMOND}/state", "commit") == errno.EINVAL
        assert len(world.kdamonds[0].asked) == 1
        assert world.read(f"{KDAMOND}/state") == "on\n"

    def test_an_obsolete_target_goes_with_the_next_commit(self, world: World) -> None:
        world.write(f"{CONTEXT}/targets/nr_targets", 3)
        for number in range(3):
            world.write(f"{CONTEXT}/targets/{number}/pid_target", 10 + number)
        world.write(f"{CONTEXT}/targets/1/obsolete_target", "y")
        world.write(f"{KDAMOND}/state", "commit")
        assert [target.pid for target in world.kdamonds[0].asked[-1][0].targets] == [10, 12]

    def test_removed_schemes_are_passed_over(self, world: World) -> None:
        # The kernel's sysfs_update_removed_scheme_dir.sh: it once followed a pointer to the directory there.
        world.kdamonds[0].schemes[0].tried = [tried((0, 4096))]
        world.write(f"{CONTEXT}/schemes/nr_schemes", 0)
        for word in ("update_schemes_stats", "update_schemes_tried_regions", "clear_schemes_tried_regions"):
            assert world.error(f"{KDAMOND}/state", word) is None

    def test_goals_can_be_committed_alone(self, world: World) -> None:
        world.write(f"{KDAMOND}/state", "off")
        world.write(f"{SCHEME}/quotas/goals/nr_goals", 1)
        goal = f"{SCHEME}/quotas/goals/0"
        world.write(f"{goal}/target_value", 10_000)
        world.write(f"{KDAMOND}/state", "on")
        world.write(f"{goal}/current_value", 1234)
        world.write(f"{KDAMOND}/state", "commit_schemes_quota_goals")
        assert world.kdamonds[-1].goals == [(0, 0, 1234)]

    def test_one_command_at_a_time(self, world: World) -> None:
        with world.tree.exclusive():
            assert world.error(f"{KDAMOND}/state", "update_schemes_stats") == errno.EBUSY
            assert world.error(f"{CONTEXT}/schemes/nr_schemes", 1) == errno.EBUSY
            assert world.error(f"{SCHEME}/apply_interval_us", 5) is None  # a value needs nobody else to wait
