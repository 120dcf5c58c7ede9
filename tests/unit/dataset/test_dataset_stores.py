"""Where a data set lies: whole files or none, in a directory or an object store."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pydamon.dataset import stores
from pydamon.dataset.stores import Entry, Store, StoreError, open_store
from pydamon.errors import MachineError, RequestError
from pydamon.service.shipping.settings import Shipping

NAME = "minutes/date=2026-11-27/bucket=07/0123456789abcdef.parquet"


@pytest.fixture(params=["directory", "memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return open_store(f"memory://{tmp_path}")
    return open_store(f"file://{tmp_path}" if request.param == "file" else str(tmp_path))


def test_what_was_put_is_there_listed_and_can_be_put_again(store: Store) -> None:
    assert list(store.list()) == []
    for _ in range(2):
        store.put(NAME, b"content")
        assert store.get(NAME) == b"content"
    store.put("hours/a", b"")
    assert sorted(store.list()) == [Entry("hours/a", 0), Entry(NAME, 7)]
    assert list(store.list("minutes")) == list(store.list("minutes/date=2026-11-27/")) == [Entry(NAME, 7)]
    assert list(store.list("min")) == list(store.list("elsewhere")) == []


def test_what_was_deleted_is_gone_and_deleting_it_again_is_no_error(store: Store) -> None:
    store.put(NAME, b"content")
    for _ in range(2):
        store.delete(NAME)
    assert list(store.list("minutes")) == []
    with pytest.raises(StoreError):
        store.get(NAME)


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../x", "a//x", ".hidden", "a/\0", "a\n", "a/" * 20 + "x"])
def test_names_that_lead_elsewhere_are_refused(store: Store, name: str) -> None:
    for act in (lambda: store.put(name, b""), lambda: store.get(name), lambda: store.delete(name)):
        with pytest.raises(RequestError, match="no name of a file"):
            act()


def test_links_below_a_directory_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    root = tmp_path / "root"
    root.mkdir()
    (root / "minutes").symlink_to(outside)
    (root / "link").symlink_to(outside / "secret")
    store = open_store(str(root))
    with pytest.raises(StoreError):
        store.put("minutes/x", b"")
    with pytest.raises(StoreError):
        store.get("link")
    assert list(store.list()) == []
    assert os.listdir(outside) == ["secret"]


def test_a_file_that_was_cut_short_is_replaced(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put(NAME, b"content")
    (tmp_path / NAME).write_bytes(b"con")
    store.put(NAME, b"content")
    assert store.get(NAME) == b"content"


def test_what_a_killed_process_left_is_never_listed_and_goes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a", b"")
    left = tmp_path / ".pydamon-incoming" / ".pydamon-1-00000000"
    left.write_text("half")
    assert list(store.list()) == [Entry("a", 0)]
    store.put("b", b"")
    assert not left.exists()


def test_nothing_is_left_where_the_disk_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))

    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.put(NAME, b"content")
    monkeypatch.undo()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_directory_must_be_there_unless_it_is_to_be_made(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"to: .*No such file"):
        open_store(str(tmp_path / "new"))
    open_store(str(tmp_path / "new" / "deep"), make=True).put("a", b"x")
    assert (tmp_path / "new" / "deep" / "a").read_bytes() == b"x"


@pytest.mark.parametrize("where", ["ftp://host/x", "s4://bucket", "x1+y://z", "S3://bucket", "my-store://z"])
def test_a_scheme_that_is_not_known_is_refused(where: str) -> None:
    with pytest.raises(RequestError, match=r"to: .*is no directory, and none of s3://"):
        open_store(where)


def test_options_that_a_store_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="options: go with an object store"):
        open_store(str(tmp_path), {"region": "x"})
    with pytest.raises(RequestError, match=r"to: .*nonsense"):
        open_store("s3://bucket/x", {"nonsense": "x"})


def test_a_password_in_a_url_is_not_told() -> None:
    assert open_store("https://user:secret@127.0.0.1/x").where == "https://127.0.0.1/x"


def test_a_signature_in_a_url_is_not_told() -> None:
    """As those of shared access, which are all that it takes to write."""
    url = "https://account.blob.core.windows.net/fleet?sv=2024&sig=secret"
    assert stores.shown(url) == "https://account.blob.core.windows.net/fleet"
    assert Shipping(to=url, spool="/spool").where == stores.shown(url)
    assert stores.shown("/srv/what?") == "/srv/what?"


# -- S3 as a server speaks it -----------------------------------------------------------------------------------------


class Bucket:
    """A little of S3: objects by path; while ``down`` all is refused."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.down = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.options = {
            "endpoint": f"http://127.0.0.1:{self.server.server_port}",
            "allow_http": "true",
            "region": "here",
            "access_key_id": "key",
            "secret_access_key": "secret",
        }
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _handler(bucket) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, status: int, body: bytes = b"") -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", '"x"')
                self.send_header("Last-Modified", "Fri, 27 Nov 2026 00:00:00 GMT")
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not bucket.down:
                    bucket.objects[self.path] = body
                self._answer(503 if bucket.down else 200)

            def do_GET(self) -> None:
                found = None if bucket.down else bucket.objects.get(self.path)
                self._answer(503 if bucket.down else 200 if found is not None else 404, found or b"")

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    found = Bucket()
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_an_object_store_gets_whole_objects_below_its_prefix(bucket: Bucket) -> None:
    store = open_store("s3://b/fleet", bucket.options)
    store.put(NAME, b"content")
    ((path, content),) = bucket.objects.items()
    assert content == b"content"
    assert path.startswith("/b/fleet/minutes/date")
    assert store.get(NAME) == b"content"


def test_a_store_that_is_down_is_an_error_that_says_so_on_one_line(bucket: Bucket) -> None:
    bucket.down = True
    store = open_store("s3://b/fleet", bucket.options)
    with pytest.raises(StoreError) as raised:
        store.put(NAME, b"content")
    assert str(raised.value).startswith(f"s3://b/fleet: {NAME}: ")
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    bucket.down = False
    store.put(NAME, b"content")
    assert len(bucket.objects) == 1
