"""The server: one process, bounded connections, an end in seconds. Imports uvicorn and starlette."""

from __future__ import annotations

import asyncio
import gc
import secrets
import socket
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pyarrow
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pydamon.errors import RequestError
from pydamon.linux import allocator
from pydamon.run.signals import Waker
from pydamon.web.app import application
from pydamon.web.guard import Guard
from pydamon.web.recording import Recording

MOST_CONNECTIONS = 256
_ASKING_S = 10.0  # so long a client may take to say what it wants
_ENDING_S = 2
_NEW_OBJECTS = 1000  # until a search for garbage: an answer leaves some, and its arrays with it


class _Bounded(H11Protocol):
    """A connection: one too many is closed at once, as is one that does not ask."""

    _slow: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= MOST_CONNECTIONS:
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        self._slow = self.loop.call_later(_ASKING_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._slow is not None:
            self._slow.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.cycle is None:  # until the first request
            self.transport.close()


class _Server(uvicorn.Server):
    """Ends by a flag; the signals are ours."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


def keep_little() -> None:
    """Before anything is read: have what threads needed for a while go back, not stay with each of them.

    Arrow's own pool keeps it, and so do a heap for each thread, and what is in cycles until garbage is looked for
    (which `lean.begin` has seldom): with these the server grew for as long as clients came, by 20 % in ten minutes of a
    hundred (`python -m benchmarks clients`).
    """
    gc.set_threshold(_NEW_OBJECTS)
    allocator.keep_little()
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())


def listener(address: str, port: int) -> socket.socket:
    """A socket that listens there (0: any free port). Raises RequestError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((address, port))
        found.listen(MOST_CONNECTIONS)
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"cannot listen at {address} port {port}: {reason}") from None
    return found


def new_token() -> str:
    """A random token: 192 bits."""
    return secrets.token_urlsafe(24)


def guarded(recordings: Sequence[Recording], token: str, names: Collection[str], port: int) -> Guard:
    """The application behind its guard; the cookie is called by the port, for browsers share cookies among ports."""
    return Guard(cast(Any, application(recordings)), token, names, f"pydamon-{port}")


def serve(socket_: socket.socket, guard: Guard, started: Callable[[], None], told: Waker) -> None:
    """Serve until ``told`` to stop, if it is not yet; ``started`` is called first."""
    server = made(guard)

    def end() -> None:
        server.should_exit = True

    told.on_stop = end
    started()
    if not told.stopped:
        asyncio.run(server.serve(sockets=[socket_]))


def made(guard: Guard) -> uvicorn.Server:
    """A server that is yet to be run."""
    config = uvicorn.Config(
        cast(Any, guard),
        http=_Bounded,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # of a client that goes away there is nothing to say; what fails here says so itself
        access_log=False,
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_ENDING_S,
        h11_max_incomplete_event_size=1 << 15,
    )
    return _Server(config)
