"""Start a command as the user who asked for it, also under sudo."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pydamon.errors import PydamonError, RequestError
from pydamon.linux import sudo

if TYPE_CHECKING:  # starting up counts against the bound on the CPU share, and most runs launch nothing
    import pwd
    import subprocess


def invoking_user() -> pwd.struct_passwd | None:
    """Who called sudo, if we are root through it; else None."""
    uid = sudo.invoking_user()
    if not uid:
        return None
    import pwd

    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise PydamonError(f"there is no user with the id {uid}", where="SUDO_UID") from None


def launch(
    command: Sequence[str], *, pass_fds: Sequence[int] = (), stdout: int | None = None, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Start ``command``; it has been executed when this returns. Raises RequestError if it cannot be."""
    import subprocess

    options: dict[str, Any] = {"pass_fds": pass_fds, "stdout": stdout, "stderr": stderr}
    user = invoking_user()
    if user is not None:
        options |= {
            "user": user.pw_uid,
            "group": user.pw_gid,
            "extra_groups": os.getgrouplist(user.pw_name, user.pw_gid),
            "env": {
                **os.environ,
                "HOME": user.pw_dir,
                "USER": user.pw_name,
                "LOGNAME": user.pw_name,
                "SHELL": user.pw_shell or "/bin/sh",
            },
        }
    try:
        return subprocess.Popen(command, **options)
    except OSError as error:
        raise RequestError(f"cannot be run: {error.strerror}", where=command[0]) from None
    except ValueError:  # a NUL character
        raise RequestError("is not a command", where=repr(command[0])) from None


class Ended(msgspec.Struct, frozen=True):
    """What became of a command that was launched: whether it ``still_ran`` and was ended, and its exit status."""

    still_ran: bool
    status: int


def end(process: subprocess.Popen[bytes], patience_s: float = 5.0) -> int:
    """End a command that we started, if it still runs: SIGTERM, then SIGKILL; returns its exit status."""
    if process.poll() is None:
        import subprocess

        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def describe_exit(status: int) -> str:
    """``exited with status 3`` or ``was ended by SIGTERM``."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
