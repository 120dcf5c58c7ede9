"""Recordings of simulated workloads, and what ``pydamon what-if`` says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydamon.cli import main
from pydamon.library.playing import Player, Policy
from pydamon.library.policies import Outcome

MIB = 1 << 20


def sweep(seconds: int) -> str:
    """A workload: 32 MiB are used all the time, 64 MiB once in 30 s, 96 MiB never: at 50 million accesses a second."""
    return f"""#regions
hot, 32 MiB
report, 64 MiB
unused, 96 MiB

day
{seconds * 1000}
hot, 0, 4096, 91553
report, 0, 4096, 1
"""


def recorded(directory: Path, workload: str, *more: str) -> Path:
    """A recording of the workload, at intervals of 100 ms and 1 s."""
    text, path = directory / "w.masim", directory / "w.damon"
    text.write_text(workload)
    times = ["--sample", "100ms", "--aggr", "1s", "--max-regions", "200"]
    assert main(["record", "--ops", "sim", "--workload", str(text), "-o", str(path), *times, *more]) == 0
    return path


def told(capsys: pytest.CaptureFixture[str], path: Path, *more: str) -> dict[str, Any]:
    """The JSON that is printed."""
    capsys.readouterr()
    assert main(["what-if", "-i", str(path), "--json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def play_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a search plays nothing: every policy saves a tenth of 160 MiB, at no cost."""

    class Nothing(Player):
        def play(self, policies: Sequence[Policy]) -> list[Outcome]:
            seconds = np.arange(1.0, 200.0)
            resident, faults = np.full(len(seconds), 144.0 * MIB), np.zeros(len(seconds))
            return [Outcome(text, seconds, resident, faults, 16 * MIB, 160 * MIB) for text, _ in policies]

    monkeypatch.setattr("pydamon.library.search.Player", Nothing)
