"""``pydamon tune`` and the library call, with real daemons that run anywhere: through smaps, or over a simulation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.command import only_line, pydamon
from tests.helpers.waiting import wait_until
from tests.integration.service_helpers import (  # noqa: F401 - fixtures
    AN_HOUR,
    SIM,
    SMAPS,
    runtime_fixture,
    sleeper_fixture,
    start,
)

from pydamon.errors import PydamonError, RequestError
from pydamon.service.client import Client, running


class TestTune:
    def test_parameters_change_and_regions_stay(self) -> None:
        start(*SIM, "--min-regions", "100")
        wait_until(lambda: Client().status()["snapshots"] > 3)
        before = Client().status()
        # However long it takes until it is asked, no aggregation with the new bounds has come to its end.
        bounds = ("--max-regions", "500", "--min-regions", "20")
        done = pydamon("tune", "--sample", "10ms", "--aggr", "30m", *bounds)
        assert done.returncode == 0, done.stderr
        assert "samples every 10 ms, aggregates every 30 min" in done.stdout
        wait_until(lambda: not Client().status()["commit_pending"])
        after = Client().status()
        assert after["intervals"]["aggr_us"] == 1_800_000_000
        assert after["nr_regions"] == {"min": 20, "max": 500}
        assert after["regions"] > 50 < before["regions"]
        assert after["snapshots"] >= before["snapshots"]

    def test_a_long_interval_is_not_waited_for(self, sleeper: int) -> None:
        start("--primitive", "smaps", "--sample", "60s", "--aggr", "60s", str(sleeper))
        Client().tune(sample_us=10_000, aggr_us=50_000)
        wait_until(lambda: Client().status()["snapshots"] > 0)

    def test_changes_that_follow_each_other_add_up(self, sleeper: int) -> None:
        start("--primitive", "smaps", "--sample", "60s", "--aggr", "60s", str(sleeper))
        Client().tune(update_us=7_000_000)
        Client().tune(max_regions=444)
        Client().tune(sample_us=20_000, aggr_us=100_000)
        wait_until(lambda: not Client().status()["commit_pending"])
        status = Client().status()
        assert status["intervals"]["ops_update_us"] == 7_000_000
        assert status["intervals"]["sample_us"] == 20_000
        assert status["nr_regions"]["max"] == 444

    def test_a_bound_on_the_cost_may_come_later(self, sleeper: int) -> None:
        start("--primitive", "smaps", *SMAPS[2:], str(sleeper))
        before = Client().status()["intervals"]["sample_us"]
        done = pydamon("tune", "--max-cpu", "0.01%")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: Client().status()["intervals"]["sample_us"] > 2 * before)
        assert pydamon("tune", "--max-cpu", "0%").returncode == 2

    def test_a_simulation_has_no_bound_on_its_cost(self) -> None:
        start(*SIM)
        refused = pydamon("tune", "--max-cpu", "1%")
        assert refused.returncode == 2
        assert refused.stderr == "pydamon: --max-cpu: is for monitoring running processes or physical memory\n"

    def test_under_a_bound_on_the_cost_the_users_change_holds(self, sleeper: int) -> None:
        start("--primitive", "smaps", "--max-cpu", "90%", *SMAPS[2:], str(sleeper))
        Client().tune(sample_us=40_000, max_regions=300)
        wait_until(lambda: not Client().status()["commit_pending"])
        seen = Client().status()["snapshots"]
        wait_until(lambda: Client().status()["snapshots"] > seen + 2)
        status = Client().status()
        assert status["intervals"]["sample_us"] >= 40_000
        assert status["nr_regions"]["max"] <= 300

    @pytest.mark.parametrize(
        ("args", "where"),
        [
            ([], "tune: nothing to change"),
            (["--sample", "0"], "--sample"),
            (["--max-regions", "3", "--sample", "1ms"], "--max-regions"),
            (["--aggr", "1us", "--sample", "1ms"], "--sample"),
            (["--scheme", "{"], "--scheme"),
            (["--scheme", '{"action": "explode"}'], "schemes[0].action"),
            (["--goal-value", "x"], "--goal-value"),
            (["--goal-value", "x=1", "--sample", "1ms"], "goal x"),
        ],
    )
    def test_what_is_wrong_is_named_and_nothing_changes(self, args: list[str], where: str) -> None:
        start(*SIM)
        before = Client().status()
        done = pydamon("tune", *args)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert where in only_line(done)
        after = Client().status()
        for key in ("intervals", "nr_regions", "schemes", "spec", "commit_pending"):
            assert after[key] == before[key]

    def test_a_pause_costs_no_samples_and_loses_nothing(self, sleeper: int) -> None:
        start("--primitive", "smaps", "--sample", "20ms", "--aggr", "100ms", str(sleeper))
        wait_until(lambda: Client().status()["snapshots"] > 2)
        done = pydamon("tune", "--pause")
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(", 0 schemes; it pauses\n")
        wait_until(lambda: Client().status()["paused"])
        before = Client().status()
        assert "running, paused" in pydamon("status", "0").stdout
        # Much longer than an aggregation: by the daemon's own clock.
        wait_until(lambda: Client().status()["uptime_ns"] - before["uptime_ns"] > 10**9)
        after = Client().status()
        assert after["snapshots"] <= before["snapshots"] + 1  # one that was being counted
        assert after["cost"]["samples"] == before["cost"]["samples"]
        assert after["regions"] == before["regions"]
        Client().tune(sample_us=10_000, aggr_us=50_000)  # does not end the pause
        assert Client().status()["spec"]["kdamonds"][0]["contexts"][0]["pause"]
        assert pydamon("tune", "--resume").returncode == 0
        wait_until(lambda: Client().status()["snapshots"] > after["snapshots"] + 2)
        assert not Client().status()["paused"]

    def test_a_spec_takes_out_obsolete_targets(self, sleeper: int, tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "600"]) as other:
            try:
                pids = [sleeper, other.pid]
                start("--primitive", "smaps", "--sample", "20ms", "--aggr", "100ms", *map(str, pids))
                wait_until(lambda: len(Client().status()["targets"]) == 2)
                context = Client().status()["spec"]["kdamonds"][0]["contexts"][0]
                for number in (1, 0):
                    context["targets"][number]["obsolete"] = True
                    file = tmp_path / "spec.json"
                    file.write_text(json.dumps({"kdamonds": [{"contexts": [context]}]}))
                    done = pydamon("tune", "--spec", str(file))
                    if number:
                        assert done.returncode == 0, done.stderr
                        wait_until(lambda: [row["pid"] for row in Client().status()["targets"]] == pids[:1])
                    else:
                        assert done.returncode == 2
                        assert "is true for all targets; one at least must stay" in only_line(done)
                assert Client().status()["state"] == "running"
            finally:
                other.kill()

    def test_ops_and_targets_cannot_be_changed(self, tmp_path: Path) -> None:
        start(*SIM)
        spec = tmp_path / "spec.json"
        spec.write_text('{"kdamonds": [{"contexts": [{"ops": "vaddr", "targets": [{"pid": 1}]}]}]}')
        done = pydamon("tune", "--spec", str(spec))
        assert done.returncode == 2
        assert "kdamonds[0].contexts[0].ops: is vaddr, not sim as it runs; cannot be changed" in only_line(done)

    def test_a_spec_changes_all_parameters(self, tmp_path: Path) -> None:
        start(*SIM)
        spec = tmp_path / "spec.json"
        context = {"ops": "sim", "intervals": {"sample_us": "2ms", "aggr_us": "20ms"}, "nr_regions": {"max": 99}}
        spec.write_text(json.dumps({"kdamonds": [{"contexts": [context]}]}))
        assert pydamon("tune", "--spec", str(spec)).returncode == 0
        wait_until(lambda: Client().status()["intervals"]["sample_us"] == 2_000)
        assert Client().status()["nr_regions"]["max"] == 99


class TestSchemes:
    GOAL = '{"metric": "user_input", "target_value": 100, "current_value": 10, "name": "rps"}'
    SCHEME = '{"action": "stat", "name": "all", "quotas": {"sz_bytes": "4 MiB", "goals": [' + GOAL + "]}}"

    def test_schemes_come_and_go_and_keep_their_statistics(self, tmp_path: Path) -> None:
        start(*SIM)
        assert pydamon("tune", "--scheme", '{"action": "stat"}', "--scheme", self.SCHEME).returncode == 0
        wait_until(lambda: Client().status()["schemes"] and Client().status()["schemes"][0]["stats"]["nr_tried"] > 0)
        before = Client().status()["schemes"]
        assert [scheme["name"] for scheme in before] == [None, "all"]
        assert before[1]["quota"]["limited"]
        Client().tune(schemes=[scheme["scheme"] for scheme in before])  # as they were told
        Client().tune(schemes=[before[0]["scheme"] | {"name": "everything"}])
        wait_until(lambda: len(Client().status()["schemes"]) == 1)
        assert Client().status()["schemes"][0]["stats"]["nr_tried"] >= before[0]["stats"]["nr_tried"]
        shown = pydamon("status")
        assert re.search(r"^0 +everything +stat +[1-9]", shown.stdout, re.MULTILINE)
        empty = tmp_path / "none.json"
        empty.write_text("[]")
        assert "0 schemes" in pydamon("tune", "--schemes", str(empty)).stdout
        wait_until(lambda: not Client().status()["schemes"])

    def test_a_scheme_that_the_machine_cannot_apply_is_refused_and_nothing_changes(self) -> None:
        start(*SIM)
        scheme = '{"action": "migrate_hot", "target_nid": 77}'
        done = pydamon("tune", "--sample", "20ms", "--scheme", scheme)
        assert done.returncode == 3
        assert "--scheme: target_nid" in only_line(done)
        before = Client().status()["snapshots"]
        wait_until(lambda: Client().status()["snapshots"] > before + 1)
        status = Client().status()
        assert (status["intervals"]["sample_us"], status["schemes"]) == (5_000, [])

    def test_what_cannot_be_undone_is_said(self, sleeper: int) -> None:
        start(*SMAPS, str(sleeper))
        tuned = pydamon("tune", "--scheme", '{"action": "cold"}')
        if tuned.returncode == 3:
            pytest.skip(only_line(tuned))
        wait_until(lambda: Client().status()["schemes"] and Client().status()["schemes"][0]["stats"]["nr_tried"] > 0)
        done = pydamon("stop", "--undo")
        assert done.returncode == 0, done.stderr
        assert "undone: pages stay deactivated until they are used again\n" in done.stdout

    def test_goals_get_values_from_outside(self, tmp_path: Path) -> None:
        spec = tmp_path / "spec.json"
        context = {"ops": "sim", "targets": [{}], "schemes": [json.loads(self.SCHEME)]}
        spec.write_text(json.dumps({"kdamonds": [{"contexts": [context]}]}))
        start("--spec", str(spec), "--workload", AN_HOUR)

        def current() -> int:
            value = Client().status()["schemes"][0]["goals"][0]["current_value"]
            assert isinstance(value, int)
            return value

        assert current() == 10
        Client().set_goal("rps", 40)
        assert current() == 40
        assert pydamon("tune", "--goal-value", "0.0=70").returncode == 0
        assert current() == 70
        # with a new spec the value that is given beside it counts, also if it is what the spec had at first
        done = pydamon("tune", "--spec", str(spec), "--goal-value", "rps=10")
        assert done.returncode == 0, done.stderr
        wait_until(lambda: current() == 10)
        refused = pydamon("tune", "--goal-value", "rsp=1")
        assert refused.returncode == 2
        assert "there are: rps" in only_line(refused)


class TestLibrary:
    def test_the_example_in_the_documentation_runs(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "start.md").read_text()
        (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        start(*SIM, "--name", "web")
        wait_until(lambda: Client("web").status()["snapshots"] > 0)
        done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert re.fullmatch(r"\d+ regions, [\d.]+ % of a CPU\nstopped after \d+ snapshots\n", done.stdout)
        assert running() == []

    def test_without_a_name_there_must_be_one(self) -> None:
        with pytest.raises(PydamonError, match="nothing runs in the background"):
            Client()

    def test_a_goal_without_schemes_is_refused(self) -> None:
        start(*SIM)
        with pytest.raises(RequestError, match="there is no such goal"):
            Client().set_goal("rps", 7)


def test_what_probes_hit_is_shown_while_it_runs(tmp_path: Path) -> None:
    """Of a simulated machine all memory is anonymous, in small pages."""
    start(*SIM, "--name", "web")
    done = pydamon("report", "attrs", "--live", "web")
    assert done.returncode == 1
    assert only_line(done).endswith("web: has no probes; pydamon tune --probe gives it some")
    assert pydamon("tune", "web", "--probe", "anon", "--probe", "hugepage_size=2M").returncode == 0
    wait_until(lambda: Client("web").hits())
    done = pydamon("report", "attrs", "--live", "web", "--json")
    assert done.returncode == 0, done.stderr
    anon, huge = json.loads(done.stdout)["probes"]
    assert (anon["attribute"], huge["attribute"]) == ("anon", "pages of 2.0 MiB")
    assert anon["snapshots"] == 1
    assert anon["accessed_bytes"] + anon["idle_bytes"] > 0
    assert huge["accessed_bytes"] + huge["idle_bytes"] == 0
    done = pydamon("report", "attrs", "--live", "web", "--style", "detailed")
    assert done.returncode == 0, done.stderr
    assert "weighted hits" in done.stdout
    assert pydamon("report", "attrs", "--live", "web", "--target", "7").returncode == 2
