"""One call on another thread: the next piece of a record is decoded while this one is looked at."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pydamon.records.decode import Rows


class Ahead(threading.Thread):
    """One call on another thread. (concurrent.futures would do, but importing it takes longer than a chunk.)"""

    def __init__(self, call: Callable[..., Rows | None], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._call, self._arguments = call, arguments
        self._result: Rows | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """On the other thread."""
        try:
            self._result = self._call(*self._arguments)
        except BaseException as error:
            self._error = error

    def result(self) -> Rows | None:
        """What the call returned or raised, as soon as it has."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._result
