"""Outputs that others have planted, pipes that nobody reads, devices: each way to write a file, as a user uses it."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import termios
from fcntl import F_SETPIPE_SZ, fcntl, ioctl
from pathlib import Path

import pytest
from tests.helpers.command import PYDAMON, only_line, pydamon
from tests.helpers.waiting import GENEROUS_S, wait_until
from tests.unit.records.record_samples import snapshot, write

from pydamon.records.reader import RecordReader

NOBODY = 65534
SIM = ("--ops", "sim", "--workload", "stairs", "--duration", "1s")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

# Each with OUT in place of the output; they are run where the record r.damon and the text t.csv are.
WRITERS = {
    "record": ("record", *SIM, "-o", "OUT"),
    "start": ("start", *SIM, "-o", "OUT"),
    "start --log": ("start", *SIM, "--log", "OUT"),
    "heatmap.html": ("report", "heatmap", "-i", "r.damon", "-o", "OUT"),
    "heatmap.png": ("report", "heatmap", "-i", "r.damon", "-o", "OUT"),
    "wss.svg": ("report", "wss", "-i", "r.damon", "-o", "OUT"),
    "export": ("export", "r.damon", "--format", "csv", "-o", "OUT"),
    "import": ("import", "t.csv", "-o", "OUT"),
    "cut": ("record", "cut", "-i", "r.damon", "-o", "OUT"),
    "merge": ("record", "merge", "r.damon", "-o", "OUT"),
    "aggregate": ("record", "aggregate", "-i", "r.damon", "--factor", "2", "-o", "OUT"),
    "mount --log": ("mount", "m", "--log", "OUT"),
}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    write(Path("r.damon"), [snapshot(number, [(0, 8192, 3, 0)]) for number in range(20)])
    assert pydamon("export", "r.damon", "--format", "csv", "-o", "t.csv").returncode == 0
    Path("m").mkdir()
    Path("shared").mkdir()
    Path("shared").chmod(0o1777)


def _arguments(name: str, output: str) -> list[str]:
    extension = os.path.splitext(name)[1]
    return [word.replace("OUT", output + extension) for word in WRITERS[name]]


@root_only
@pytest.mark.parametrize("name", WRITERS)
def test_what_another_user_has_planted_is_not_written(name: str) -> None:
    extension = os.path.splitext(name)[1]
    victim = Path("victim")
    # Also one that a record would replace: empty.
    for content in (b"secret", b""):
        victim.write_bytes(content)
        victim.chmod(0o600)
        link, file = Path(f"shared/link{extension}"), Path(f"shared/file{extension}")
        link.unlink(missing_ok=True)
        link.symlink_to(victim.absolute())
        os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
        file.write_bytes(content)
        os.chown(file, NOBODY, NOBODY)
        for planted in ("link", "file"):
            done = pydamon(*_arguments(name, f"shared/{planted}"))
            assert done.returncode in (2, 3), done.stderr
            assert f"of user {NOBODY} in a folder where others may write" in only_line(done)
        assert victim.read_bytes() == file.read_bytes() == content
        assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert sorted(os.listdir("shared")) == sorted([link.name, file.name])


@pytest.mark.parametrize("name", [name for name in WRITERS if "--log" not in name and name != "start"])
def test_devices_stay_what_they_are(name: str) -> None:
    """A link that looks like a picture leads to /dev/null."""
    link = Path("null" + os.path.splitext(name)[1])
    link.symlink_to("/dev/null")
    before = os.stat("/dev/null")
    for output in ("null", *([] if "." in name else ["/dev/null"])):
        done = pydamon(*_arguments(name, output))
        assert done.returncode == 0, done.stderr
    after = os.stat("/dev/null")
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert link.is_symlink()


@pytest.mark.parametrize("name", ["record", "cut", "export", "import"])
def test_standard_output_and_substituted_processes_get_the_whole(name: str) -> None:
    arguments = " ".join(_arguments(name, "OUT"))
    command = " ".join(PYDAMON)
    for script in (
        f"{command} {arguments.replace('OUT', '/dev/stdout')} > found",
        f"{command} {arguments.replace('OUT', '-')} > found",
        f"{command} {arguments.replace('OUT', '/dev/stdout')} | cat > found",
        f"{command} {arguments.replace('OUT', '>(cat > found; : > done)')}; until [ -e done ]; do sleep 0.01; done",
        f"mkfifo f; cat f > found & {command} {arguments.replace('OUT', 'f')}; wait",
    ):
        subprocess.run(["bash", "-ec", script], check=True, timeout=200, stderr=subprocess.DEVNULL)
        if name == "export":
            assert Path("found").read_bytes() == Path("t.csv").read_bytes()
        else:
            with RecordReader("found") as reader:
                assert reader.rows >= 10
                assert not reader.truncated
        Path("found").unlink()


def test_a_pipe_without_reader_is_refused_in_one_line() -> None:
    os.mkfifo("f")
    for name in ("record", "export", "cut"):
        done = pydamon(*_arguments(name, "f"))
        assert done.returncode == 2
        assert "nobody reads from this pipe" in only_line(done)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_reader_that_takes_nothing_does_not_keep_signals_off(number: signal.Signals) -> None:
    os.mkfifo("f")
    reader = os.open("f", os.O_RDONLY | os.O_NONBLOCK)
    fcntl(reader, F_SETPIPE_SZ, 4096)  # one page, which is full or not
    arguments = [*PYDAMON, "record", "--ops", "sim", "--workload", "stairs", "--duration", "100d", "-o", "f"]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as child:
        wait_until(lambda: _waiting_bytes(reader) > 0)  # and so it is full: a page that is written to is no free one
        child.send_signal(number)
        _, err = child.communicate(timeout=GENEROUS_S)
    os.close(reader)
    assert child.returncode == 1
    assert "its reader takes nothing" in err


def _waiting_bytes(pipe: int) -> int:
    found: int = struct.unpack("i", ioctl(pipe, termios.FIONREAD, bytes(4)))[0]
    return found


@pytest.mark.parametrize(("given", "widened"), [((), 0o600), (("--mode", "640"), 0o640)])
@pytest.mark.parametrize("name", ["heatmap.html", "heatmap.png", "wss.svg", "export"])
def test_what_is_made_from_a_private_record_is_private(name: str, given: tuple[str, ...], widened: int) -> None:
    arguments = _arguments(name, "out")
    assert pydamon(*arguments, *given, umask=0o022).returncode == 0
    assert stat.S_IMODE(os.stat(arguments[-1]).st_mode) == widened
    Path("r.damon").chmod(0o644)
    assert pydamon(*arguments, *given, umask=0o022).returncode == 0
    assert stat.S_IMODE(os.stat(arguments[-1]).st_mode) == widened if given else 0o644


def test_modes_that_are_none_are_refused() -> None:
    for mode in ("x", "9", "4755", "777", "044", ""):
        done = pydamon(*_arguments("export", "out"), "--mode", mode)
        assert done.returncode == 2
        assert "is no mode of a file" in only_line(done)
