"""``pydamon mount``: DAMON's sysfs tree, served by the user engine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import click

from pydamon.cli.completion.values import FILE
from pydamon.cli.options import LaunchCommand
from pydamon.cli.render.screen import echo
from pydamon.errors import RequestError
from pydamon.spec.primitives import CHOICES

_LEVELS = "6.12, 6.14 to 6.19, 7.0 to 7.3, mm (newest)"


@click.command("mount", cls=LaunchCommand)
@click.argument("directory", required=False)
@click.option("--level", default="mm", show_default=True, metavar="KERNEL", help=f"Look like this kernel: {_LEVELS}.")
@click.option("--debugfs", metavar="DIR", help="Also (or only) serve the legacy debugfs tree, on this directory.")
@click.option("--primitive", type=click.Choice(CHOICES), default="auto", help="How pages are asked.")
@click.option("--faithful", is_flag=True, help="Sample as the kernel does; ignore what this machine tells for free.")
@click.option("--user-events", is_flag=True, help="Offer what kdamonds find to perf and trace-cmd, as user_events:...")
@click.option(
    "--log",
    type=FILE,
    help="Append what it says (e.g. why a write was refused) to this file.",
)
@click.option("-f", "--foreground", is_flag=True, help="Do not return until it is unmounted.")
@click.pass_context
def command(
    ctx: click.Context, /, directory: str | None, debugfs: str | None, foreground: bool, **options: Any
) -> None:
    """Serve DAMON's sysfs tree on DIRECTORY; `umount DIRECTORY` ends it, and stops all its kdamonds.

    With COMMAND (after --): run it where /sys/kernel/mm/damon is this tree, and end with it. Nobody else on the machine
    sees that; the kernel's own DAMON is left alone. DIRECTORY is not needed then.
    """
    from pydamon.damonfs import server

    launch: list[str] | None = ctx.meta["launch"]
    log = options.pop("log")
    log = None if log is None else os.path.abspath(log)
    if launch == []:
        raise RequestError("is not followed by a command", where="--")
    if launch is None and directory is None and debugfs is None:
        raise RequestError("is missing; or give a command after --", where="DIRECTORY")
    if launch is not None and foreground:
        raise RequestError("does not go with a command", where="--foreground")
    if options["user_events"]:
        from pydamon.linux import user_events

        user_events.probe()
    with contextlib.ExitStack() as stack:
        wanted: list[tuple[str, server.Options]] = []
        if directory is None and debugfs is None:
            directory = stack.enter_context(_private_directory())
        for path, where, legacy in ((directory, "DIRECTORY", False), (debugfs, "--debugfs", True)):
            if path is not None:
                checked = server.check_directory(path, where)
                wanted.append((checked, server.Options(legacy=legacy, **options)))
        served: list[server.Served] = []
        try:
            for path, each in wanted:
                served.append(server.start(path, each, log=log, session=not foreground and launch is None))
            if foreground:
                _say(served)
                for one in served:
                    one.wait()  # until it is unmounted
        except BaseException:
            _close(served)
            raise
        if launch is not None:
            stack.callback(_close, served)
            ctx.exit(_run(launch, directory and wanted[0][0], debugfs and wanted[-1][0]))
        if not foreground:
            _say(served)


def _say(served: list[Any]) -> None:
    for one in served:
        echo(f"damonfs on {one.directory} (pid {one.pid}); umount {one.directory} ends it")
    if sys.stdout is not None:
        sys.stdout.flush()


@contextlib.contextmanager
def _private_directory() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="damonfs-")
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _close(served: list[Any]) -> None:
    """Unmount all that are still mounted."""
    for one in served:
        with contextlib.suppress(OSError):
            one.close()


def _run(launch: list[str], sysfs: str | None, debugfs: str | None) -> int:
    """Run the command with its own view of the machine's mounts; returns its exit status."""
    code = "import sys; from pydamon.damonfs.enter import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, sysfs or "", debugfs or "", *launch]
    with subprocess.Popen(arguments) as child:
        while True:
            try:
                status = child.wait()
                break
            except KeyboardInterrupt:
                continue  # the command has got it, too: it decides
    return status if status >= 0 else 128 - status
