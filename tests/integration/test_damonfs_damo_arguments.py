"""``damo``, unmodified: all that its options can ask for is read by us in the files that it writes, JSON and YAML."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.integration.test_damonfs import why_not_mounted
from tests.integration.test_damonfs_damo import DAMO, damo_steps

from pydamon.errors import RequestError
from pydamon.spec.forms.scheme_files import Loaded, load
from pydamon.spec.forms.scheme_short import write_short
from pydamon.spec.model import Context

pytestmark = [
    pytest.mark.skipif(why_not_mounted() is not None, reason=f"no FUSE here: {why_not_mounted()}"),
    pytest.mark.skipif(DAMO is None, reason="damo is not installed (pip install damo)"),
    pytest.mark.skipif(not os.path.isdir("/sys/kernel/tracing"), reason="damo needs tracefs; this kernel has none"),
]

_ACTIONS = ("willneed", "cold", "pageout", "hugepage", "nohugepage", "collapse", "lru_prio", "lru_deprio", "stat")
_GOALS = (
    "user_input 100 50",
    "some_mem_psi_us 10ms",
    "node_mem_used_bp 50% 0",
    "node_mem_free_bp 50% 0",
    "node_memcg_used_bp 5% 0 /a",
    "node_memcg_free_bp 5% 0 /a",
    "active_mem_bp 5%",
    "inactive_mem_bp 5% complement",
)
_FILTERS = (
    "allow anon",
    "reject memcg /a",
    "reject young",
    "allow hugepage_size 2M 1G",
    "allow unmapped",
    "reject addr 4096 8192",
    "allow target 0",
    "allow active",
    "reject none anon",
    "allow probe_hits_wsum 1 2",
)
_HEAD = "--damon_ctx --ops vaddr --damon_target --target_pid 1"
_SCHEME = "--damos_scheme --damos_action"
ARGUMENTS = f"""
set -e
step() {{ echo "== $1"; shift; "$DAMO" "$@"; }}
both() {{ for form in json yaml; do step $1.$form args damon --format $form --out $1.$form "${{@:2}}"; done; }}
both actions {_HEAD} {" ".join(f"{_SCHEME} {action}" for action in _ACTIONS)} {_SCHEME} migrate_hot 1
both goals {_HEAD} {" ".join(f"{_SCHEME} pageout --damos_quota_interval 1s --damos_quota_goal {g}" for g in _GOALS)}
both filters {_HEAD} {" ".join(f"{_SCHEME} stat --damos_filter {each}" for each in _FILTERS)}
both rest {_HEAD} {_SCHEME} pageout --damos_sz_region 4K 1G --damos_access_rate 0% 5% --damos_age 10s max \\
    --damos_apply_interval 1s --damos_quota_time 10ms --damos_quota_space 100M --damos_quota_interval 1s \\
    --damos_quota_weights 1 2 3 --damos_quota_goal_tuner temporal --damos_max_nr_snapshots 3 \\
    --damos_wmarks free_mem_rate 1s 50% 40% 20%
both context 1 --monitoring_intervals_goal 4% 3 5ms 10s -n 20 -m 400 -u 2s --refresh_stat 100ms
step raw args damon --raw --out raw.json 1 --damos_action pageout --damos_quota_space 100M --damos_quota_interval 1s
step omit args damon --omit_defaults --out omit.json 1 --damos_action pageout
step two args damon --out two.json --kdamond --damon_ctx --ops vaddr --damon_target --target_pid 1 \\
    --damon_ctx --ops paddr --damon_target
step reports args damon --out reports.json 1 --exp_ops_use_reports Y
step start start --damon_ctx --ops vaddr --damon_target --target_pid $TARGET --probe --probe_filter allow anon \\
    {_SCHEME} cold --damos_quota_interval 1s --damos_quota_goal some_mem_psi_us 10ms --damos_filter allow anon \\
    {_SCHEME} stat --damos_filter allow hugepage_size 2M 1G
"$DAMO" report damon --format json > live.json
"$DAMO" report damon --format yaml > live.yaml
step stop stop
"""


def _context(loaded: Loaded) -> Context:
    assert loaded.warnings == ()
    assert loaded.spec is not None
    return loaded.spec.context


def test_what_damo_writes_of_its_options_is_read(tmp_path: Path) -> None:
    _, pid = damo_steps(ARGUMENTS, tmp_path)
    for form in ("json", "yaml"):
        found = {
            name: _context(load((tmp_path / f"{name}.{form}").read_bytes()))
            for name in ("actions", "goals", "filters", "rest", "context", "live")
        }
        assert [scheme.action for scheme in found["actions"].schemes] == [*_ACTIONS, "migrate_hot"]
        goals = [scheme.quotas.goals[0] for scheme in found["goals"].schemes]
        assert [goal.metric for goal in goals] == [goal.split()[0] for goal in _GOALS]
        # Shares are counted in 1/10,000, times in microseconds.
        assert [goal.target_value for goal in goals] == [100, 10_000, 5000, 5000, 500, 500, 500, 500]
        assert [goal.complement for goal in goals] == [False] * 7 + [True]
        filters = [scheme.filters[0] for scheme in found["filters"].schemes]
        assert [(item.filter_type, item.allow, item.matching) for item in filters] == [
            ("anon", True, True),
            ("memcg", False, True),
            ("young", False, True),
            ("hugepage_size", True, True),
            ("unmapped", True, True),
            ("addr", False, True),
            ("target", True, True),
            ("active", True, True),
            ("anon", False, False),
            ("probe_hits_wsum", True, True),
        ]
        (rest,) = found["rest"].schemes
        assert rest.max_nr_snapshots == 0  # damo has left it out of its file
        assert write_short(rest) == (
            "pageout size=4K..1G rate<=5% age>=10s every=1s quota=10ms+100M/1s weights=1:2:3 tuner=temporal "
            "watermarks=free:50%:40%:20%/1s"
        )
        context = found["context"]
        assert context.intervals.intervals_goal is not None
        assert (context.intervals.ops_update_us, context.nr_regions.min, context.nr_regions.max) == (2_000_000, 20, 400)
        live = found["live"]
        assert live.pids == (pid,)
        assert [scheme.action for scheme in live.schemes] == ["cold", "stat"]
        assert [probe.filters[0].filter_type for probe in live.probes] == ["anon"]
    (raw,) = _context(load((tmp_path / "raw.json").read_bytes())).schemes
    assert (raw.action, raw.quotas.sz_bytes) == ("pageout", 100 << 20)
    assert [scheme.action for scheme in _context(load((tmp_path / "omit.json").read_bytes())).schemes] == ["pageout"]
    with pytest.raises(RequestError, match="has 2 contexts; a kdamond runs exactly one"):
        load((tmp_path / "two.json").read_bytes())
    # What no released kernel has, damo leaves out of its file.
    assert "reports" not in (tmp_path / "reports.json").read_text()


@pytest.mark.parametrize(
    ("contexts", "changes", "said"),
    [
        (2, {}, "has 2 contexts; a kdamond runs exactly one"),
        (1, {"ops_attrs": {"use_reports": True}}, "is not supported; pydamon's primitives are chosen by primitive"),
        (1, {"ops_attrs": {"cpus": "0"}}, "with cpus or tids is not supported"),
        (1, {"sample_control": {"sample_filters": [{}]}}, "are not supported"),
    ],
)
def test_what_cannot_be_is_refused_by_name(contexts: int, changes: dict[str, object], said: str) -> None:
    context = {"ops": "vaddr", "targets": [{"pid": 1}], **changes}
    with pytest.raises(RequestError, match=said) as error:
        load(json.dumps({"kdamonds": [{"contexts": [context] * contexts}]}))
    assert (error.value.where or "").startswith("kdamonds[0].contexts")
