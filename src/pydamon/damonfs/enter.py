"""The small program between ``pydamon mount -- COMMAND`` and the command: it makes the private view of the mounts."""

from __future__ import annotations

import sys

from pydamon.damonfs import namespace
from pydamon.errors import PydamonError


def main(arguments: list[str]) -> int:
    """Become the command: ``SYSFS DEBUGFS COMMAND …``, the first two being directories or empty."""
    sysfs, debugfs, *command = arguments
    try:
        namespace.execute(command, sysfs or None, debugfs or None)
    except PydamonError as error:
        print(f"pydamon: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"pydamon: {command[0]}: {error.strerror}", file=sys.stderr)
        return 2
