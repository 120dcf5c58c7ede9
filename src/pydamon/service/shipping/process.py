"""The process of a service that ships: it asks the monitors once a minute, by their sockets."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pydamon import messages
from pydamon.dataset.stores import open_store
from pydamon.errors import PydamonError
from pydamon.linux.footprint import read_footprint
from pydamon.run.signals import Signals
from pydamon.service.client import Client
from pydamon.service.shipping.rows import Seen
from pydamon.service.shipping.sender import Sender
from pydamon.service.shipping.settings import Shipping
from pydamon.service.shipping.shipper import Shipper
from pydamon.service.shipping.spool import Spool

_ASK_S = 5.0
_AT_ONCE = 4
_LATE_S = 0.05  # after the minute's end: timers may be early by the clock


def ship(settings: Shipping, monitors: Callable[[], list[dict[str, Any]]], life: int) -> None:
    """Ship until SIGTERM, or until ``life`` can be read: who supervises is gone. Raises PydamonError."""
    spool = Spool(settings.spool, settings.most_bytes, messages.say)
    sender = Sender(
        spool,
        partial(open_store, settings.to, settings.options, make=True),
        rate=settings.rate_bytes,
        wall_s=time.time,
        say=messages.say,
    )
    asking = Asking(messages.say)
    shipper = Shipper(
        settings,
        spool,
        sender,
        lambda: asking(monitors()),
        look_at_regions=_regions,
        say=messages.say,
    )
    messages.say(f"ships to {settings.where} as {settings.host_name()}, every {settings.every_s} s")
    with Signals() as signals:
        shipper.start()
        while not select.select([life, signals.wake_fd], [], [], shipper.wait_s() + _LATE_S)[0]:
            shipper.minute()
        shipper.stop()


class Asking:
    """Asks monitors what they tell; who does not answer is left out, and that is said once."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._silent: set[str] = set()

    def __call__(self, monitors: list[dict[str, Any]]) -> list[Seen]:
        """What these monitors tell now."""
        if not monitors:
            return []
        with ThreadPoolExecutor(min(len(monitors), _AT_ONCE)) as asking:
            found = list(asking.map(_seen, monitors))
        silent = {monitor["name"]: one for monitor, one in zip(monitors, found, strict=True) if isinstance(one, str)}
        for name in sorted(silent.keys() - self._silent):
            self._say(f"{name} tells nothing and is not shipped: {silent[name]}")
        self._silent = set(silent)
        return sorted((one for one in found if isinstance(one, Seen)), key=lambda one: one.name)


def _seen(monitor: dict[str, Any]) -> Seen | str | None:
    """What it tells, or why it does not; None: it has found nothing yet."""
    name, pid = monitor["name"], monitor["pid"]
    try:
        view, _ = Client(name, timeout_s=_ASK_S).live(mappings=())
    except PydamonError as error:
        return str(error)
    if view is None or pid is None:
        return None
    own = read_footprint(pid) or {}
    return Seen(name, pid, view, own.get("resident_bytes"), dry_run=bool(monitor.get("dry_run")))


def _regions(seen: Sequence[Seen], host: str, minute: int) -> bytes | None:
    from pydamon.service.shipping.regions import look  # what it needs is seldom needed

    return look(seen, host, minute)
