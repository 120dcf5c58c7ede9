"""Entry point of the ``pydamon`` command and of ``python -m pydamon``."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its status."""
    from pydamon.cli import main as run
    from pydamon.lean import begin, leave

    begin()
    leave(run())


if __name__ == "__main__":
    main()
