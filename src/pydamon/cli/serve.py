"""``pydamon serve``: recordings as a page in the browser. Read only."""

from __future__ import annotations

import contextlib
import glob
import ipaddress
import os
import re
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from pydamon import lean, messages
from pydamon.cli.completion.values import FILE, RECORD, kdamonds
from pydamon.cli.help.classes import Verb
from pydamon.cli.inputs import DEFAULT
from pydamon.cli.render.screen import echo
from pydamon.errors import MachineError, PydamonError, RequestError, located
from pydamon.plain import printable
from pydamon.run.signals import Signals

if TYPE_CHECKING:
    from pydamon.service.client import Client
    from pydamon.web.recording import Recording

_MOST = 64
_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{16,256}")


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [*kdamonds(ctx, param, incomplete), *RECORD.shell_complete(ctx, param, incomplete)]


@click.command("serve", cls=Verb)
@click.argument("records", nargs=-1, shell_complete=_complete, metavar="[RECORD|NAME]...")
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, metavar="ADDR:PORT", help="Where to serve; 0: any free port."
)
@click.option("--name", "names", multiple=True, metavar="HOST", help="A host name by which it is reached, too.")
@click.option("--token-file", type=FILE, help="Take the token from the first line of this file; else it is a new one.")
def command(records: tuple[str, ...], listen: str, names: tuple[str, ...], token_file: str | None) -> None:
    """Show recordings as a page in the browser, until Ctrl-C. Nothing can be changed from the page.

    Of a kdamond in the background (NAME) it shows the record that is being written, or what it keeps in memory where
    there is none, and the status; and /metrics of all of these.

    The address that is printed has a token; who has it can read what the records have. There is no TLS: for more than
    this machine put a proxy before it.
    """
    address, port = _place(listen)
    token = None if token_file is None else _token(token_file)
    try:
        with lean.imports():
            from pydamon.web.server import guarded, keep_little, listener, new_token, serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "anyio", "h11"):
            raise
        raise MachineError("needs starlette and uvicorn: pip install 'pydamon[serve]'", where="serve") from None
    keep_little()
    if len(records) > _MOST:
        raise RequestError(f"{len(records)} records are too many; the most is {_MOST}", where="RECORD")
    recordings: list[Recording] = []
    with Signals() as signals, contextlib.ExitStack() as held:
        with signals.interruptible():
            for path in dict.fromkeys(records or (DEFAULT,)):
                recordings.append(_recording(path, held, signals))
            with located("--listen"):
                place = held.enter_context(listener(address, port))
        port = place.getsockname()[1]
        token = token or new_token()
        for recording in recordings:
            recording.start()
        local = ipaddress.ip_address(address).is_loopback

        def started() -> None:
            host = f"[{address}]" if ":" in address else address
            messages.say(f"serving {len(recordings)} recording{'s' * (len(recordings) != 1)} (Ctrl-C ends it):")
            echo(f"http://{host}:{port}/?token={token}")
            if not local:
                messages.tell("--listen: others can reach it, and read what is sent; put a proxy with TLS before it")

        serve(place, guarded(recordings, token, names, port), started, signals)


def _recording(word: str, held: contextlib.ExitStack, signals: Signals) -> Recording:
    """The record of that name, or else what the kdamond in the background has found; closed with ``held``."""
    from pydamon.service.client import Client, running
    from pydamon.web.recording import Recording

    if os.path.lexists(word) or word not in running():
        return held.enter_context(Recording(word))
    client = Client(word)

    def told() -> list[str]:
        from pydamon.views import lines, status

        try:
            return lines.details(status.running(client.status()))
        except PydamonError as error:
            return [printable(str(error))]

    path = _record_of(client)
    if path is not None:
        return held.enter_context(Recording(path, status=told, kdamond=word))
    from pydamon.web.feed import NOTE, Feed

    feed = held.enter_context(contextlib.closing(Feed(client, undisturbed=signals.undisturbed)))
    return held.enter_context(Recording(feed.path, status=told, note=NOTE, kdamond=word))


def _record_of(client: Client) -> str | None:
    """Where the record is that a kdamond writes, of parts a pattern; None if there is none that we may read."""
    from pydamon.records.rotating import parts_of

    path: str | None = client.status()["record"]
    if path is not None and not os.path.lexists(path) and glob.glob(parts := parts_of(path)):
        return parts
    return path if path is not None and os.access(path, os.R_OK) else None


def _place(text: str) -> tuple[str, int]:
    """``127.0.0.1:8080``, ``[::1]:8080``."""
    address, colon, port = text.rpartition(":")
    address = address.strip("[]") if address.startswith("[") and address.endswith("]") else address
    try:
        ipaddress.ip_address(address)
        if not colon or not port.isdecimal() or int(port) > 65535:
            raise ValueError
    except ValueError:
        message = f"{text!r} must be an address and a port, e.g. 127.0.0.1:8080 or [::1]:8080"
        raise RequestError(message, where="--listen") from None
    return address, int(port)


def _token(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            found = file.readline(300).strip()
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: {getattr(error, 'strerror', 'is not text')}", where="--token-file") from None
    if not _TOKEN.fullmatch(found):
        message = f"{path}: its first line must be 16 to 256 letters, digits and any of -._~"
        raise RequestError(message, where="--token-file")
    return found
