"""Metrics for others to read: served over HTTP, or written to a file that node_exporter's textfile collector reads.

`publish` does either, in a thread of its own, until it is left: of what runs here, or of kdamonds in the background
(`OfKdamonds`). What is told is worked out when somebody asks, and once
for all who ask while there is nothing new.
"""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client.exposition import choose_encoder, generate_latest

from pydamon import messages
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.outputs import Place
from pydamon.plain import printable
from pydamon.service.client import Client
from pydamon.views.metrics import families

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from pydamon.views.live import Live

FIELD = "metrics"
SUFFIX = ".prom"
LOOPBACK = "127.0.0.1"
EVERY_S = 10.0  # between two writings of a file: node_exporter is asked as often, or less
_FIRST_S = 0.5  # as long as there is nothing to write
_PATHS = ("/metrics", "/")
_MOST_PEERS = 16
_TIMEOUT_S = 10.0  # for a request, and for each piece that is sent
_MOST_S = 30.0  # for all of it
_MODE = 0o644  # node_exporter is another user
_ENOUGH = 1  # level of compression: others take many times as long for a few percent

# The views that there are, each with its kdamond's name; the same objects as long as there is nothing new.
Look = Callable[[], Sequence[tuple[str, "Live"]]]
# Families beside those of views.
More = Callable[[], Sequence["Metric"]]


class Address(tuple[str, int]):
    """Host (an IP address) and port."""

    __slots__ = ()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self[0]).is_loopback

    def __str__(self) -> str:
        return f"[{self[0]}]:{self[1]}" if ":" in self[0] else f"{self[0]}:{self[1]}"


def parse(where: str) -> Address | str:
    """ADDR:PORT, PORT (of loopback), or FILE.prom. Raises RequestError."""
    if where.endswith(SUFFIX):
        return where
    host, _, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or LOOPBACK
    wrong = f"{printable(where)[:60]!r} is neither ADDR:PORT (127.0.0.1:9750), nor PORT, nor a FILE{SUFFIX}"
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise RequestError(wrong, where=FIELD)
    try:
        host = str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise RequestError(f"{wrong}; ADDR is an IP address", where=FIELD) from None
    return Address((host, int(port)))


def reach(where: str) -> str:
    """What is to be said of who can read it, beyond this machine; else nothing."""
    found = parse(where)
    if isinstance(found, str) or found.is_loopback:
        return ""
    return ": whoever reaches this machine can read them, names of processes included"


@contextlib.contextmanager
def publish(where: str, look: Look, *, every_s: float = EVERY_S, more: More | None = None) -> Iterator[str]:
    """Tell what ``look`` returns at ``where`` (see `parse`) until it is left; yields where it is, for people.

    ``more`` is told behind it. Raises RequestError, and MachineError if that cannot be. A file is removed in the end.
    """
    found = parse(where)
    rendered = Rendered(look, more)
    if isinstance(found, str):
        with _Writer(found, rendered, every_s):
            yield found
        return
    try:
        server = _Server(found, rendered)
    except OSError as error:
        raise MachineError(f"cannot listen on {found}: {error.strerror or error}", where=FIELD) from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{Address((found[0], server.server_port))}/metrics"
    finally:
        server.shutdown()
        server.server_close()


class OfKdamonds:
    """A `Look` at kdamonds in the background, by their sockets: at those that ``names`` gives each time.

    All are asked at once; who does not answer within ``timeout_s``, or has ended, is left out.
    """

    def __init__(self, names: Callable[[], Sequence[str]], *, timeout_s: float = 3.0) -> None:
        self._names = names
        self._timeout_s = timeout_s
        self._told: dict[str, Live] = {}

    def __call__(self) -> list[tuple[str, Live]]:
        """The views, by name; the same object where a kdamond has nothing new."""
        names = list(self._names())
        if not names:
            return []
        with ThreadPoolExecutor(min(len(names), _MOST_PEERS)) as asking:
            found = list(asking.map(self._ask, names))
        self._told = {name: view for name, view in zip(names, found, strict=True) if view is not None}
        return sorted(self._told.items())

    def _ask(self, name: str) -> Live | None:
        try:
            view, _ = Client(name, timeout_s=self._timeout_s).live(mappings=())
        except PydamonError:
            return None
        before = self._told.get(name)
        return before if before is not None and before == view else view


class Rendered:
    """The metrics as text, worked out once for each new view and format; for any number of threads."""

    def __init__(self, look: Look, more: More | None = None) -> None:
        self._look = look
        self._more = more if more is not None else tuple
        self._others: Sequence[Metric] = ()
        self._lock = threading.Lock()
        self._views: Sequence[tuple[str, Live]] = ()
        self._families: list[Metric] | None = None
        self._texts: dict[str, bytes] = {}

    def text(self, accept: str | None = None) -> tuple[bytes, str]:
        """The text and its type, in the format that an ``Accept`` header asks for."""
        encode, kind = choose_encoder(accept or "")
        with self._lock:
            self._renew()
            if kind not in self._texts:
                self._texts[kind] = encode(self)
            return self._texts[kind], kind

    def answer(self, accept: str | None, encodings: str | None) -> tuple[bytes, dict[str, str]]:
        """What to answer over HTTP to these headers: the text, packed for who takes that, and what to say of it."""
        text, kind = self.text(accept)
        if "gzip" not in (encodings or ""):
            return text, {"Content-Type": kind}
        return gzip.compress(text, _ENOUGH), {"Content-Type": kind, "Content-Encoding": "gzip"}

    def plain(self) -> bytes:
        """The text in the format that the textfile collector takes."""
        with self._lock:
            self._renew()
            return generate_latest(self)

    def collect(self) -> Iterable[Metric]:
        """The families of the last views: what encoders ask for."""
        return (*(self._families or ()), *self._others)

    def _renew(self) -> None:
        views, others = list(self._look()), list(self._more())
        same = [id(view) for _, view in views] == [id(view) for _, view in self._views]
        if self._families is None or not same:
            self._families, self._views = families(views), views
        elif others == self._others:
            return
        self._others = others
        self._texts.clear()


# -- HTTP -------------------------------------------------------------------------------------------------------------


class _Handler(WSGIRequestHandler):
    """One request; a client that sends or takes nothing is left after some seconds."""

    timeout = _TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said of requests."""

    def address_string(self) -> str:
        """No name is looked up."""
        return str(self.client_address[0])


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: Address, rendered: Rendered) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._room = threading.BoundedSemaphore(_MOST_PEERS)
        super().__init__((address[0], address[1]), _Handler)
        self.set_app(_app(rendered))

    def server_bind(self) -> None:
        """Without looking up a name for the address, which may take long."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own; whoever comes when there are too many is sent away."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread; one that sends a byte now and then does not keep its place."""
        end = threading.Timer(_MOST_S, _hang_up, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client went away, or was too slow: nobody needs to know."""


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has gone
        connection.shutdown(socket.SHUT_RDWR)


def _app(rendered: Rendered) -> Callable[[dict[str, Any], Any], list[bytes]]:
    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        plain = [("Content-Type", "text/plain; charset=utf-8")]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [*plain, ("Allow", "GET, HEAD")])
            return [b"ask with GET\n"]
        if environ["PATH_INFO"] not in _PATHS:
            start_response("404 Not Found", plain)
            return [b"there is only /metrics\n"]
        text, headers = rendered.answer(environ.get("HTTP_ACCEPT"), environ.get("HTTP_ACCEPT_ENCODING"))
        start_response("200 OK", [*headers.items(), ("Content-Length", str(len(text)))])
        return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [text]

    return answer


# -- a file -----------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes the file ``path`` every so often, as a whole: a reader sees the old one or the new one."""

    def __init__(self, path: str, rendered: Rendered, every_s: float) -> None:
        self._path = path
        self._rendered = rendered
        self._every_s = every_s
        self._ended = threading.Event()
        self._said = False
        self._wrote = False  # something, not just that there is nothing yet
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def __enter__(self) -> _Writer:
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(_TIMEOUT_S)
        with contextlib.suppress(PydamonError, OSError), Place(self._path, FIELD) as place:
            os.unlink(place.name, dir_fd=place.folder_fd())  # what nobody renews any more would be read for ever

    def _run(self) -> None:
        while not self._ended.wait(self._every_s if self._wrote else min(_FIRST_S, self._every_s)):
            try:
                self._write()
                self._said = False
            except (PydamonError, OSError) as error:  # the disk is full: it may have room later
                if not self._said:
                    messages.say(f"metrics: {error}")
                self._said = True

    def _write(self) -> None:
        """Raises RequestError and OSError."""
        text = self._rendered.plain()
        with Place(self._path, FIELD) as place:
            if place.is_stream:
                raise place.refused("it is a device or a pipe; name a file")
            new = place.make_beside(_MODE)
            try:
                view = memoryview(text)
                while view:
                    view = view[os.write(new.fd, view) :]
                new.appear()
                self._wrote = bool(text)
            finally:
                new.discard()
                os.close(new.fd)
