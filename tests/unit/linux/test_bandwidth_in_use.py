"""The share of the memory's bandwidth from a recorded tree of resctrl; numbers are worked by hand."""

from __future__ import annotations

from pathlib import Path

from pydamon.linux.bandwidth import Bandwidth

SECOND = 1_000_000_000


def put(mount: Path, group: str, text: str, domain: int = 0) -> None:
    at = mount / group / "mon_data" / f"mon_L3_{domain:02}"
    at.mkdir(parents=True, exist_ok=True)
    (at / "mbm_total_bytes").write_text(text)


def test_all_control_groups_count_and_monitoring_groups_only_once(tmp_path: Path) -> None:
    """300 + 100 + 50 MB in a second of the 1000 MB that may be; a monitoring group's are its parent's, too."""
    for group in ("", "batch", "mon_groups/one"):
        put(tmp_path, group, "0\n")
    put(tmp_path, "", "5\n", domain=1)
    watched = Bandwidth(tmp_path, promised=1_000_000_000)
    assert watched.permil(0) is None
    put(tmp_path, "", "300000000\n")
    put(tmp_path, "", "100000005\n", domain=1)
    put(tmp_path, "batch", "50000000\n")
    put(tmp_path, "mon_groups/one", "250000000\n")
    assert watched.permil(SECOND) == 450


def test_counters_that_started_over_or_are_not_there_count_nothing(tmp_path: Path) -> None:
    put(tmp_path, "", "900000000\n")
    watched = Bandwidth(tmp_path, promised=1_000_000_000)
    watched.permil(0)
    put(tmp_path, "", "1000\n")
    assert watched.permil(SECOND) == 0
    put(tmp_path, "", "Unavailable\n")
    assert watched.permil(2 * SECOND) is None
    put(tmp_path, "", "9000000000000\n")
    assert watched.permil(3 * SECOND) is None
    put(tmp_path, "", "9000900000000\n")
    assert watched.permil(4 * SECOND) == 900
    assert watched.permil(4 * SECOND) is None
