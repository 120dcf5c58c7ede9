"""Thousands of processes may come and go while a kdamond runs: nothing is kept of those that have ended."""

from __future__ import annotations

import gc
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from pydamon.primitives.registry import obstacle
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.spec import Context, Intervals, Spec, Target
from pydamon.spec.model import Kdamond, Match
from pydamon.views.store import Store

_OBSTACLE = obstacle("bpf")
pytestmark = pytest.mark.skipif(_OBSTACLE is not None, reason=f"primitive bpf: {_OBSTACLE}")
_AT_A_TIME, _WARM, _IN_ALL = 5, 15, 45


def _ours() -> Counter[str]:
    """How many objects there are of each of pydamon's own types."""
    types = (type(each) for each in gc.get_objects())
    return Counter(each.__qualname__ for each in types if str(each.__module__).startswith("pydamon"))


def test_objects_do_not_become_more_with_the_processes_that_have_ended(tmp_path: Path) -> None:
    name = f"passing-{tmp_path.parent.name[-6:]}"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / name)
    context = Context(
        ops="vaddr",
        primitive="bpf",
        targets=(Target(match=Match(names=(name,))),),
        intervals=Intervals(sample_us=20_000, aggr_us=100_000, ops_update_us=100_000),
    )
    request = Request(engine="user", output=str(tmp_path / "run.damon"), rotate=(None, 10**9), keep=2)
    run = Run(Spec(kdamonds=(Kdamond(contexts=(context,)),)), request, observers=[Store()])
    live: list[subprocess.Popen[bytes]] = []
    known = 0
    before: Counter[str] = Counter()
    try:
        for _ in run.monitor():
            if run.engine.nr_targets < known + len(live):
                continue  # they live until they were seen, however long that takes
            known += len(live)
            for one in live:
                one.kill()
                one.wait()
            live = []
            if run.engine.nr_targets >= _IN_ALL:
                break
            if run.engine.nr_targets >= _WARM and not before:
                before = _ours()
                gc.disable()  # what is in a ring of objects stays for long
            live = [subprocess.Popen([tmp_path / name, "600"]) for _ in range(_AT_A_TIME)]
        after = _ours()
    finally:
        gc.enable()
        for one in live:
            one.kill()
            one.wait()
    more = {kind: count for kind, count in (after - before).items() if count > (_IN_ALL - _WARM) / 3}
    assert not more
