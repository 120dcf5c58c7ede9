"""Policies as they can be played on a recording: schemes alone, and always active."""

from __future__ import annotations

import msgspec

from pydamon.errors import RequestError
from pydamon.modules.registry import parse
from pydamon.spec import Scheme
from pydamon.spec.schemes import Watermarks


def of_module(text: str) -> tuple[Scheme, ...]:
    """The schemes of a module. Raises RequestError for what is none, or has a loop beside its schemes."""
    use = parse(text)
    if use.controllers("process"):
        raise RequestError(f"{use.write()} is a loop beside schemes, which cannot be played on a recording")
    return use.schemes("process")


def always_active(scheme: Scheme) -> Scheme:
    """The scheme without its watermarks: nothing in a recording says how much memory is free."""
    return msgspec.structs.replace(scheme, watermarks=Watermarks())
