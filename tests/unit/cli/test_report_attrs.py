"""``record --probe`` and ``report attrs``, on the simulator, where the attributes of all memory are known."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.cli.rich_record import HEAP, rich
from tests.unit.records.record_samples import snapshot, write

from pydamon.cli import main

MIB = 1 << 20
SIM = ["--ops", "sim", "--workload", "zigzag", "--duration", "4s"]  # 200 MiB of anonymous memory, in small pages

Capture = pytest.CaptureFixture[str]


@pytest.fixture(name="path")
def path_fixture(tmp_path: Path, capsys: Capture) -> Path:
    path = tmp_path / "run.damon"
    probes = ["--probe", "anon", "--probe", "hugepage_size=2M", "--probe", "!hugepage_size=2M"]
    assert main(["record", *SIM, *probes, "-o", str(path)]) == 0
    capsys.readouterr()
    return path


def test_the_shares_are_those_of_the_machine(path: Path, capsys: Capture) -> None:
    status, out, err = report(capsys, "attrs", "-i", path, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["target"] == 0
    anon, huge, small = found["probes"]
    assert [probe["attribute"] for probe in found["probes"]] == ["anon", "pages of 2.0 MiB", "not pages of 2.0 MiB"]
    total = anon["accessed_total_bytes"] + anon["idle_total_bytes"]
    assert 200 * MIB <= total < 201 * MIB
    assert anon["accessed_bytes"] + anon["idle_bytes"] == pytest.approx(200 * MIB, rel=0.01)
    assert huge["accessed_bytes"] == huge["idle_bytes"] == 0
    assert small["accessed_bytes"] == anon["accessed_bytes"]
    assert anon["snapshots"] == pytest.approx(40, abs=1)


def test_it_is_a_table_for_people(path: Path, capsys: Capture) -> None:
    status, out, _ = report(capsys, "attrs", "-i", path)
    assert status == 0
    lines = out.splitlines()
    assert lines[2].split("  ")[0] == "attribute"
    assert lines[3].startswith("anon ")
    assert "(100.0%)" in lines[3]


def test_a_window_and_a_target_can_be_chosen(path: Path, capsys: Capture) -> None:
    status, out, _ = report(capsys, "attrs", "-i", path, "--json", "--from", "1s", "--to", "2s")
    assert status == 0
    assert json.loads(out)["probes"][0]["snapshots"] == pytest.approx(10, abs=1)
    assert report(capsys, "attrs", "-i", path, "--target", "7")[0] == 2
    status, out, err = report(capsys, "attrs", "-i", path, "--address", "0x1000-0x2000")
    assert (status, out) == (1, "")
    assert err.endswith("run.damon: has no hits of probes of that\n")


def test_addresses_can_be_chosen(tmp_path: Path, capsys: Capture) -> None:
    # The second MiB alone: half of its samples had the first attribute, all the second; accessed every other time.
    path = rich(tmp_path / "r")
    status, out, _ = report(capsys, "attrs", "-i", path, "--json", "--address", f"{HEAP + MIB:#x}-{HEAP + 2 * MIB:#x}")
    assert status == 0
    shares = json.loads(out)["probes"]
    assert [(share["accessed_bytes"], share["idle_bytes"]) for share in shares] == [
        (MIB // 4, MIB // 4),
        (MIB // 2, MIB // 2),
    ]


def test_a_record_that_was_cut_counts_what_is_left(path: Path, tmp_path: Path, capsys: Capture) -> None:
    cut = tmp_path / "cut.damon"
    assert main(["record", "cut", "-i", str(path), "-o", str(cut), "--from", "1s", "--to", "3s"]) == 0
    capsys.readouterr()
    status, out, _ = report(capsys, "attrs", "-i", cut, "--json")
    assert status == 0
    _, raw, _ = report(capsys, "raw", "-i", cut, "--json")
    assert json.loads(out)["probes"][0]["snapshots"] == raw.count("\n") == pytest.approx(20, abs=1)


def test_addresses_that_are_cut_out_are_those_of_the_report(tmp_path: Path, capsys: Capture) -> None:
    path, cut = rich(tmp_path / "r"), tmp_path / "cut"
    addresses = ["--address", f"{HEAP:#x}-{HEAP + 3 * MIB:#x}"]
    assert main(["record", "cut", "-i", str(path), "-o", str(cut), *addresses]) == 0
    capsys.readouterr()
    whole = report(capsys, "attrs", "-i", path, "--json", *addresses)[1]
    assert report(capsys, "attrs", "-i", cut, "--json")[1] == whole
    assert json.loads(whole)["probes"][0]["idle_total_bytes"] == MIB * 3 // 2


def test_merged_records_keep_what_was_counted_in_each(tmp_path: Path, capsys: Capture) -> None:
    for name in ("anon", "active"):
        assert main(["record", *SIM[:-1], "1s", "--probe", name, "-o", str(tmp_path / name)]) == 0
    both = [str(tmp_path / name) for name in ("anon", "active")]
    assert main(["record", "merge", *both, "-o", str(tmp_path / "m")]) == 0
    capsys.readouterr()
    found = report(capsys, "attrs", "-i", tmp_path / "m", "--json")[1].splitlines()
    assert sorted(json.loads(line)["probes"][0]["attribute"] for line in found) == ["active", "anon"]


def test_each_part_of_a_long_record_has_its_own_hits(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "run.damon"
    assert main(["record", *SIM, "--probe", "anon", "--rotate", "1.5s", "-o", str(path)]) == 0
    parts = sorted(tmp_path.glob("run*.damon"))
    capsys.readouterr()
    assert len(parts) >= 3
    for part in parts:
        _, raw, _ = report(capsys, "raw", "-i", part, "--json")
        _, out, _ = report(capsys, "attrs", "-i", part, "--json")
        assert json.loads(out)["probes"][0]["snapshots"] == raw.count("\n")


def attrs(path: Path, capsys: Capture, *options: str) -> Any:
    status, out, err = report(capsys, "attrs", "-i", path, "--json", *options)
    assert (status, err) == (0, "")
    return json.loads(out)


def test_regions_of_the_last_snapshot_are_sorted_by_temperature(tmp_path: Path, capsys: Capture) -> None:
    # The last of 30 snapshots: 20 and 0 hits for 29 aggregations of 0.1 s, 10 and 20 for none, 0 and 20 for 29.
    path = rich(tmp_path / "r")
    found = attrs(path, capsys, "--style", "detailed")
    assert found["probes"] == [{"attribute": "first", "weight": 1}, {"attribute": "second", "weight": 1}]
    assert [(row["start"] - HEAP, row["probe_hits_wsum"], row["temperature"]) for row in found["rows"]] == [
        (MIB, 30, 3000),
        (0, 20, 2000 + 290_000_000),
        (2 * MIB, 20, 2000 + 290_000_000),
    ]
    assert found["rows"][0] | {"age": 0, "age_ns": 0, "hits": [10, 20], "samples": 20} == found["rows"][0]
    largest = attrs(path, capsys, "--style", "detailed", "--sort", "size", "--reverse")["rows"][0]
    assert largest["end"] - largest["start"] == 2 * MIB
    assert attrs(path, capsys, "--style", "detailed", "--weights", "0,0,2")["rows"][-1]["temperature"] == 4 * MIB


def test_bytes_are_told_by_temperature_and_by_idle_time(tmp_path: Path, capsys: Capture) -> None:
    path = rich(tmp_path / "r")
    bins = attrs(path, capsys, "--style", "temperature-sz-hist")["rows"]
    assert [row["bytes"] for row in bins] == [MIB, *[0] * 8, 3 * MIB]
    assert (bins[0]["from"], bins[-1]["to"]) == (3000, 290_002_000)
    at = {
        row["percent"]: row["temperature"]
        for row in attrs(path, capsys, "--style", "temperature-percentiles")["percentiles"]
    }
    assert (at[0], at[25], at[50], at[100]) == (3000, 3000, 290_002_000, 290_002_000)
    assert attrs(path, capsys, "--style", "recency-sz-hist")["rows"] == [{"from_ns": 0, "to_ns": 0, "bytes": 4 * MIB}]
    assert {row["idle_time_ns"] for row in attrs(path, capsys, "--style", "recency-percentiles")["percentiles"]} == {0}


@pytest.mark.parametrize("style", ["detailed", "temperature-sz-hist", "recency-sz-hist", "recency-percentiles"])
def test_each_style_is_a_table_for_people(tmp_path: Path, capsys: Capture, style: str) -> None:
    status, out, err = report(capsys, "attrs", "-i", rich(tmp_path / "r"), "--style", style)
    assert (status, err) == (0, "")
    assert "of 20 samples: first (weight 1), second (weight 1)" in out.splitlines()[1]
    assert len(out.splitlines()) > 3


def test_regions_follow_what_has_a_weight(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "run.damon"
    probes = ["--probe", "set_pgidle pgidle_unset weight=100", "--probe", "anon weight=1"]
    assert main(["record", *SIM, *probes, "-o", str(path)]) == 0
    capsys.readouterr()
    found = attrs(path, capsys, "--style", "detailed")
    assert [probe["weight"] for probe in found["probes"]] == [100, 1]
    assert {row["probe_hits_wsum"] for row in found["rows"]} >= {20, 2020}
    assert report(capsys, "attrs", "-i", path)[1].splitlines()[3].split()[0] == "accessed"


@pytest.mark.parametrize("weights", ["1,2", "a,b,c", "-1,0,0", "nan,0,0", ""])
def test_wrong_weights_are_refused_in_one_line(tmp_path: Path, capsys: Capture, weights: str) -> None:
    status, out, err = report(capsys, "attrs", "-i", rich(tmp_path / "r"), "--weights", weights)
    assert (status, out) == (2, "")
    assert "is not three numbers of at least 0; write e.g. 100,100,0" in err


def test_a_record_without_probes_says_so(tmp_path: Path, capsys: Capture) -> None:
    write(tmp_path / "r", [snapshot(0, [(0, 4096, 1, 1)])])
    status, out, err = report(capsys, "attrs", "-i", tmp_path / "r")
    assert (status, out) == (1, "")
    assert "has no hits of probes" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("young", "--probe: is young, which is no attribute of a page"),
        ("warm", "--probe: there is no filter 'warm'"),
        ("", "--probe: is empty"),
        ("anon weight=300000000", "--probe: a weight of 300000000; the most is 214748364 with 20 samples"),
        ("anon weight=", "--probe: weight needs a number"),
        ("memcg=/nowhere", "--probe: no cgroup '/nowhere' in the simulated machine"),
    ],
)
def test_a_wrong_probe_is_one_line(tmp_path: Path, capsys: Capture, text: str, message: str) -> None:
    assert main(["record", *SIM, "--probe", text, "-o", str(tmp_path / "x")]) in (2, 3)
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--intervals", "auto"], "--intervals: cannot be tuned where probes have weights"),
        (["--panel", "100"], "--panel: cannot be had where probes have weights"),
        (["--sample", "1ms", "--aggr", "256ms"], "--probe: a weight goes with 255 samples per aggregation at most"),
    ],
)
def test_what_goes_by_accesses_does_not_go_with_weights(
    tmp_path: Path, capsys: Capture, more: list[str], message: str
) -> None:
    assert main(["record", *SIM, "--probe", "anon weight=1", *more, "-o", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith(f"pydamon: {message}")


def test_no_source_reports_accesses_where_none_count(tmp_path: Path, capsys: Capture) -> None:
    words = ["--probe", "anon weight=1", "--source", "perf-event", "-o", str(tmp_path / "x"), str(os.getpid())]
    assert main(["record", *words]) == 2
    assert capsys.readouterr().err.startswith("pydamon: --source: does not go with probes that have weights")


def test_schemes_select_by_sums_where_there_are_any(tmp_path: Path, capsys: Capture) -> None:
    scheme = ["--scheme", "stat filter=allow:probe_hits_wsum=2000..max"]
    for probe in ([], ["--probe", "anon"]):
        assert main(["record", *SIM, *probe, *scheme, "-o", str(tmp_path / "x")]) == 2
        assert capsys.readouterr().err.startswith("pydamon: --probe: none has a weight; the filter probe_hits_wsum")
    path = tmp_path / "run.damon"
    probes = ["--probe", "set_pgidle pgidle_unset weight=100", "--probe", "anon weight=1"]
    assert main(["record", *SIM, *probes, *scheme, "-o", str(path)]) == 0
    capsys.readouterr()
    _, out, _ = report(capsys, "schemes", "-i", path, "--tried", "--json")
    tried = json.loads(out)["tried_regions"]
    found = attrs(path, capsys, "--style", "detailed")["rows"]
    hot = {(row["start"], row["end"]) for row in found if row["probe_hits_wsum"] >= 2000}
    assert hot == {(region["start"], region["end"]) for region in tried}
    assert len(found) > len(hot) > 0


def test_the_plan_says_what_is_counted(capsys: Capture) -> None:
    assert main(["record", *SIM, "--probe", "!anon", "--explain"]) == 0
    assert "Probe 0: count how many of the sampled pages are: not anon." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["run.damon"], "--live: is instead of a record"),
        (["--from", "1s"], "--live: is of the last snapshot"),
        ([], "nobody: there is no kdamond of that name"),
    ],
)
def test_live_goes_without_what_is_of_records(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], why: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["report", "attrs", "--live", "nobody", *args]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sort", "age"], "--sort: goes with --style detailed"),
        (["--style", "recency-percentiles", "--reverse"], "--reverse: goes with --style detailed"),
        (["--weights", "1,2,3"], "--weights: goes with --style detailed or of temperature"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    path: Path, capsys: Capture, arguments: list[str], words: str
) -> None:
    status, out, err = report(capsys, "attrs", path, *arguments)
    assert (status, out) == (2, "")
    assert words in err
