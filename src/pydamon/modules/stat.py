"""``stat``: how busy and how idle memory is, as numbers: what DAMON_STAT tells, also of processes and cgroups.

It acts on nothing. Its numbers are worked out every few seconds from the snapshot that there is then, by the
definitions of Documentation/admin-guide/mm/damon/stat.rst; intervals are tuned as the run's are.
"""

from __future__ import annotations

from pydamon.modules.base import Knobs, Module
from pydamon.spec.module_numbers import OF_LOOKING


class StatKnobs(Knobs, frozen=True, kw_only=True):
    """There are none."""


STAT = Module(
    name="stat",
    help="tell how much memory is idle for how long, and the bytes accessed per second (DAMON_STAT's numbers)",
    knobs=StatKnobs,
    where={
        "user": ("process", "cgroup", "physical"),
        "kernel": ("process", "physical"),
        "sim": ("process",),
    },
    numbers=OF_LOOKING,
)
