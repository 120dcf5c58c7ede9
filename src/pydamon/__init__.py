"""pydamon: DAMON, the Linux data access monitor, as practical user-space software."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
