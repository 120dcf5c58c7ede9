"""What a kdamond without a record has found: asked over its socket into a record of ours, while it is shown."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pydamon import messages
from pydamon.errors import PydamonError
from pydamon.plain import printable
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter
from pydamon.run.found import Origin
from pydamon.service.client import Client
from pydamon.views.moments import Moment
from pydamon.views.passing import received
from pydamon.views.writing import MomentWriter

NOTE = (
    "there is no record to read: what this kdamond keeps in memory is shown, a snapshot a second of the last minutes,"
    " and what comes; what happened between them, and what probes found, is not"
)
_EVERY_S = 1.0
_MOST_BACK = 600  # moments of before
_BACK_REGIONS = 200_000  # in them: to tell them takes the kdamond time
_MOST_BYTES = 256 << 20  # of the record; then it begins anew
_ORIGIN = Origin(None, None, None, None, None, [], None)


class Feed:
    """Keeps a record of the kdamond ``client`` at ``path``, in a directory that goes with it. `close` ends its thread.

    ``undisturbed``: what nothing may come between, or the directory would stay. Raises PydamonError if it has found
    nothing yet, or does not tell.
    """

    def __init__(
        self, client: Client, *, undisturbed: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    ) -> None:
        self._client = client
        with undisturbed():
            self._folder = tempfile.TemporaryDirectory(prefix="pydamon-serve-")
        self.path = os.path.join(self._folder.name, f"{client.name}.damon")
        self._stopped = threading.Event()
        try:
            self._pid, self._writer = self._begin()
        except BaseException:
            self._folder.cleanup()
            raise
        self._thread = threading.Thread(target=self._follow, name=f"follows {client.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Let go of it all."""
        self._stopped.set()
        self._thread.join()
        self._folder.cleanup()

    def _begin(self) -> tuple[int, RecordWriter]:
        """(the kdamond's process, a new record with what it knows of the last minutes)."""
        latest = received(self._client.moments()["moments"], _ORIGIN)[:1]
        regions = sum(len(known.snapshot.start) for moment in latest for known in moment.targets.values())
        told = self._client.moments(back=min(_MOST_BACK, _BACK_REGIONS // max(regions, 1)))
        about = _about(told.get("about"), self._client.name)
        writer = RecordWriter(self.path, metadata=about)
        self._into = MomentWriter(writer, [target["target"] for target in about["targets"]])
        self._after_ns: int | None = None
        self._add(received(told["moments"], _ORIGIN))
        return told["pid"], writer

    def _add(self, moments: Sequence[Moment]) -> None:
        for moment in moments:
            self._into.add(moment)
            self._after_ns = moment.time_ns

    def _follow(self) -> None:
        try:
            more = True
            while not self._stopped.wait(0 if more else _EVERY_S):
                more = self._take_in()
        except PydamonError as error:  # it has ended
            messages.say(printable(str(error)))
        finally:
            with contextlib.suppress(PydamonError, OSError):
                self._writer.close()

    def _take_in(self) -> bool:
        """Add what is new; whether there is more. Raises PydamonError."""
        told = self._client.moments(self._after_ns)
        if told["pid"] != self._pid or self._writer.bytes_written > _MOST_BYTES:
            self._writer.close()
            self._pid, self._writer = self._begin()
            return True
        moments = received(told["moments"], _ORIGIN)
        self._add(moments)
        return len(moments) > 1


def _about(told: Any, name: str) -> dict[str, Any]:
    """The description of the record. Raises PydamonError."""
    try:
        return build_metadata(**told)
    except TypeError:
        raise PydamonError("is of another version of pydamon; start it anew", where=name) from None
