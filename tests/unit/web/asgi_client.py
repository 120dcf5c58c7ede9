"""A client of the page without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from pydamon.web.recording import Recording
from pydamon.web.server import guarded

TOKEN = "0123456789abcdef-token"


class Client:
    """Keeps its cookies, follows nothing; ``headers`` go with every request."""

    def __init__(self, recordings: Sequence[Recording], names: Sequence[str] = ()) -> None:
        guard: Any = guarded(recordings, TOKEN, names, 80)
        transport = httpx.ASGITransport(app=guard)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")
        self.headers: dict[str, str] = {}

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """The answer."""
        return asyncio.run(self._client.request(method, path, headers=self.headers | (headers or {})))

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """The answer to GET."""
        return self.request("GET", path, headers)


def known(*recordings: Recording) -> Client:
    """A client that shows the token."""
    client = Client(recordings)
    client.headers["authorization"] = f"Bearer {TOKEN}"
    return client
