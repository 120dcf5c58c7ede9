"""Whether what this machine frees goes back to its host: a virtio balloon with free page reporting.

VIRTIO 1.2, 5.5 (device 5, feature 5: VIRTIO_BALLOON_F_PAGE_REPORTING); Documentation/mm/free_page_reporting.rst.
"""

from __future__ import annotations

from pathlib import Path

from pydamon.linux.texts import read_text

_DEVICES = Path("/sys/bus/virtio/devices")
_BALLOON = 5
_REPORTING = 5  # the number of the feature: its place in the text of features


def reporting_obstacle(devices: Path = _DEVICES) -> str | None:
    """Why freed memory does not go back; None if it does."""
    found = [path for path in _entries(devices) if _is_balloon(path)]
    if not found:
        return "there is no virtio balloon here: the host has to give this machine one with free page reporting"
    if not any((path / "driver").exists() for path in found):
        return "the virtio balloon has no driver (CONFIG_VIRTIO_BALLOON)"
    if not any(_reports(path) for path in found):
        return "the virtio balloon reports no free pages: the host has to allow it (QEMU: free-page-reporting=on)"
    return None


def _entries(devices: Path) -> list[Path]:
    try:
        return sorted(devices.iterdir())
    except OSError:
        return []


def _is_balloon(device: Path) -> bool:
    try:
        return int(read_text(device / "device").strip(), 16) == _BALLOON
    except (OSError, ValueError):
        return False


def _reports(device: Path) -> bool:
    """The features that device and driver agree on are a text of 0 and 1, the first of them feature 0."""
    try:
        return read_text(device / "features")[_REPORTING : _REPORTING + 1] == "1"
    except OSError:
        return False
