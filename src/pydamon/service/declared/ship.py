"""The part of a service file about shipping, understood."""

from __future__ import annotations

import os

from pydamon.dataset.files import MOST_HOST, MOST_TEXT
from pydamon.dataset.stores import check_where
from pydamon.errors import RequestError, located
from pydamon.plain import printable
from pydamon.service.declared.layout import ShipFields
from pydamon.service.shipping.settings import DAY_S, Shipping, parse_regions
from pydamon.spec import units

_LEAST_S = 60
_LEAST_BYTES = 1 << 20
_LEAST_RATE = 1 << 10
_MOST_CGROUPS = 20_000


def understand_shipping(fields: ShipFields, beside: str) -> Shipping:
    """What it says; directories are relative to the directory ``beside``. Raises RequestError naming the field."""
    to = os.path.expanduser(fields.to)
    if check_where(fields.to, fields.options):
        to = os.path.join(beside, to)
    with located("every"):
        every_s = units.parse_time_ns(fields.every) // 1_000_000_000
        if not _LEAST_S <= every_s <= DAY_S:
            raise RequestError(f"is {fields.every}; it must be 1min to 1d")
    with located("cgroups"):
        if not 2 <= fields.cgroups <= _MOST_CGROUPS:
            raise RequestError(f"is {fields.cgroups}; it must be 2 to {_MOST_CGROUPS}")
    if not fields.spool or "\0" in fields.spool:
        raise RequestError("is not the name of a directory", where="spool")
    return Shipping(
        to=to,
        spool=os.path.join(beside, os.path.expanduser(fields.spool)),
        host=_label(fields.host, "host", MOST_HOST),
        host_class=_label(fields.host_class, "class", MOST_TEXT),
        every_s=every_s,
        most_bytes=_size(str(fields.most), "most", _LEAST_BYTES),
        rate_bytes=_size(str(fields.rate), "rate", _LEAST_RATE),
        most_cgroups=fields.cgroups,
        regions=0 if fields.regions is None else parse_regions(fields.regions),
        options=dict(fields.options),
    )


def _label(text: str | None, field: str, most: int) -> str | None:
    if text is not None and (not text or len(text) > most or printable(text) != text):
        raise RequestError(f"is empty, longer than {most} characters, or not printable", where=field)
    return text


def _size(text: str, field: str, least: int) -> int:
    with located(field):
        found = units.parse_size(text)
        if found < least:
            raise RequestError(f"is {text}; it must be at least {units.format_size(least)}")
        return found
