"""``pydamon simulate`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.refusals import refused

from pydamon.cli import main

SHORT = "hot, 1 MiB\ncold, 3 MiB\n\np\n3000\nhot, 0, 4096, 1\n\nquiet\n1000\nhot, 0, 4096, 0\n"
COLD = "pageout rate=0% age>=1s"


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "short.cfg"
    path.write_text(SHORT)
    return str(path)


def test_policies_side_by_side(workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemes = tmp_path / "later.txt"
    schemes.write_text("pageout rate=0% age>=2s\n")
    assert main(["simulate", workload, "--scheme", COLD, "--schemes", str(schemes), "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["label"] for run in runs] == ["no policy", "later.txt", COLD]
    assert 0 == runs[0]["saved_bytes"] < runs[1]["saved_bytes"] < runs[2]["saved_bytes"]
    assert main(["simulate", workload, "--scheme", COLD]) == 0
    shown = capsys.readouterr().out
    assert "used" in shown
    assert COLD in shown
    assert "pswpout" in shown


def test_schemes_as_they_are_printed(workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is taken where a short form is."""
    schemes = tmp_path / "cold.txt"
    schemes.write_text(COLD)
    assert main(["schemes", "show", str(schemes), "--format", "json"]) == 0
    text = capsys.readouterr().out
    runs = []
    for scheme in (COLD, text):
        assert main(["simulate", workload, "--scheme", scheme, "--json"]) == 0
        runs.append(json.loads(capsys.readouterr().out)["runs"][1])
    assert runs[0] == runs[1] | {"label": COLD}


def test_the_run_as_a_record_and_as_a_picture(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, picture = tmp_path / "x.damon", tmp_path / "x.svg"
    assert main(["simulate", workload, "--scheme", COLD, "-o", str(record)]) == 0
    assert main(["simulate", workload, "--scheme", COLD, "-o", str(picture)]) == 0
    capsys.readouterr()
    assert main(["report", "wss", "-i", str(record)]) == 0
    assert "working set" in capsys.readouterr().out
    assert picture.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--machine", "ram=1MiB swap=off"],
            "--machine: 4.0 MiB of workloads do not fit into 1.0 MiB of memory",
        ),
        (["--machine", "rom=1"], "--machine: 'rom=1' says nothing of a machine"),
        (["--machine", "/nope"], "pydamon: --machine /nope: cannot be read: No such file"),
        (["--machine", "files=x"], "--machine: no region is called 'x'; there are: hot, cold"),
        (["--scheme", "x"], "--scheme: 'x' is no action"),
        (["--module", "x"], "--module: 'x' is no module"),
        (["--repeat", "0"], "--repeat: 0 is for ever; give --duration, too"),
        (["--scheme", COLD, "--scheme", COLD, "-o", "x.damon"], "-o: a record holds one run; 2 policies were given"),
    ],
)
def test_what_is_wrong(workload: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "simulate", workload, *options)
    assert message in told
    assert told.count("\n") == 1


def test_nonsense_in_a_cost_file(workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = tmp_path / "costs.yaml"
    costs.write_text("costs: {zram_in_ns: -3}\n")
    told = refused(capsys, "simulate", workload, "--costs", str(costs))
    assert f"--costs {costs}: costs.zram_in_ns: is -3; it must be 0 to 1000000000" in told
    told = refused(capsys, "simulate", "lackey:/nope")
    assert "lackey: /nope: cannot be read: No such file or directory" in told


@pytest.fixture
def recording(tmp_path: Path) -> str:
    """Two processes of a simulation: 4 and 2 MiB."""
    first, second = tmp_path / "first.cfg", tmp_path / "second.cfg"
    first.write_text(SHORT)
    second.write_text("warm, 2 MiB\n\np\n4000\nwarm, 0, 4096, 1\n")
    path = tmp_path / "two.damon"
    assert main(["simulate", str(first), str(second), "--sample", "20ms", "--aggr", "200ms", "-o", str(path)]) == 0
    return str(path)


def test_a_recording_beside_a_workload(recording: str, workload: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Monitored as it was recorded, unless options say otherwise."""
    assert main(["simulate", recording, workload, "--scheme", COLD, "--json"]) == 0
    nothing, policy = json.loads(capsys.readouterr().out)["runs"]
    names = [f"{recording}:0", f"{recording}:1", workload]
    assert [one["name"] for one in nothing["processes"]] == names
    sizes = [one["resident_bytes"] for one in nothing["processes"]]
    assert sizes == pytest.approx([4 << 20, 2 << 20, 4 << 20], rel=0.05)
    taken = [one["resident_bytes"] for one in policy["processes"]]
    assert taken[0] < 0.8 * sizes[0]
    assert taken[1] == pytest.approx(sizes[1], rel=0.05)
    assert main(["simulate", recording, "--target", "1", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["runs"]
    assert [one["name"] for one in result["processes"]] == [recording]


def test_it_is_recorded_again_as_it_was(recording: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = tmp_path / "again.damon"
    assert main(["simulate", recording, "-o", str(again)]) == 0
    found = []
    for path in (recording, str(again)):
        capsys.readouterr()
        assert main(["report", "wss", "-i", path, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    before, after = ([one["mean_bytes"] for one in told["targets"]] for told in found)
    assert len(before) == 2
    assert after == pytest.approx(before, rel=0.05)
    capsys.readouterr()
    assert main(["report", "info", str(again)]) == 0
    assert "200 ms" in capsys.readouterr().out


def test_what_a_recording_cannot_tell_is_said(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording.replace("two", "none")
    assert main(["record", "--ops", "sim", "--workload", "stairs", "--duration", "3s", "--panel", "0", "-o", path]) == 0
    capsys.readouterr()
    assert main(["simulate", path, "--scheme", COLD]) == 0
    assert "without a page panel single pages that come back in idle regions are not played" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "2"], "--target: {} has no target 2; it has 0, 1"),
        (["--machine", "ram=1MiB swap=off"], "--machine: 6.0 MiB of workloads do not fit into 1.0 MiB of memory"),
        (["record:/nope"], "program 'record:/nope': there is no such file"),
        (["/nope.damon"], "workload '/nope.damon': neither a built-in workload"),
        (["lackey:/nope"], "lackey: /nope: cannot be read"),
    ],
)
def test_recordings_that_cannot_be_played(
    recording: str, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, "simulate", recording, *options)
    assert message.format(recording) in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("costs: {zram_in: 3}", "costs.zram_in: is no cost"),
        ("costs: {zram_in_ns: fast}", "costs.zram_in_ns: "),
        ("costs: {zram_in_ns: .nan}", "costs.zram_in_ns: '.nan' is not a time"),
        ("costs: {overlap_permil: 110%}", "costs.overlap_permil: "),
        ("costs: {bandwidth_bytes: 0}", "costs.bandwidth_bytes: is 0; it must be"),
        (
            "costs: {zram_in_ns: {value: 3, low: 4, high: 5, samples: 9}}",
            "costs.zram_in_ns.value: must not be below low",
        ),
        ("costs: {zram_in_ns: {value: 3}}", "costs.zram_in_ns.low: is missing"),
        ("costs: {zram_in_ns: [1]}", "costs.zram_in_ns: is [1]"),
        ("price: 3", 'is no cost file: it must be an object with "costs"'),
        ("costs: {}\nmachine: [1]", "machine: must be text"),
        ("[", "--costs "),
    ],
)
def test_each_kind_of_nonsense_in_a_cost_file(
    workload: str, tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = tmp_path / "costs.yaml"
    costs.write_text(text)
    told = refused(capsys, "simulate", workload, "--costs", str(costs))
    assert told.startswith(f"pydamon: --costs {costs}: ")
    assert words in told
    assert told.count("\n") == 1
