"""How a record shows itself, in a prompt and in a notebook; what is needed for that is imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydamon.records.describe import Described


class Shown:
    """Of what can be described, one record or several that are read as one."""

    def __repr__(self: Described) -> str:
        from pydamon.records.describe import short

        return short(self)

    def _repr_html_(self: Described) -> str:
        """How a notebook shows it: what it is about and what it holds."""
        from pydamon.records.describe import describe

        return describe(self)
