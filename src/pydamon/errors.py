"""The error tree of pydamon.

PydamonError            exit status 1: the work failed
├── RequestError        exit status 2: the request was wrong (an option, a field, a file)
└── MachineError        exit status 3: this machine (or this user on it) cannot do it

Every message is one line: what it is about (`where`), what was wrong, and what would be right.
"""

from __future__ import annotations


class PydamonError(Exception):
    """Base of all errors that pydamon raises on purpose; ``where`` names the field, file or option."""

    exit_status = 1

    def __init__(self, message: str, *, where: str | None = None) -> None:
        self.message = message
        self.where = where
        super().__init__(f"{where}: {message}" if where else message)


class RequestError(PydamonError):
    """What was asked for is wrong: an option, a field of a spec, or the content of a file."""

    exit_status = 2


class MachineError(PydamonError):
    """This machine, kernel, or user cannot do what was asked for."""

    exit_status = 3
