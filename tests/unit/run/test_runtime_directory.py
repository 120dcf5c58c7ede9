"""The runtime directory: whose it must be, who runs, and what killed daemons leave."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.own_directory import own_directory
from pydamon.linux.process import start_ticks
from pydamon.run import directory as runtime
from pydamon.run.directory import RuntimeDirectory


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    return path


@pytest.fixture
def directory(base: Path) -> Iterator[RuntimeDirectory]:
    with RuntimeDirectory() as opened:
        yield opened


def write_identity(base: Path, name: str, pid: int, ticks: int) -> None:
    (base / "pydamon" / f"{name}.pid").write_bytes(msgspec.json.encode(runtime.Identity(pid, ticks)))


class TestWhose:
    def test_it_is_made_for_its_owner_only(self, base: Path) -> None:
        old = os.umask(0)
        try:
            with RuntimeDirectory() as directory:
                assert directory.path == str(base / "pydamon")
        finally:
            os.umask(old)
        assert stat.S_IMODE((base / "pydamon").stat().st_mode) == 0o700

    def test_one_that_others_can_write_is_refused(self, base: Path) -> None:
        (base / "pydamon").mkdir()
        (base / "pydamon").chmod(0o770)
        with pytest.raises(MachineError, match="can be written by others"):
            RuntimeDirectory()

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
    def test_one_that_belongs_to_somebody_else_is_refused(self, base: Path) -> None:
        (base / "pydamon").mkdir(mode=0o700)
        os.chown(base / "pydamon", 65534, 65534)
        with pytest.raises(MachineError, match="belongs to user 65534"):
            RuntimeDirectory()

    @pytest.mark.parametrize("kind", ["link", "file"])
    def test_what_is_no_directory_is_refused(self, base: Path, tmp_path: Path, kind: str) -> None:
        if kind == "link":
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            (base / "pydamon").symlink_to(tmp_path / "elsewhere")
        else:
            (base / "pydamon").touch()
        with pytest.raises(MachineError, match="must be a directory"):
            RuntimeDirectory()

    def test_a_base_that_others_can_write_is_passed_over(self, base: Path) -> None:
        base.chmod(0o777)
        assert not own_directory().startswith(str(base))

    def test_without_any_it_is_below_tmp_with_the_users_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        uid = os.geteuid()
        assert own_directory() in (f"/run/user/{uid}/pydamon", f"/tmp/pydamon-{uid}")


class TestNames:
    def test_numbers_are_given_from_zero(self, directory: RuntimeDirectory) -> None:
        claims = [directory.claim(None) for _ in range(3)]
        assert [claim.name for claim in claims] == ["0", "1", "2"]
        os.close(claims[1].lock_fd)
        assert directory.claim(None).name == "1"

    def test_a_name_in_use_is_refused(self, directory: RuntimeDirectory) -> None:
        directory.claim("web")
        with pytest.raises(RequestError, match="'web' is in use"):
            directory.claim("web")

    @pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a\nb", "x" * 65, "ä"])
    def test_what_is_no_name_is_refused(self, directory: RuntimeDirectory, name: str) -> None:
        with pytest.raises(RequestError, match="is not a name"):
            directory.claim(name)

    def test_those_that_run_are_listed_numbers_first(self, directory: RuntimeDirectory) -> None:
        for name in ("web", "10", "2", "db.main"):
            directory.claim(name).write_identity()
        assert directory.running() == ["2", "10", "db.main", "web"]
        assert directory.runs("web")
        assert not any(map(directory.runs, ("other", "../web", "")))

    def test_a_name_that_is_being_taken_does_not_run_yet_and_is_left_alone(
        self, directory: RuntimeDirectory, base: Path
    ) -> None:
        directory.claim("web")
        assert directory.running() == []
        assert (base / "pydamon" / "web.pid").exists()

    def test_without_a_name_the_only_one_is_meant(self) -> None:
        assert runtime.the_only(["web"]) == "web"
        with pytest.raises(PydamonError, match="nothing runs"):
            runtime.the_only([])
        with pytest.raises(RequestError, match="say which: a, b"):
            runtime.the_only(["a", "b"])


class TestLeftBehind:
    @pytest.mark.usefixtures("processes")
    def test_files_of_a_killed_daemon_are_removed_and_its_log_is_kept(
        self, directory: RuntimeDirectory, base: Path
    ) -> None:
        with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
            ticks = start_ticks(child.pid)
        write_identity(base, "0", child.pid, ticks)
        for kind in ("sock", "log"):
            (base / "pydamon" / f"0.{kind}").write_text("x")
        assert directory.running() == []
        assert os.listdir(base / "pydamon") == ["0.log"]
        assert directory.has_log("0")

    def test_a_process_that_got_the_pid_later_is_not_taken_for_it(
        self, directory: RuntimeDirectory, base: Path
    ) -> None:
        write_identity(base, "0", os.getpid(), start_ticks(os.getpid()) - 1)
        assert directory.process("0") is None
        assert os.listdir(base / "pydamon") == []

    def test_nonsense_is_removed_unless_it_is_locked(self, directory: RuntimeDirectory, base: Path) -> None:
        (base / "pydamon" / "a.pid").write_bytes(b'{"pid": -1, "start_ticks": 0}')
        (base / "pydamon" / "b.pid").write_bytes(b"\xff" * 5000)
        claim = directory.claim("c")
        os.pwrite(claim.lock_fd, b"{}", 0)
        assert directory.running() == []
        assert os.listdir(base / "pydamon") == ["c.pid"]

    def test_a_stale_socket_does_not_hinder_a_start(self, directory: RuntimeDirectory, base: Path) -> None:
        (base / "pydamon" / "0.sock").touch()
        claim = directory.claim("0")
        listener = directory.listen(claim.name)
        assert stat.S_IMODE((base / "pydamon" / "0.sock").stat().st_mode) == 0o600
        listener.close()

    def test_links_are_not_followed(self, directory: RuntimeDirectory, base: Path, tmp_path: Path) -> None:
        precious = tmp_path / "precious"
        precious.write_text("x")
        for kind in ("pid", "log"):
            (base / "pydamon" / f"0.{kind}").symlink_to(precious)
        with pytest.raises(MachineError):
            directory.claim("0")
        with pytest.raises(MachineError):
            directory.open_log("0")
        assert directory.running() == []
        assert precious.read_text() == "x"

    def test_the_path_of_a_socket_may_be_long(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        deep = tmp_path / ("d" * 120)  # sun_path of unix(7) has 108 bytes
        deep.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
        with RuntimeDirectory() as directory:
            listener = directory.listen(directory.claim("0").name)
            directory.connect("0", 1).close()
            listener.close()
