"""The error tree of pydamon.

PydamonError            exit status 1: the work failed
├── RequestError        exit status 2: the request was wrong (an option, a field, a file)
└── MachineError        exit status 3: this machine (or this user on it) cannot do it

Every message is one line: what it is about (`where`), what was wrong, and what would be right. Whoever hands on a part
of a larger thing says ``with located("schemes[0]"):``, and an error names that part by its whole path.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class PydamonError(Exception):
    """Base of all errors that pydamon raises on purpose; ``where`` names the field, file or option."""

    exit_status = 1

    def __init__(self, message: str, *, where: str | None = None) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.message = message
        self.where = where

    def move(self, where: str | None) -> None:
        """From now on it is about ``where``."""
        self.where = where
        self.args = (f"{where}: {self.message}" if where else self.message,)


class RequestError(PydamonError):
    """What was asked for is wrong: an option, a field of a spec, or the content of a file."""

    exit_status = 2


class MachineError(PydamonError):
    """This machine, kernel, or user cannot do what was asked for."""

    exit_status = 3


@contextlib.contextmanager
def located(place: str, joint: str = ".") -> Iterator[None]:
    """An error that is raised in here is about ``place``, or a part of it.

    ``quotas.sz_bytes`` becomes ``schemes[0].quotas.sz_bytes``; with the joint ``": "`` it becomes
    ``policy.yaml: quotas.sz_bytes``. An index follows without a joint.
    """
    try:
        yield
    except PydamonError as error:
        rest = error.where or ""
        error.move(place + (joint if rest and place and not (rest.startswith("[") and joint == ".") else "") + rest)
        raise
