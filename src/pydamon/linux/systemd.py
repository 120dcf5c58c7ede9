"""What a service tells the service manager, by the protocol of sd_notify(3): datagrams to the socket that it names."""

from __future__ import annotations

import contextlib
import os
import socket
import time

_PATIENCE_S = 1.0


class Manager:
    """The service manager, if there is one that listens; else nothing is done. Never raises."""

    def __init__(self) -> None:
        self._address = _address(os.environ.get("NOTIFY_SOCKET", ""))
        self._status = ""
        self._alive_s = 0.0  # when it was said last

    @property
    def watchdog_s(self) -> float | None:
        """How often at least it wants to hear `alive`; None if it does not watch this process."""
        text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        if not self._address or not (text.isascii() and text.isdigit()) or pid not in ("", str(os.getpid())):
            return None
        return int(text) / 1e6 or None

    def ready(self) -> None:
        """It has started, or read its file anew."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It begins to read its file anew."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It is about to end."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """It still works: said where that is wanted, and often enough."""
        every_s, now_s = self.watchdog_s, time.monotonic()
        if every_s is not None and now_s - self._alive_s >= every_s / 4:
            self._alive_s = now_s
            self._tell("WATCHDOG=1")

    def status(self, text: str) -> None:
        """How it is, in a line; said once."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def _tell(self, text: str) -> None:
        if self._address:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.settimeout(_PATIENCE_S)  # its queue may be full for a moment
                out.sendto(text.encode(), self._address)


def _address(name: str) -> str:
    """A path, or an abstract name, which is written with @; empty if it is neither."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""
