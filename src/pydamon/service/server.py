"""The control socket: answers several clients at once, in a thread of its own, whatever they send.

Only the owner and root are listened to. A client has a few seconds for a whole request and as long to take its answer;
what it sends before it took that is left unread.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from pydamon import messages
from pydamon.errors import PydamonError, RequestError
from pydamon.service import protocol

MAX_PEERS = 16
TIMEOUT_S = 10.0
BEAT_S = 2.0
_CHUNK = 1 << 16
_CALM_S = 0.1
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid

# Answers a request; None: the answer comes with `finish`.
Handler = Callable[[protocol.AnyRequest], "dict[str, Any] | None"]


class ControlServer:
    """Serves ``listener`` (taken over) from ``start`` until ``finish``.

    ``beat`` is called every two seconds by its thread, as long as that can answer.
    """

    def __init__(
        self,
        listener: socket.socket,
        handler: Handler,
        *,
        timeout_s: float = TIMEOUT_S,
        beat: Callable[[], object] = lambda: None,
    ) -> None:
        self._listener = listener
        self._beat = beat
        self._handler = handler
        self._timeout_s = timeout_s
        self._selector = selectors.DefaultSelector()
        self._peers: set[_Peer] = set()
        self._final: bytes | None = None
        self._ending = False  # those who wait were given the final answer
        self._woken, self._wake_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        listener.setblocking(False)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def finish(self, result: dict[str, Any], patience_s: float = 5.0) -> None:
        """Give ``result`` to all who wait for the end, and stop serving."""
        if not self._thread.is_alive():
            self._listener.close()
            return
        self._final = protocol.encode_line({"result": result})
        os.write(self._wake_end, b"\0")
        self._thread.join(patience_s)
        if not self._thread.is_alive():
            os.close(self._wake_end)
            os.close(self._woken)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        while not self._ending or any(peer.out for peer in self._peers):
            for key, _ in self._selector.select(self._wait_s()):
                try:
                    self._react(key)
                except Exception as error:  # nothing ends this thread: the daemon could not be reached any more
                    self._survive(key, error)
            self._beat()
            now = time.monotonic()
            for peer in [peer for peer in self._peers if now >= peer.deadline]:
                self._drop(peer)
        for peer in list(self._peers):
            self._drop(peer)

    def _react(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif isinstance(key.data, _Peer):
            if key.data in self._peers:  # else it was dropped a moment ago
                self._serve(key.data)
        elif self._final is not None and not self._ending:
            self._begin_end(self._final)

    def _survive(self, key: selectors.SelectorKey, error: Exception) -> None:
        """Let go of the client with which something went wrong; say so."""
        messages.say(f"a client was dropped: {protocol.error_of(protocol.problem_of(error))}")
        if isinstance(key.data, _Peer) and key.data in self._peers:
            self._drop(key.data)
        else:
            time.sleep(_CALM_S)  # do not turn in circles

    def _wait_s(self) -> float:
        first = min((peer.deadline for peer in self._peers), default=float("inf"))
        return min(max(first - time.monotonic(), 0), BEAT_S)

    def _begin_end(self, final: bytes) -> None:
        self._ending = True
        self._selector.unregister(self._woken)
        self._selector.unregister(self._listener)
        self._listener.close()
        for peer in list(self._peers):
            if peer.waits:
                peer.waits = False
                self._answer(peer, final)
            elif not peer.out:
                self._drop(peer)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # too many open files: they come back, but do not turn in circles until then
            time.sleep(_CALM_S)
            return
        connection.setblocking(False)
        _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in (os.geteuid(), 0) or len(self._peers) >= MAX_PEERS:
            connection.close()
            return
        peer = _Peer(connection, time.monotonic() + self._timeout_s)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _serve(self, peer: _Peer) -> None:
        try:
            if peer.out:
                sent = peer.connection.send(peer.out)
                del peer.out[:sent]
            else:
                self._read(peer)
        except BlockingIOError:
            return
        except OSError:
            self._drop(peer)
            return
        if peer in self._peers and not peer.out:
            self._next_request(peer)

    def _read(self, peer: _Peer) -> None:
        data = peer.connection.recv(_CHUNK)
        peer.received += data
        if not data:
            peer.ended = True

    def _next_request(self, peer: _Peer) -> None:
        """Answer the next request that is whole; go on reading if there is none."""
        end = peer.received.find(b"\n")
        if end < 0 and len(peer.received) <= protocol.MAX_REQUEST:
            if peer.ended or peer.last:
                self._drop(peer)
            else:
                self._selector.modify(peer.connection, selectors.EVENT_READ, peer)
            return
        if not 0 <= end <= protocol.MAX_REQUEST:
            too_long = RequestError(f"is longer than {protocol.MAX_REQUEST} bytes", where="request")
            peer.last = True
            peer.received.clear()
            self._answer(peer, _error(too_long))
            return
        line = bytes(peer.received[:end])
        del peer.received[: end + 1]
        try:
            result = self._handler(protocol.decode_request(line))
            reply = None if result is None else protocol.encode_line({"result": result})
        except Exception as error:  # whatever it is: it is told, and the daemon goes on
            reply = _error(error)
        if reply is None:
            self._let_wait(peer)
        else:
            self._answer(peer, reply)

    def _let_wait(self, peer: _Peer) -> None:
        """Its answer comes in the end; until then it is not listened to."""
        peer.waits, peer.deadline, peer.registered = True, float("inf"), False
        self._selector.unregister(peer.connection)
        if self._final is not None:
            peer.waits = False
            self._answer(peer, self._final)

    def _answer(self, peer: _Peer, line: bytes) -> None:
        peer.out += line
        peer.deadline = time.monotonic() + self._timeout_s
        if peer.registered:
            self._selector.modify(peer.connection, selectors.EVENT_WRITE, peer)
        else:
            self._selector.register(peer.connection, selectors.EVENT_WRITE, peer)
            peer.registered = True

    def _drop(self, peer: _Peer) -> None:
        self._peers.discard(peer)
        if peer.registered:
            self._selector.unregister(peer.connection)
        peer.connection.close()


class _Peer:
    """A client; ``deadline`` is when it must have sent a request, or taken its answer."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self.received = bytearray()
        self.out = bytearray()
        self.registered = True
        self.waits = False  # for the end
        self.ended = False  # it sends nothing more
        self.last = False  # the answer on its way is the last one


def _error(error: Exception) -> bytes:
    problem = protocol.problem_of(error)
    if not isinstance(error, PydamonError):
        problem = protocol.Problem(f"{problem.message} (in the daemon)", problem.where)
    return protocol.encode_line({"error": problem})
