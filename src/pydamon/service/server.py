"""The control socket: answers several clients at once, in a thread of its own, whatever they send.

Only the owner and root are listened to, and where there is a group its members, who may ask but change nothing; room
is kept for the owner, however many they are. A client has a few seconds for a whole request and as long to take its
answer; what it sends before it took that is left unread.
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
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.service import protocol

MAX_PEERS = 16
MAX_READERS = 12  # of them
TIMEOUT_S = 10.0
BEAT_S = 2.0
_CHUNK = 1 << 16
_CALM_S = 0.1
_SO_PEERGROUPS = 59  # asm-generic/socket.h
_MAX_GROUPS = 256  # what Python's getsockopt has room for; of more only the primary one counts
_UCRED = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid

# Answers a request; None: the answer comes with `finish`.
Handler = Callable[[protocol.AnyRequest], "dict[str, Any] | None"]


class ControlServer:
    """Serves ``listener`` (taken over) from ``start`` until ``finish``.

    ``beat`` is called every two seconds by its thread, as long as that can answer. Members of the group ``readers`` may
    send `protocol.READS`. As soon as ``life`` can be read (a pipe whose other end is closed), ``orphaned`` is called,
    once. Who has a loop of its own calls `open`, and `step` when ``fileno`` can be read.
    """

    def __init__(
        self,
        listener: socket.socket,
        handler: Handler,
        *,
        timeout_s: float = TIMEOUT_S,
        beat: Callable[[], object] = lambda: None,
        readers: int | None = None,
        life: int | None = None,
        orphaned: Callable[[], object] = lambda: None,
    ) -> None:
        self._readers = readers
        self._life, self._orphaned = life, orphaned
        self._listener = listener
        self._beat = beat
        self._handler = handler
        self._timeout_s = timeout_s
        self._selector = selectors.DefaultSelector()
        self._peers: set[_Peer] = set()
        self._final: bytes | None = None
        self._opened = False
        self._ending = False  # those who wait were given the final answer
        self._woken, self._wake_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        listener.setblocking(False)

    def start(self) -> None:
        """Begin to answer."""
        self.open()
        self._thread.start()

    def fileno(self) -> int:
        """What can be read when there is something to do."""
        return self._selector.fileno()

    def finish(self, result: dict[str, Any], patience_s: float = 5.0) -> None:
        """Give ``result`` to all who wait for the end, and stop serving."""
        if not self._opened:
            self._listener.close()
            return
        self._opened = False
        self._final = protocol.encode_line({"result": result})
        os.write(self._wake_end, b"\0")
        if self._thread.is_alive():
            self._thread.join(patience_s)
        else:
            self._run(time.monotonic() + patience_s)
        if not self._thread.is_alive():
            os.close(self._wake_end)
            os.close(self._woken)
            self._selector.close()

    # -- the thread -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """From now on clients are heard; whoever has no thread for it calls `step`."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        if self._life is not None:
            self._selector.register(self._life, selectors.EVENT_READ)
        self._opened = True

    def _run(self, until: float = float("inf")) -> None:
        while (not self._ending or any(peer.out for peer in self._peers)) and time.monotonic() < until:
            self.step(self._wait_s())
        for peer in list(self._peers):
            self._drop(peer)

    def step(self, wait_s: float = 0) -> None:
        """Do what there is to do."""
        for key, _ in self._selector.select(wait_s):
            try:
                self._react(key)
            except Exception as error:  # nothing ends this thread: the daemon could not be reached any more
                self._survive(key, error)
        self._beat()
        now = time.monotonic()
        for peer in [peer for peer in self._peers if now >= peer.deadline]:
            self._drop(peer)

    def _react(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif isinstance(key.data, _Peer):
            if key.data in self._peers:  # else it was dropped a moment ago
                self._serve(key.data)
        elif key.fileobj == self._life:
            self._selector.unregister(self._life)
            self._orphaned()
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
        _, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        reads_only = uid not in (os.geteuid(), 0)
        if (reads_only and not self._may_read(connection, gid)) or len(self._peers) >= MAX_PEERS:
            connection.close()
            return
        peer = _Peer(connection, time.monotonic() + self._timeout_s, reads_only=reads_only)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, peer)

    def _may_read(self, connection: socket.socket, gid: int) -> bool:
        """Whether a client of this primary group is a member of those who may read, and there is room for it."""
        if self._readers is None or sum(peer.reads_only for peer in self._peers) >= MAX_READERS:
            return False
        return self._readers in (gid, *_further_groups(connection))

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
            request = protocol.decode_request(line)
            if peer.reads_only and not isinstance(request, protocol.READS):
                raise MachineError("its owner and root may do that; the group may look (pydamon status)", where=None)
            result = self._handler(request)
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

    def __init__(self, connection: socket.socket, deadline: float, *, reads_only: bool) -> None:
        self.connection = connection
        self.reads_only = reads_only
        self.deadline = deadline
        self.received = bytearray()
        self.out = bytearray()
        self.registered = True
        self.waits = False  # for the end
        self.ended = False  # it sends nothing more
        self.last = False  # the answer on its way is the last one


def _further_groups(connection: socket.socket) -> tuple[int, ...]:
    """The groups of a client beside its primary one (SO_PEERGROUPS, since Linux 4.13); none where that is not told."""
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MAX_GROUPS)
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // 4}I", data)


def _error(error: Exception) -> bytes:
    problem = protocol.problem_of(error)
    if not isinstance(error, PydamonError):
        problem = protocol.Problem(f"{problem.message} (in the daemon)", problem.where)
    return protocol.encode_line({"error": problem})
