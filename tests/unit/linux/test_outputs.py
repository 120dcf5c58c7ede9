"""Where an output goes: what another user may have planted is refused, what is new appears whole, devices stay."""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.records.record_samples import metadata, snapshot

from pydamon.cli.render.output import write_whole
from pydamon.errors import PydamonError, RequestError
from pydamon.linux import temporary
from pydamon.linux.outputs import NewFile, Place, mode_for
from pydamon.records.reader import RecordReader
from pydamon.records.writer import RecordWriter

SOURCE = Path(__file__).parents[3] / "src/pydamon"
NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@contextmanager
def begun(path: str | Path, mode: int = 0o600) -> Iterator[NewFile]:
    """A new file beside the place, which is let go in the end."""
    with Place(str(path), "output") as place:
        new = place.make_beside(mode)
        try:
            yield new
        finally:
            os.close(new.fd)
            new.discard()


def put(path: str | Path, content: bytes, mode: int = 0o600) -> None:
    """Have the content appear there."""
    with begun(path, mode) as new:
        os.write(new.fd, content)
        new.appear()


@pytest.fixture(name="shared", params=[0o1777, 0o1775, 0o777])
def shared_fixture(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder where others may write."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(request.param)
    return folder


class TestPlanted:
    pytestmark = root_only

    @pytest.mark.parametrize("target", ["victim", "nothing"])
    def test_a_link_of_another_user_is_not_followed(self, tmp_path: Path, shared: Path, target: str) -> None:
        (tmp_path / "victim").write_text("secret")
        (shared / "x").symlink_to(tmp_path / target)
        os.chown(shared / "x", NOBODY, NOBODY, follow_symlinks=False)
        with pytest.raises(RequestError, match=f"^output: .* is a symbolic link of user {NOBODY} in a folder where"):
            Place(str(shared / "x"), "output")
        assert (tmp_path / "victim").read_text() == "secret"
        assert not (tmp_path / "nothing").exists()

    def test_nor_is_one_on_the_way(self, tmp_path: Path, shared: Path) -> None:
        (tmp_path / "victims").mkdir()
        (shared / "way").symlink_to("../victims")
        (tmp_path / "first").symlink_to(shared / "way")
        os.chown(shared / "way", NOBODY, NOBODY, follow_symlinks=False)
        for path in (shared / "way/x", tmp_path / "first/x", shared / "way/../../x"):
            with pytest.raises(RequestError, match="a symbolic link of user"):
                Place(str(path), "output")
        assert list((tmp_path / "victims").iterdir()) == []

    @pytest.mark.parametrize("make", [Path.touch, lambda path: os.mkfifo(path, 0o666)])
    def test_a_file_or_pipe_of_another_user_is_not_used(self, shared: Path, make: object) -> None:
        path = shared / "x"
        make(path)  # type: ignore[operator]
        os.chown(path, NOBODY, NOBODY)
        with pytest.raises(RequestError, match=f"of user {NOBODY} in a folder where others may write"):
            Place(str(path), "output")
        assert path.stat().st_uid == NOBODY

    def test_what_the_owner_of_the_folder_or_who_called_sudo_owns_is_used(
        self, shared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (shared / "x").touch()
        os.chown(shared / "x", NOBODY, NOBODY)
        monkeypatch.setenv("SUDO_UID", str(NOBODY))
        monkeypatch.setenv("SUDO_GID", str(NOBODY))
        put(shared / "x", b"1")
        monkeypatch.delenv("SUDO_UID")
        os.chown(shared, NOBODY, NOBODY)
        put(shared / "x", b"2")
        assert (shared / "x").read_bytes() == b"2"

    def test_where_nobody_else_may_write_links_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_text("old")
        (tmp_path / "link").symlink_to("real")
        os.chown(tmp_path / "link", NOBODY, NOBODY, follow_symlinks=False)
        put(tmp_path / "link", b"new")
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_bytes() == b"new"


def test_what_comes_in_between_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("secret")
    with begun(tmp_path / "x") as new:
        (tmp_path / "x").symlink_to(tmp_path / "victim")
        with pytest.raises(RequestError, match="somebody else has written it meanwhile"):
            new.appear()
    assert (tmp_path / "victim").read_text() == "secret"
    assert sorted(os.listdir(tmp_path)) == ["victim", "x"]


def test_of_two_who_make_a_file_one_wins(tmp_path: Path) -> None:
    with begun(tmp_path / "x") as one, begun(tmp_path / "x") as other:
        one.appear()
        with pytest.raises(RequestError, match="somebody else"):
            other.appear()
    assert os.listdir(tmp_path) == ["x"]


def test_a_new_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with begun(tmp_path / "x", 0o644) as new:
        os.write(new.fd, b"new")
        assert (tmp_path / "x").read_text() == "old"
        (beside,) = set(os.listdir(tmp_path)) - {"x"}
        found = temporary.NAME.fullmatch(beside)
        assert found is not None
        assert int(found[1]) == os.getpid()
        new.appear()
    assert (tmp_path / "x").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["x"]


def test_loops_and_what_is_no_place_for_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to("..")
    (tmp_path / "root").symlink_to("/")
    (tmp_path / "file").touch()
    for name, why in (
        ("loop", "Too many levels"),
        ("loop/x", "Too many levels"),
        ("up", "Is a directory"),
        ("root", "Is a directory"),
        ("file/", "Is a directory"),
        ("file/x", "Not a directory"),
        ("..", "Is a directory"),
        ("none/x", "there is no directory"),
    ):
        with pytest.raises(RequestError, match=f"^o: cannot write .*{why}"):
            Place(f"{tmp_path}/{name}", "o")
    for text in ("", "a\0b"):
        with pytest.raises(RequestError, match="is not the name of a file"):
            Place(text, "o")
    with pytest.raises(RequestError, match="another process's"):
        Place("/proc/1/fd/0", "o")


def test_a_pipe_that_nobody_reads_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    with Place(str(tmp_path / "f"), "o") as place:
        assert place.is_stream
        with pytest.raises(RequestError, match="nobody reads from this pipe; start its reader first"):
            place.open_stream()


def test_a_reader_that_takes_nothing_does_not_hold_up_the_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    reader = os.open(tmp_path / "f", os.O_RDONLY | os.O_NONBLOCK)
    with Place(str(tmp_path / "f"), "o") as place:
        stream = place.open_stream(lambda: True)
    assert stream.write(memoryview(bytes(1 << 16))) == 1 << 16
    with pytest.raises(OSError, match="its reader takes nothing"):
        stream.write(memoryview(b"1"))
    os.close(reader)
    with pytest.raises(OSError, match="its reader is gone"):
        stream.write(memoryview(b"1"))
    os.close(stream.fd)


def test_a_descriptor_of_ours_is_written_on_where_it_is(tmp_path: Path) -> None:
    """As ``>> file`` and ``-o /dev/stdout`` mean it."""
    (tmp_path / "x").write_text("old,")
    fd = os.open(tmp_path / "x", os.O_WRONLY | os.O_APPEND)
    with Place(f"/dev/fd/{fd}", "o") as place:
        stream = place.open_stream()
        assert stream.write(memoryview(b"new")) == 3
    os.close(stream.fd)
    os.close(fd)
    assert (tmp_path / "x").read_text() == "old,new"


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    for line in (b"1\n", b"2\n"):
        with Place(str(tmp_path / "log"), "log") as place:
            fd = place.open_to_append()
        os.write(fd, line)
        os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"1\n2\n"
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_modes_are_those_of_what_it_is_made_from(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, mode in zip(paths, (0o644, 0o640), strict=True):
        path.touch()
        path.chmod(mode)
    before = os.umask(0o022)
    try:
        assert mode_for([str(paths[0])]) == 0o644
        assert mode_for([str(path) for path in paths]) == 0o640
        assert mode_for(["-"]) == mode_for([str(paths[0]), "/dev/null"]) == 0o600
        assert mode_for(["-"], 0o666) == 0o666
        os.umask(0o077)
        assert mode_for([str(paths[0])]) == 0o600
    finally:
        os.umask(before)


# Private directories of ours, held open, in which nobody else can write.
_OWN_DIRECTORIES = {
    "run/directory.py",
    "run/acts/left.py",
    "engines/kernel/owner.py",
    "engines/kernel/modules.py",
    "primitives/kept_facts.py",
}

# Folders of a data set, and a spool: a new name beside, which becomes that of its content; links are not followed.
_DATA_SETS = {"dataset/stores.py", "fleet/compact.py", "fleet/files.py", "service/shipping/spool.py"}


def test_there_is_no_other_way_to_make_a_file() -> None:
    """No call of open() for writing, mkstemp(), rename() or os.open(… O_CREAT …) elsewhere in the tree."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _makes_a_file(node):
                found.add(str(path.relative_to(SOURCE)))
    assert found == {"linux/outputs.py", "linux/old_files.py", *_OWN_DIRECTORIES, *_DATA_SETS}


def _makes_a_file(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    if name in ("os.rename", "os.replace", "os.link", "tempfile.mkstemp", "tempfile.NamedTemporaryFile"):
        return True
    if name.endswith((".write_text", ".write_bytes")):
        return True
    if name == "os.open":
        return "O_CREAT" in ast.unparse(call) or (len(call.args) > 1 and ast.unparse(call.args[1]) == "flags")
    if name != "open":
        return False
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    named = isinstance(call.args[0], ast.Constant | ast.JoinedStr)  # "/proc/…", "/sys/…"
    return not named and any(set(ast.literal_eval(mode)) & set("wax+") for mode in modes)


# -- what closing a file says (network file systems and quotas report there that it is not stored) --------------------


@pytest.fixture(name="bad_close")
def bad_close_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the copy of a descriptor fails."""
    monkeypatch.setattr(os, "dup", lambda _: 1 << 30)


@pytest.mark.usefixtures("bad_close")
def test_what_is_not_stored_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        put(tmp_path / "new", b"all")
    old = tmp_path / "old"
    old.write_bytes(b"before")
    with pytest.raises(PydamonError, match=r"cannot write .*Bad file descriptor"):
        write_whole(str(old), lambda file: file.write(b"all"), SimpleNamespace(path=str(old)))
    assert old.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["old"]


def test_a_recording_that_is_not_stored_says_so(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    writer = RecordWriter(tmp_path / "r.damon", metadata=metadata(1))
    writer.add_snapshot(snapshot(0, [(0, 4096, 1, 1)]))
    request.getfixturevalue("bad_close")
    with pytest.raises(PydamonError, match="not all of the record may be stored"):
        writer.close()
    with RecordReader(tmp_path / "r.damon") as reader:
        assert reader.rows == 1


def test_a_second_name_that_stays_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlink(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched, begun(tmp_path / "new") as new:
        os.write(new.fd, b"all")
        patched.setattr(os, "unlink", unlink)
        new.appear()
    assert (tmp_path / "new").read_bytes() == b"all"
    put(tmp_path / "next", b"")
    assert sorted(os.listdir(tmp_path)) == ["new", "next"]
