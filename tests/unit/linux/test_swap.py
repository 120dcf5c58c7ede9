"""How much swap there is, and that nothing is invented where that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydamon.linux import swap

MEMINFO = "MemTotal:       16 kB\nSwapCached:     12 kB\nSwapTotal:   {} kB\nSwapFree:   1 kB\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (MEMINFO.format(2048), 2048 * 1024),
        (MEMINFO.format(0), 0),
        ("MemTotal: 16 kB\n", None),
        ("SwapTotal: many kB\n", None),
        ("SwapTotal:\n", None),
        ("", None),
        (None, None),
    ],
)
def test_all_swap_in_bytes(
    text: str | None, found: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "meminfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(swap, "_MEMINFO", str(path))
    assert swap.swap_bytes() == found


def test_this_machine_says_the_same_in_two_places() -> None:
    entries = Path("/proc/swaps").read_text().splitlines()[1:]
    assert swap.swap_bytes() == sum(int(line.split()[2]) for line in entries) * 1024
