"""Who may ask, and what every answer says to the browser: the one door of the page (pure ASGI).

A request must name a host that is served (a page elsewhere that resolves its own name to us gets nothing: DNS
rebinding), only read, and show the token: once in the address, which is answered with a cookie, then by that, or as
``Authorization: Bearer``. Nothing from elsewhere is loaded or runs in what is sent, and nobody may frame it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_SEND_S = 20.0  # so long a client may take to take a piece of an answer
_LOCAL = ("localhost",)


class Guard:
    """Lets through to ``application`` what may pass. ``names`` are host names that it is reached by, without port."""

    def __init__(self, application: Application, token: str, names: Collection[str] = (), cookie: str = "t") -> None:
        self._application = application
        self._token = token.encode()
        self._names = frozenset(name.lower() for name in (*_LOCAL, *names))
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no websockets
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        send = _hardened(send)
        if not self._is_ours(headers.get("host", "")):
            await _refuse(send, 421, "this host name is not served here; pydamon serve has an option for more names")
        elif scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, 405, "this page only reads")
        elif scope["path"] == "/" and b"token=" in scope["query_string"]:
            await self._log_in(scope["query_string"], send)
        elif not self._knows(headers):
            await _refuse(send, 401, "open the address that pydamon serve has printed: it has the token")
        else:
            await self._application(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        """Whether the Host header is an address, which no name can be rebound to, or a name that is served."""
        name = host.strip().lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        else:
            name = name.partition(":")[0]
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token)

    def _knows(self, headers: dict[str, str]) -> bool:
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(value.strip()):
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return self._cookie in cookies and self._is_token(cookies[self._cookie].value)

    async def _log_in(self, query: bytes, send: Send) -> None:
        given = parse_qs(query.decode("latin-1"), max_num_fields=20).get("token", [""])[0]
        if not self._is_token(given):
            await _refuse(send, 401, "this is not the token of this run; open the address that was printed last")
            return
        cookie = f"{self._cookie}={given}; HttpOnly; SameSite=Strict; Path=/"
        await _answer(send, 303, b"", {"location": "./", "set-cookie": cookie})


def _hardened(send: Send) -> Send:
    """``send`` with the headers that every answer has; a client that takes nothing is given up."""

    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = [(key, value) for key, value in message.get("headers", []) if key.decode() not in _HEADERS]
            ours = [(key.encode(), value.encode()) for key, value in _HEADERS.items()]
            message = {**message, "headers": [*given, *ours]}
        async with asyncio.timeout(_SEND_S):
            await send(message)

    return sending


async def _refuse(send: Send, status: int, why: str) -> None:
    await _answer(send, status, why.encode() + b"\n", {"content-type": "text/plain; charset=utf-8"})


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    head = [(key.encode(), value.encode()) for key, value in headers.items()]
    head.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
