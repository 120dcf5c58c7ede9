"""``damo``, unmodified, on damonfs: its options that open items and what it writes of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.integration.test_damonfs import why_not_mounted
from tests.integration.test_damonfs_damo import DAMO, damo_steps

from pydamon.spec.forms.scheme_files import Loaded, load
from pydamon.spec.model import Context

pytestmark = [
    pytest.mark.skipif(why_not_mounted() is not None, reason=f"no FUSE here: {why_not_mounted()}"),
    pytest.mark.skipif(DAMO is None, reason="damo is not installed (pip install damo)"),
    pytest.mark.skipif(not os.path.isdir("/sys/kernel/tracing"), reason="damo needs tracefs; this kernel has none"),
]

_BEGIN = """
set -e
grep -q ' /sys/kernel/mm/damon fuse.damonfs ' /proc/mounts
step() { echo "== $1"; shift; "$DAMO" "$@"; }
refused() { echo "== $1"; shift; if "$DAMO" "$@" 2>&1; then exit 9; fi; }
"""
_PROBES = "--probe --probe_filter allow anon --probe --probe_filter allow memcg /a"
ARGUMENTS = f"""{_BEGIN}
step two args damon --format json --out two.json --damon_ctx --ops paddr --damon_target {_PROBES} \\
    --damos_scheme --damos_action stat
step all args damon --format yaml --out all.yaml --damon_ctx --ops paddr --pause_ctx 0 --damon_addr_unit 4096 \\
    --damon_target --regions 0-1048576 --probe --probe_prep set_pgidle --probe_filter allow pgidle_unset \\
    --probe_filter reject hugepage_size 2M 1G --probe_weight 100 --damos_scheme --damos_action stat \\
    --damos_filter allow probe_hits_wsum 100 2000 --damos_quota_goal active_mem_bp 5% complement \\
    --damos_quota_interval 1s
refused implied args damon --damon_ctx --ops paddr {_PROBES} --damos_scheme --damos_action stat
"""
ITEMS = f"""{_BEGIN}
refused before start --probe_filter allow anon --probe --target_pid $TARGET
refused mixed start --nr_targets 1 --kdamond --damon_ctx --damon_target --target_pid $TARGET
step start start --kdamond --damon_ctx --ops vaddr --damon_target --target_pid $TARGET --probe \\
    --probe_filter allow anon --probe --probe_filter reject anon --damos_scheme --damos_action stat \\
    --damos_scheme --damos_action cold --damos_access_rate 0% 0%
step started report damon
step tune tune --kdamond --damon_ctx --ops vaddr -s 10000 -a 200000 --damon_target --target_pid $TARGET \\
    --damos_scheme --damos_action stat
step tuned report damon
step stop stop
step after report damon --kdamonds_summary
"""


def _context(loaded: Loaded) -> Context:
    assert loaded.spec is not None
    assert len(loaded.spec.kdamonds) == len(loaded.spec.kdamonds[0].contexts) == 1
    return loaded.spec.kdamonds[0].contexts[0]


def test_what_damo_writes_of_its_arguments_is_read(tmp_path: Path) -> None:
    steps, _ = damo_steps(ARGUMENTS, tmp_path)
    two = _context(load((tmp_path / "two.json").read_bytes()))
    assert [[f.filter_type for f in probe.filters] for probe in two.probes] == [["anon"], ["memcg"]]
    assert [scheme.action for scheme in two.schemes] == ["stat"]
    loaded = load((tmp_path / "all.yaml").read_bytes())
    context = _context(loaded)
    assert [warning.partition(":")[0] for warning in loaded.warnings] == ["kdamonds[0].contexts[0].addr_unit"]
    assert (context.ops, context.pause, context.addr_unit) == ("paddr", True, 4096)
    (probe,) = context.probes
    assert (probe.weight, [prep.prep_action for prep in probe.preps]) == (100, ["set_pgidle"])
    idle, huge = probe.filters
    assert (idle.filter_type, idle.allow) == ("pgidle_unset", True)
    assert huge.hugepage_size is not None
    assert (huge.hugepage_size.min, huge.hugepage_size.max, huge.allow) == (2 << 20, 1 << 30, False)
    (scheme,) = context.schemes
    sums = scheme.filters[0].probe_hits_wsum
    assert sums is not None
    assert (sums.min, sums.max) == (100, 2000)
    assert scheme.quotas.goals[0].complement
    # An implied target is put in front of the context: it has to be named.
    assert "wrong position of --damon_target" in steps["implied"]


def test_options_that_open_items(tmp_path: Path) -> None:
    steps, pid = damo_steps(ITEMS, tmp_path)
    assert "wrong position of --probe_filter" in steps["before"]
    assert "cannot be used with start markers" in steps["mixed"]
    for name, texts in {
        "started": ["sample 5 ms", "- allow anon", "- reject anon", "action: stat", "action: cold"],
        "tuned": ["sample 10 ms", "action: stat"],
    }.items():
        for text in ["state: on", f"pid: {pid}", *texts]:
            assert text in steps[name], name
    assert "action: cold" not in steps["tuned"]
    assert "allow anon" not in steps["tuned"]
    assert "state: off" in steps["after"]
