"""Defaults of the user's own: the file, the variable, which of them wins, and what is wrong with one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.helpers.command import only_line, pydamon

pytestmark = pytest.mark.usefixtures("processes")
SIM = ("record", "--ops", "sim", "--workload", "stairs", "--duration", "1s")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file of this user is."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("PYDAMON_OPTS", raising=False)
    path = tmp_path / "config/pydamon/config.toml"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def record(tmp_path: Path) -> str:
    path = str(tmp_path / "r.damon")
    assert pydamon("--no-config", *SIM, "-o", path).returncode == 0
    return path


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_the_file_has_defaults_by_verb_and_by_report(config: Path, record: str) -> None:
    config.write_text('[report]\njson = true\n\n[report.wss]\npercentiles = "50"\n\n[record]\nsample = "7ms"\n')
    told = json.loads(pydamon("report", "wss", "-i", record).stdout)
    assert list(told["targets"][0]["percentiles"]) == ["50"]
    assert is_json(pydamon("report", "-i", record).stdout)
    told = json.loads(pydamon("report", "wss", "-i", record, "--percentiles", "0,100").stdout)
    assert list(told["targets"][0]["percentiles"]) == ["0", "100"]  # the command line comes first
    assert not is_json(pydamon("--no-config", "report", "wss", "-i", record).stdout)
    assert "Every 7 ms" in pydamon(*SIM, "--explain").stdout
    assert "Every 9 ms" in pydamon(*SIM, "--sample", "9ms", "--explain").stdout


def test_the_variable_comes_between_the_file_and_the_command_line(
    config: Path, record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('[record]\nsample = "7ms"\n')
    monkeypatch.setenv("PYDAMON_OPTS", "record --sample 8ms; report wss --json")
    assert "Every 8 ms" in pydamon(*SIM, "--explain").stdout
    assert "Every 9 ms" in pydamon(*SIM, "--sample", "9ms", "--explain").stdout
    assert "Every 5 ms" in pydamon("--no-config", *SIM, "--explain").stdout
    assert is_json(pydamon("report", "wss", "-i", record).stdout)
    assert not is_json(pydamon("report", "recency", "-i", record).stdout)


def test_an_option_that_may_be_repeated_is_a_list(config: Path) -> None:
    config.write_text('[record]\nscheme = ["stat rate=0%", "cold age>=1s"]\n')
    told = pydamon(*SIM, "--explain").stdout
    assert "Scheme 0" in told
    assert "Scheme 1" in told


def test_without_a_file_nothing_is_said(config: Path, record: str) -> None:
    done = pydamon("report", "info", "-i", record)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[record\n", "is not TOML: "),
        ("[recrod]\n", "[recrod]: no such verb; did you mean record?"),
        ("[record]\nsampel = '5ms'\n", "[record]: no such option 'sampel'; did you mean sample?"),
        ("[record]\nsample = [1]\n", "[record] sample: must be a text"),
        ("[record]\nfaithful = 'yes'\n", "[record] faithful: is on or off; write true or false"),
        ("[record]\nhelp = true\n", "[record]: no such option 'help'"),
        ("record = 5\n", "record is a verb; write [record]"),
        pytest.param("x" * (1 << 17), "is larger than 64 KiB", id="large"),  # pytest puts an id into the environment
        ("\xff\n".encode("latin-1"), "is not UTF-8: byte 0"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(text: str | bytes, wrong: str, config: Path) -> None:
    config.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = pydamon(*SIM, "-o", "/nowhere")
    assert done.returncode == 2
    assert only_line(done).startswith(f"pydamon: {config}: {wrong}")


@pytest.mark.parametrize(
    ("text", "wrong"), [("--sample 8ms", "options stand behind a verb"), ("record 'x", "cannot be read: No closing")]
)
def test_what_is_wrong_in_the_variable_is_named(
    text: str, wrong: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYDAMON_OPTS", text)
    done = pydamon(*SIM, "-o", "/nowhere")
    assert done.returncode == 2
    assert only_line(done).startswith(f"pydamon: PYDAMON_OPTS: {wrong}")


def test_where_an_option_comes_from_that_nobody_typed_is_said(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('[record]\nmax-cpu = "1%"\n')
    done = pydamon(*SIM, "-o", "/nowhere")
    assert done.returncode == 2
    assert only_line(done).endswith(f"; --max-cpu is set in {config}")
    done = pydamon(*SIM, "-o", "/nowhere", "--max-cpu", "2%")
    assert "is set in" not in only_line(done)
    config.unlink()
    monkeypatch.setenv("PYDAMON_OPTS", "record --max-cpu x")
    done = pydamon(*SIM, "-o", "/nowhere")
    assert "; --max-cpu is set in PYDAMON_OPTS" in only_line(done)


def test_a_file_that_others_may_write_is_not_read_and_that_is_said(config: Path, record: str) -> None:
    config.write_text("[report]\njson = true\n")
    config.chmod(0o666)
    done = pydamon("report", "recency", "-i", record)
    assert done.returncode == 0
    assert not is_json(done.stdout)
    assert "is not read: others may write it" in only_line(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_does_not_read_the_file_of_another_user(config: Path, record: str) -> None:
    config.write_text("[report]\njson = true\n")
    os.chown(config, 65534, 65534)
    done = pydamon("report", "recency", "-i", record)
    assert not is_json(done.stdout)
    assert "is not read" in only_line(done)


def test_a_fifo_in_its_place_keeps_nobody_waiting(config: Path, record: str) -> None:
    os.mkfifo(config)
    done = pydamon("report", "recency", "-i", record, timeout=120)
    assert (done.returncode, only_line(done)) == (2, f"pydamon: {config}: is no file")


def test_doctor_says_which_is_in_force(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\ndefaults: none\n" in pydamon("doctor").stdout
    config.write_text("")
    monkeypatch.setenv("PYDAMON_OPTS", "record --faithful")
    assert f"\ndefaults: {config} and PYDAMON_OPTS\n" in pydamon("doctor").stdout
