"""Service files: what they mean, and that what is wrong is said with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pydamon.errors import RequestError
from pydamon.service.declared.changes import change
from pydamon.service.declared.file import Keep, Monitor, Service, load, understand
from pydamon.service.declared.words import describe
from pydamon.service.protocol import Tune
from pydamon.service.shipping.settings import Shipping
from pydamon.spec import Intervals, Match
from pydamon.spec.defaults import DefaultGoal

WHOLE = """\
name: web
group: root
metrics: 127.0.0.1:9810
record:
  directory: records
  rotate: 1h
  keep: {files: 24, bytes: 10GiB, age: 7d}
monitors:
  - name: nginx
    match: {name: "nginx*", cgroup: [system.slice/*.service], most: 8}
    sample: 10ms
    max_cpu: 1%
    modules: ["reclaim min_age=30s"]
    schemes: ["pageout rate=0% age>=60s quota=128MiB/1s"]
    dry_run: true
  - name: one
    match: {pid: 7, include_children: true}
    record: false
  - name: machine
    ops: paddr
  - name: demo
    ops: sim
    workload: stairs
"""

ONE = "monitors: [{name: a, ops: paddr}]"


def service(text: str = WHOLE) -> Service:
    return understand(text.encode(), "/etc/pydamon/file.yaml")


def monitor(**fields: Any) -> Monitor:
    """The only monitor of a file: a simulation, or what ``match`` says."""
    about = {} if "match" in fields else {"ops": "sim", "workload": "stairs"}
    return service(json.dumps({"monitors": [{"name": "x", **about, **fields}]})).monitors[0]


def test_all_of_a_file_is_understood() -> None:
    found = service()
    assert (found.name, found.group, found.metrics) == ("web", "root", "127.0.0.1:9810")
    nginx, one, machine, demo = found.monitors
    assert nginx.spec.context.match == Match(names=("nginx*",), cgroups=("system.slice/*.service",), most=8)
    assert nginx.spec.context.intervals == Intervals(sample_us=10_000, aggr_us=200_000)
    assert (nginx.request.max_cpu, nginx.request.usual_cpu, nginx.request.dry_run) == (0.01, None, True)
    assert (nginx.modules, nginx.request.pause) == (("reclaim",), True)
    assert nginx.recording is not None
    assert nginx.recording.directory == "/etc/pydamon/records"  # beside the file
    assert nginx.recording.rotate == (None, 3600 * 10**9)
    assert nginx.recording.keep == Keep(24, 10 << 30, 7 * 86400 * 10**9)
    assert (one.spec.context.pids, one.spec.context.include_children, one.recording) == ((7,), True, None)
    assert isinstance(one.spec.context.intervals.intervals_goal, DefaultGoal)
    assert machine.spec.context.ops == "paddr"
    assert demo.request.workload == "stairs"


def test_the_name_is_by_default_the_files_and_all_matches_everything() -> None:
    found = service('monitors: [{name: everything, match: {all: true, most: 500}}]')  # fmt: skip
    assert found.name == "file"
    assert found.monitors[0].spec.context.match == Match(names=("*",), most=500)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a\n- b", "Expected `object`, got `array`"),
        ("monitors: []", "monitors: has 0 entries; it must have 1 to 64"),
        ("monitors: 3", "monitors: Expected `array`, got `int`"),
        ("monitors: [{name: a, match: {name: [1]}}]", "monitors[0].match.name[0]: Expected `str`, got `int`"),
        ("monitors: [{name: a, mach: {}}]", "monitors[0]: Object contains unknown field `mach`"),
        ("monitors: [{name: a}]", "monitors[0].match: is missing: which processes, like match: {name: nginx}"),
        ("monitors: [{name: a, match: {}}]", "monitors[0].match: must have pid, or name and cgroup, or all: true"),
        ("monitors: [{name: a, match: {pid: 1, all: true}}]", "monitors[0].match: must have pid, or name"),
        ("monitors: [{name: a, match: {pid: [1, 1]}}]", "monitors[0].match.pid: names the same process twice"),
        ("monitors: [{name: a, match: {pid: -1}}]", "monitors[0].match.pid: is -1; vaddr needs the id of a process"),
        ("monitors: [{name: a, match: {name: x, include_children: true}}]", "monitors[0].match.include_children: goes"),
        ("monitors: [{name: a, match: {name: x/y}}]", "monitors[0].match.name[0]: 'x/y' has a /"),
        ("monitors: [{name: a, match: {cgroup: ../x*}}]", "monitors[0].match.cgroup[0]: '../x*' has .."),
        ("monitors: [{name: a, match: {name: x, most: 0}}]", "monitors[0].match.most: is 0; it must be 1 to 1024"),
        ("monitors: [{name: ../a, match: {all: true}}]", "monitors[0].name: '../a' is not a name"),
        ("monitors: [{name: a.service, ops: paddr}]", "monitors[0].name: 'a.service' ends in .service, as only"),
        ("monitors: [{name: a, match: {all: true}}, {name: a, ops: paddr}]", "monitors[1].name: 'a' is the name of an"),
        ("monitors: [{name: a, ops: paddr, match: {all: true}}]", "monitors[0].match: does not go with ops paddr"),
        ("monitors: [{name: a, ops: sim}]", "monitors[0].workload: goes with ops sim"),
        ("monitors: [{name: a, ops: paddr, sample: 5}]", "monitors[0].sample: Expected `str | null`, got `int`"),
        ("monitors: [{name: a, ops: paddr, sample: 5 parsec}]", "monitors[0].sample: "),
        ("monitors: [{name: a, ops: paddr, sample: 2s, aggr: 1s}]", "monitors[0].sample: the sampling interval (2 s) "),
        ("monitors: [{name: a, ops: paddr, min_regions: 1}]", "monitors[0].min_regions: is 1; DAMON needs"),
        ("monitors: [{name: a, ops: paddr, max_cpu: 2}]", "monitors[0].max_cpu: Expected `str | null`, got `int`"),
        ("monitors: [{name: a, ops: paddr, max_cpu: 0%}]", "monitors[0].max_cpu: '0%' is no bound"),
        ("monitors: [{name: a, ops: paddr, modules: [reclam]}]", "monitors[0].modules[0]: 'reclam' is no module"),
        ("monitors: [{name: a, ops: paddr, modules: ['reclaim min_age=x']}]", "monitors[0].modules[0].reclaim.min_age"),
        ("monitors: [{name: a, ops: paddr, schemes: [pageou]}]", "monitors[0].schemes[0]: "),
        ("monitors: [{name: a, ops: paddr, dry_run: true}]", "monitors[0].dry_run: is about schemes"),
        ("metrics: here\nmonitors: [{name: a, ops: paddr}]", "metrics: 'here' is neither ADDR:PORT"),
        ("record: {directory: x, rotate: 1ms}\nmonitors: [{name: a, ops: paddr}]", "record.rotate: '1ms' is too small"),
        ("record: {directory: x, rotate: ever}\nmonitors: [{name: a, ops: paddr}]", "record.rotate: 'ever' is neither"),
        ("record: {directory: x, keep: {files: 1}}\nmonitors: [{name: a, ops: paddr}]", "record.keep.files: is 1; it "),
        ("record: {directory: x, keep: {age: 1}}\nmonitors: [{name: a, ops: paddr}]", "record.keep.age: Expected"),
        (f"ship: {{to: d}}\n{ONE}", "ship: Object missing required field `spool`"),
        (f"ship: {{to: d, spool: s, till: x}}\n{ONE}", "ship: Object contains unknown field `till`"),
        (f"ship: {{to: 'ftp://x', spool: s}}\n{ONE}", "ship.to: 'ftp://x' is no directory, and none of s3://"),
        (f"ship: {{to: d, spool: ''}}\n{ONE}", "ship.spool: is not the name of a directory"),
        (f"ship: {{to: d, spool: s, options: {{region: x}}}}\n{ONE}", "ship.options: go with an object store; d is a"),
        (f"ship: {{to: d, spool: s, every: 59s}}\n{ONE}", "ship.every: is 59s; it must be 1min to 1d"),
        (f"ship: {{to: d, spool: s, every: 2d}}\n{ONE}", "ship.every: is 2d; it must be 1min to 1d"),
        (f"ship: {{to: d, spool: s, most: 1K}}\n{ONE}", "ship.most: is 1K; it must be at least 1.0 MiB"),
        (f"ship: {{to: d, spool: s, rate: 1}}\n{ONE}", "ship.rate: is 1; it must be at least 1.0 KiB"),
        (f"ship: {{to: d, spool: s, regions: 0.1}}\n{ONE}", "ship.regions: Expected `str | null`, got `float`"),
        (f"ship: {{to: d, spool: s, regions: 2/3}}\n{ONE}", "ship.regions: '2/3' is no share of the hosts"),
        (f'ship: {{to: d, spool: s, host: "a\\eb"}}\n{ONE}', "ship.host: is empty, longer than 255 characters, or"),
        (f"ship: {{to: d, spool: s, cgroups: 1}}\n{ONE}", "ship.cgroups: is 1; it must be 2 to 20000"),
    ],
)
def test_what_is_wrong_is_said_with_the_file_and_the_field(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(text)
    with pytest.raises(RequestError) as refused:
        load(str(path))
    assert str(refused.value).startswith(f"service.yaml: {message}")


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^none\.yaml: cannot be read: No such file"):
        load(str(tmp_path / "none.yaml"))


def test_the_file_in_words(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(WHOLE)
    assert describe(str(tmp_path / "web.yaml")) == [
        "ok: service web, 4 monitors",
        "nginx: processes named nginx* or in the cgroups system.slice/*.service, at most 8 at a time; schemes: "
        "pageout, reclaim (dry run)",
        f"  recorded in {tmp_path}/records/nginx, a new file after 1 h, at most 24 files and 10.0 GiB and 7 d kept",
        "one: processes 7 and what they start",
        "machine: physical memory",
        f"  recorded in {tmp_path}/records/machine, a new file after 1 h, at most 24 files and 10.0 GiB and 7 d kept",
        "demo: the workload stairs, simulated in real time",
        f"  recorded in {tmp_path}/records/demo, a new file after 1 h, at most 24 files and 10.0 GiB and 7 d kept",
        "the group root may look at them",
        "metrics: 127.0.0.1:9810",
    ]
    (tmp_path / "web.yaml").write_text(WHOLE.replace("group: root", "group: no such group"))
    with pytest.raises(RequestError, match=r"^web\.yaml: group: there is no group 'no such group'"):
        describe(str(tmp_path / "web.yaml"))


def test_shipping_is_understood_with_its_directories_beside_the_file() -> None:
    assert service().shipping is None
    found = service(
        "ship: {to: fleet, spool: ../s, host: h, class: big, every: 30min, most: 1GiB, rate: 10MiB, regions: 1/100}\n"
        + ONE
    ).shipping
    assert found == Shipping(
        to="/etc/pydamon/fleet", spool="/etc/pydamon/../s", host="h", host_class="big", every_s=1800,
        most_bytes=1 << 30, rate_bytes=10 << 20, regions=100,
    )  # fmt: skip
    store = service("ship: {to: 's3://b/x', spool: /s, options: {region: here}}\n" + ONE).shipping
    assert store is not None
    assert (store.to, store.spool, store.options) == ("s3://b/x", "/s", {"region": "here"})


def test_shipping_in_words(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(f"ship: {{to: fleet, spool: s, host: h, class: big, regions: 1/9}}\n{ONE}")
    assert describe(str(tmp_path / "web.yaml"))[-3:] == [
        f"shipped to {tmp_path}/fleet as h, of the class big, every 15 min",
        f"  until then in {tmp_path}/s, at most 256.0 MiB",
        "  regions on one day of 9",
    ]


class TestChanges:
    def test_nothing(self) -> None:
        assert change(monitor(), monitor()) == Tune()

    @pytest.mark.parametrize(
        ("after", "tune"),
        [
            ({"max_regions": 50}, Tune(min_regions=10, max_regions=50)),
            (
                {"sample": "10ms"},
                Tune(sample_us=10_000, aggr_us=200_000, update_us=1_000_000, intervals="fixed"),
            ),
        ],
    )
    def test_parameters_are_tuned(self, after: dict[str, Any], tune: Tune) -> None:
        assert change(monitor(), monitor(**after)) == tune

    def test_schemes_and_knobs_are_tuned_as_the_schemes_that_they_make(self) -> None:
        match = {"all": True}
        tune = change(monitor(match=match), monitor(match=match, schemes=["stat rate=0%"]))
        assert tune is not None
        assert tune.schemes is not None
        assert [scheme["action"] for scheme in tune.schemes] == ["stat"]
        assert msgspec.structs.replace(tune, schemes=None) == Tune()
        before, after = (monitor(match=match, modules=[f"reclaim min_age={age}"]) for age in ("30s", "60s"))
        knobs = change(before, after)
        assert knobs is not None
        assert knobs.schemes

    @pytest.mark.parametrize(
        "after",
        [
            {"workload": "hotspots"},
            {"match": {"pid": 1}},
            {"dry_run": True, "schemes": ["stat"]},
            {"faithful": True},
            {"panel": 64},
        ],
    )
    def test_what_cannot_be_changed_while_it_runs_begins_anew(self, after: dict[str, Any]) -> None:
        assert change(monitor(), monitor(**after)) is None

    def test_so_does_another_knob_of_a_module_that_is_a_loop(self) -> None:
        match, texts = {"cgroup": "web.slice"}, ("reclaim driver=pressure", "reclaim driver=pressure interval=9s")
        before, after = (monitor(match=match, modules=[text]) for text in texts)
        assert before.spec.context.cgroup == "web.slice"
        assert change(before, before) == Tune()
        assert change(before, after) is None

    def test_so_does_another_module_or_a_bound_that_is_taken_away(self) -> None:
        match = {"all": True}
        assert change(monitor(match=match), monitor(match=match, modules=["reclaim"])) is None
        assert change(monitor(match=match, max_cpu="1%"), monitor(match=match)) is None
        tune = change(monitor(match=match), monitor(match=match, max_cpu="2%"))
        assert tune == Tune(max_cpu=0.02)
