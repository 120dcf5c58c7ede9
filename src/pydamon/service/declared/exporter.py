"""The metrics of a service, told in a process of its own: scraping and its threads stay away from supervision."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from pydamon import messages
from pydamon.run.signals import Signals
from pydamon.service.declared.helper import running_monitors

if TYPE_CHECKING:
    from pydamon.service.shipping.settings import Shipping


def export(service: str, where: str, shipping: Shipping | None, life: int) -> None:
    """Tell them at ``where`` until SIGTERM, or until ``life`` can be read: who supervises is gone."""
    from pydamon.service.metrics import OfKdamonds, publish, reach
    from pydamon.service.shipping.told import families, read_status

    def monitors() -> list[str]:
        return [str(monitor["name"]) for monitor in running_monitors(service)]

    more = None if shipping is None else lambda: families(service, read_status(shipping.spool))
    with Signals() as signals, publish(where, OfKdamonds(monitors), more=more) as shown:
        messages.say(f"{shown}{reach(where)}")
        select.select([life, signals.wake_fd], [], [])
