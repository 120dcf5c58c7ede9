"""Which frames are in use: files of flags that the test writes, and a count of them one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pydamon.linux import frames_in_use
from pydamon.linux.frames_in_use import FramesInUse
from pydamon.linux.resident_scan import UNKNOWN

PAGE = 4096
BLOCK = 2 << 20
FREE, NO_PAGE, OFFLINE, LRU = 1 << 10, 1 << 20, 1 << 23, 1 << 5
RANGES = np.array([[PAGE, 159 * PAGE], [256 * PAGE, 8 * BLOCK], [20 * BLOCK, 25 * BLOCK + 7 * PAGE]], np.uint64)


@pytest.fixture
def flags(tmp_path: Path) -> tuple[str, np.ndarray]:
    """Random flags of so many frames that the last range is cut short by the end of the file."""
    words = np.random.default_rng(4).choice([0, LRU, FREE, NO_PAGE, OFFLINE, LRU | 1 << 12], 24 * 512)
    path = tmp_path / "kpageflags"
    path.write_bytes(words.astype(np.uint64).tobytes())
    return str(path), words


def look_at_all(scan: FramesInUse) -> None:
    for _ in range(100):
        scan.step(now_ns=scan._due_ns)
        if scan._seen.all():
            return
    raise AssertionError("it never comes to an end")


def test_the_bytes_of_any_range_are_those_of_its_frames_in_use(flags: tuple[str, np.ndarray]) -> None:
    path, words = flags
    used = np.append((words & (FREE | NO_PAGE | OFFLINE) == 0) & (words != 0), np.zeros(4096, bool))
    scan = FramesInUse(path)
    scan.follow(RANGES)
    look_at_all(scan)
    dice = np.random.default_rng(1)
    for low, high in RANGES.tolist():
        ends = np.sort(dice.integers(low // PAGE, high // PAGE + 1, (200, 2)), axis=1)
        ends = np.append(ends, [[low // PAGE, high // PAGE]], axis=0)
        start, end = (ends[:, side].astype(np.uint64) * np.uint64(PAGE) for side in (0, 1))
        found = scan.resident_bytes(start, end)
        assert found is not None
        assert found.tolist() == [int(used[first:behind].sum()) * PAGE for first, behind in ends.tolist()]


def test_what_was_not_looked_at_yet_is_unknown(flags: tuple[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames_in_use, "STEP_NS", 1)  # one read each
    monkeypatch.setattr(frames_in_use, "_READ", 4)
    scan = FramesInUse(flags[0])
    scan.follow(RANGES)
    start = np.array([256 * PAGE, 6 * BLOCK, 3 * BLOCK], np.uint64)
    end = np.array([4 * BLOCK, 7 * BLOCK, 5 * BLOCK], np.uint64)
    found = scan.resident_bytes(start, end)
    assert found is not None
    assert (found == UNKNOWN).all()
    scan.step(now_ns=scan._due_ns)  # the first four blocks
    found = scan.resident_bytes(start, end)
    assert found is not None
    assert (found == UNKNOWN).tolist() == [False, True, True]
    due, spent = scan._due_ns, scan.spent_ns
    scan.step(now_ns=due - 1)
    assert scan.spent_ns == spent
    look_at_all(scan)
    scan.follow(RANGES[:1])  # memory was removed
    scan.follow(RANGES)
    found = scan.resident_bytes(start, end)
    assert found is not None
    assert (found == UNKNOWN).all()


def test_without_the_file_nothing_is_known_and_it_says_why(tmp_path: Path) -> None:
    scan = FramesInUse(str(tmp_path / "none"))
    scan.follow(RANGES)
    scan.step()
    assert scan.obstacle is not None
    assert "CONFIG_PROC_PAGE_MONITOR" in scan.obstacle
    assert scan.resident_bytes(RANGES[:, 0], RANGES[:, 1]) is None
