"""Who called sudo, as far as it says so: files and commands are that user's."""

from __future__ import annotations

import os


def invoking_user() -> int | None:
    """The user id of who called sudo, if we are root through it; else None."""
    uid = os.environ.get("SUDO_UID", "")
    return int(uid) if os.geteuid() == 0 and uid.isascii() and uid.isdigit() else None


def invoking_owner() -> tuple[int, int] | None:
    """The user and group id of who called sudo; None where one of them is not told."""
    uid, gid = invoking_user(), os.environ.get("SUDO_GID", "")
    return (uid, int(gid)) if uid is not None and gid.isascii() and gid.isdigit() else None
