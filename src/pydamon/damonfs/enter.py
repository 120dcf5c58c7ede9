"""The small program between ``pydamon mount -- COMMAND`` and the command: it makes the private view of the mounts."""

from __future__ import annotations

from pydamon import messages
from pydamon.damonfs import namespace
from pydamon.errors import PydamonError


def main(arguments: list[str]) -> int:
    """Become the command: ``SYSFS DEBUGFS COMMAND …``, the first two being directories or empty."""
    sysfs, debugfs, *command = arguments
    try:
        namespace.execute(command, sysfs or None, debugfs or None)
    except PydamonError as error:
        messages.say(str(error))
        return error.exit_status
    except OSError as error:
        messages.say(f"{command[0]}: {error.strerror}")
        return 2
