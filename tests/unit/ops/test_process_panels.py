"""Processes that are asked for panel pages alone: who is asked, what is found, what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.helpers.programs import SLEEPS, program
from tests.helpers.waiting import wait_until

from pydamon.errors import MachineError, RequestError
from pydamon.linux.process import Process
from pydamon.linux.process_table import run_time_ns
from pydamon.ops.panels import ProcessPanels

pytestmark = pytest.mark.usefixtures("processes")

WORKS = "print('ready', flush=True)\nwhile True: pass"


class Pages:
    """A panel that finds all pages accessed."""

    def __init__(self) -> None:
        self.asked = 0

    def look(self, addresses: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        self.asked += 1
        return np.ones(len(addresses), np.bool_), np.zeros(len(addresses), np.bool_)

    def before_clear(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
        raise AssertionError("nothing else is cleared")


class FakePrimitive:
    """As much of a primitive as panels need."""

    name = "fake"

    def __init__(self, process: Process) -> None:
        self.panel: Pages | None = None
        self.closed = False

    def open_panel(self) -> Pages:
        self.panel = Pages()
        return self.panel

    def update(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    prepare = replace = check = None


def test_what_has_not_run_is_not_asked() -> None:
    made: list[FakePrimitive] = []

    def opened(process: Process) -> FakePrimitive:
        made.append(FakePrimitive(process))
        return made[-1]

    panels = ProcessPanels(opened)  # type: ignore[arg-type]
    pages = np.array([4096], np.uint64)
    with program(SLEEPS) as sleeper, program(WORKS) as worker:
        asleep, awake = panels.add(Process(sleeper)), panels.add(Process(worker))

        def rests() -> bool:
            panels.resident(asleep)
            panels.look_at_panel(asleep, pages)
            asked = made[asleep].panel.asked  # type: ignore[union-attr]
            panels.resident(asleep)
            accessed, unknown = panels.look_at_panel(asleep, pages)
            return made[asleep].panel.asked == asked and not accessed.any() and not unknown.any()  # type: ignore[union-attr]

        wait_until(rests)
        assert panels.look_at_panel(asleep, pages.copy())[0].all()  # other pages: their window begins now
        for look in range(1, 4):
            before = run_time_ns(worker)
            wait_until(lambda before=before: run_time_ns(worker) != before)  # type: ignore[misc]
            panels.resident(awake)
            assert panels.look_at_panel(awake, pages)[0].all()
            assert made[awake].panel.asked == look  # type: ignore[union-attr]
        assert panels.targets == [asleep, awake]
        panels.drop(asleep)
        assert made[asleep].closed
        assert not panels.target_valid(asleep)
        assert panels.add(Process(sleeper)) == 2  # a number stands for one for ever
        assert len(made) == 3
    wait_until(lambda: not panels.target_valid(awake))
    panels.close()
    assert all(primitive.closed for primitive in made)
    assert panels.targets == []


def test_a_refusal_leaves_nothing_open() -> None:
    def refuses(process: Process) -> FakePrimitive:
        raise MachineError("cannot")

    panels = ProcessPanels(refuses)  # type: ignore[arg-type]
    with program(SLEEPS) as pid:
        process = Process(pid)
        with pytest.raises(MachineError):
            panels.add(process)
        assert process.pidfd == -1
        assert panels.targets == []
    with pytest.raises(RequestError):
        Process(pid)
