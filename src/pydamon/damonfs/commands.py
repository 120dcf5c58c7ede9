"""What is written to ``state``: turn a kdamond on and off, change it, show what it did.

The tree's files hold only what is asked for and what was told last; each command moves something between them and the
running kdamond, as in the kernel.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

from pydamon.core.scheme_state import SchemeState
from pydamon.damonfs import formats, request
from pydamon.damonfs.formats import fail
from pydamon.damonfs.levels import Level
from pydamon.damonfs.nodes import Directory, Numbered, Value
from pydamon.damonfs.runner import Running, Start
from pydamon.damonfs.scheme_tree import TriedRegions, show_effective_bytes, show_stats
from pydamon.errors import PydamonError
from pydamon.spec import Context, Kdamond, Spec, validate


class Controller:
    """One kdamond directory's ``state`` and ``pid``, and the kdamond behind it.

    ``contexts`` is its directory of contexts, ``refresh_ms`` the file of that name.
    """

    def __init__(
        self,
        number: int,
        contexts: Numbered,
        *,
        level: Level,
        refresh_ms: Value,
        start: Start,
        say: Callable[[str], object],
    ) -> None:
        self._number = number
        self._contexts = contexts
        self._refresh_ms = refresh_ms
        self._start = start
        self._say = say
        self._level = level
        self._running: Running | None = None
        self._context: Context | None = None  # what was turned on or committed last
        self._refreshed_ns = 0
        commands: dict[str, Callable[[], None]] = {
            "on": self._on,
            "off": self._off,
            "commit": self._commit,
            "commit_schemes_quota_goals": self._commit_goals,
            "update_schemes_stats": self._update_stats,
            "update_schemes_tried_bytes": lambda: self._walk(with_regions=False),
            "update_schemes_tried_regions": lambda: self._walk(with_regions=True),
            "clear_schemes_tried_regions": self._clear_asked,
            "update_schemes_effective_quotas": self._update_effective_quotas,
            "update_tuned_intervals": self._update_intervals,
        }
        self._commands = {word: command for word, command in commands.items() if level.knows(word)}

    @property
    def running(self) -> bool:
        """Whether the kdamond runs."""
        return self._running is not None and not self._running.ended.is_set()

    @property
    def pid(self) -> int:
        """The kdamond's task; -1 if it does not run."""
        return self._running.pid if self._running is not None and self.running else -1

    def show_state(self) -> str:
        """The content of ``state``."""
        return "on\n" if self.running else "off\n"

    def close(self) -> None:
        """Stop the kdamond if it runs."""
        if self._running is not None and self.running:
            self._running.stop()

    def command(self, data: bytes) -> None:
        """Do what is written to ``state``; raises OSError with the kernel's error number."""
        word = formats.parse_word(data)
        action = self._commands.get(word)
        if action is None or (word != "off" and self._contexts.nr != 1):
            fail(errno.EINVAL)
        try:
            action()
        except PydamonError as error:
            # A program sees only the error number; who started damonfs can read why.
            self._say(f"kdamond {self._number}: {word}: {error}")
            fail(errno.EINVAL)

    # -- commands -----------------------------------------------------------------------------------------------

    def _on(self) -> None:
        if self.running:
            fail(errno.EBUSY)
        context = self._asked(None)
        self._refreshed_ns = time.monotonic_ns()  # shown first when `refresh_ms` are over
        self._running = self._start(self._number, context, every_sample=self._refresh, say=self._say)
        self._context = context

    def _off(self) -> None:
        if self._running is None:
            fail(errno.EINVAL)
        if self.running:
            self._running.stop()
        elif not self._level.tries_first:
            fail(errno.EPERM)

    def _commit(self) -> None:
        running = self._live()
        assert self._context is not None
        context = self._asked(len(self._context.targets))
        running.commit(context)
        self._context = context

    def _commit_goals(self) -> None:
        """Give goals their new values; nothing else of the schemes changes."""
        running = self._live()
        asked = request.schemes(self._files())
        for scheme, state in enumerate(running.states()[: len(asked)]):
            for goal, wanted in enumerate(asked[scheme].quotas.goals[: len(state.goals)]):
                if (wanted.metric, state.goals[goal].goal.metric) == ("user_input", "user_input"):
                    running.set_goal(scheme, goal, wanted.current_value)

    def _update_stats(self) -> None:
        self._live()
        for files, state in self._pairs():
            show_stats(files, state, self._unit)

    def _update_effective_quotas(self) -> None:
        self._live()
        for files, state in self._pairs():
            show_effective_bytes(files, state, self._unit)

    def _update_intervals(self) -> None:
        intervals = self._live().intervals()
        files = self._files()["monitoring_attrs/intervals"]
        files.set("sample_us", intervals.sample_us)
        files.set("aggr_us", intervals.aggr_us)

    def _walk(self, *, with_regions: bool) -> None:
        if self._running is not None and self._level.tries_first:
            self._clear()  # what was shown is gone, whatever comes of it
        running = self._live()
        if self._context is not None and self._context.pause:
            fail(errno.ECANCELED)
        tried = running.walk()
        if not tried and not self.running and self._level.tries_first:
            fail(errno.ECANCELED)  # it has ended meanwhile
        for number, scheme in enumerate(self._files()["schemes"]):
            if number >= len(running.states()):
                break  # made after the kdamond was turned on
            parts = tried.get(number, [])
            total = sum(int((part.end - part.start).sum()) for part in parts)
            _tried_regions(scheme).fill(parts if with_regions else [], total, self._unit)

    def _clear_asked(self) -> None:
        if not self._level.tries_first:
            self._live()
        self._clear()

    def _clear(self) -> None:
        for files in self._files()["schemes"]:
            _tried_regions(files).clear()

    # -- what they need -----------------------------------------------------------------------------------------

    def _live(self) -> Running:
        if self._running is None:
            fail(errno.EINVAL)
        if not self.running:
            fail(errno.ECANCELED if self._level.tries_first else errno.EINVAL)
        return self._running

    def _files(self) -> Any:
        files = self._contexts.get("0")
        if files is None:
            fail(errno.EINVAL)
        return files

    def _asked(self, nr_running: int | None) -> Context:
        context = request.context(self._files(), level=self._level, nr_running=nr_running)
        validate(Spec(kdamonds=(Kdamond(contexts=(context,)),)))
        return context

    @property
    def _unit(self) -> int:
        """How many bytes the files of the running kdamond count by."""
        return 1 if self._context is None else self._context.addr_unit

    def _pairs(self) -> Iterator[tuple[Directory, SchemeState]]:
        """The directories of schemes with what runs; users may have changed how many there are meanwhile."""
        states = [] if self._running is None else self._running.states()
        yield from zip(self._files()["schemes"], states, strict=False)

    def _refresh(self) -> None:
        """Called after each sample: every ``refresh_ms``, show what the files would only tell when asked."""
        period_ms = self._refresh_ms.value
        if not period_ms or not self._contexts.nr:
            return
        now_ns = time.monotonic_ns()
        if now_ns - self._refreshed_ns < period_ms * 1_000_000:
            return
        self._refreshed_ns = now_ns
        try:
            self._update_intervals()
            self._update_stats()
            self._update_effective_quotas()
        except (OSError, KeyError):
            pass  # the directories are just being changed


def _tried_regions(scheme: Directory) -> TriedRegions:
    files = scheme["tried_regions"]
    assert isinstance(files, TriedRegions)
    return files
