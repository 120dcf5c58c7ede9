"""pydamon: DAMON, the Linux data access monitor, as practical user-space software."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["AccessFilter", "AccessReports", "__version__"]


def __getattr__(name: str) -> object:
    # Looked up when used: the command's start-up must not pay for NumPy.
    if name in ("AccessFilter", "AccessReports"):
        from pydamon.ops import reports

        return getattr(reports, name)
    raise AttributeError(f"module 'pydamon' has no attribute {name!r}")
