"""What a service file says of shipping, understood."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping

import msgspec

from pydamon.dataset.files import MOST_HOST
from pydamon.dataset.stores import shown
from pydamon.errors import RequestError
from pydamon.plain import printable
from pydamon.service.shipping.labels import label

DAY_S = 86_400


class Shipping(msgspec.Struct, frozen=True):
    """Where to, and how; ``regions`` is N where one of N hosts ships regions, 0: none does. Paths are absolute."""

    to: str
    spool: str
    host: str | None = None
    host_class: str | None = None
    every_s: int = 900
    most_bytes: int = 256 << 20
    rate_bytes: int = 1 << 20  # per second
    most_cgroups: int = 1000
    regions: int = 0
    options: Mapping[str, str] = {}

    @property
    def where(self) -> str:
        """Where to, for people: without a password."""
        return shown(self.to)

    def host_name(self) -> str:
        """What this host is called now: as the file says, or by its machine's name."""
        name = self.host if self.host is not None else os.uname().nodename
        return label(name, MOST_HOST) or "(none)"

    def ships_regions(self, host: str, wall_s: float) -> bool:
        """Whether it is the turn of the host: each has one day of N."""
        return self.regions > 0 and (zlib.crc32(host.encode()) + int(wall_s) // DAY_S) % self.regions == 0

    def batch(self, host: str, wall_s: float) -> int:
        """Changes whenever a batch is to be closed: hosts do that at different times."""
        return int(wall_s + zlib.crc32(host.encode()) % self.every_s) // self.every_s


def parse_regions(text: str) -> int:
    """N of ``1/N``. Raises RequestError."""
    one, _, count = text.partition("/")
    if one.strip() == "1" and count.strip().isascii() and count.strip().isdecimal() and 1 <= int(count) <= 1_000_000:
        return int(count)
    raise RequestError(f"{printable(text)[:40]!r} is no share of the hosts; write it like 1/100", where="regions")
