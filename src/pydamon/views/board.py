"""A Grafana dashboard of the metrics (``views/metrics.py``), as its JSON model has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDE, _HALF, _THIRD = 24, 12, 8
_MINE = '{kdamond=~"$kdamond"}'
_LATELY = '{kdamond=~"$kdamond", window="5m"}'
_COLD = '{kdamond=~"$kdamond", le="3600.0"}'


def board() -> dict[str, Any]:
    """The dashboard; it asks for the data source that is chosen in it, and for its kdamonds."""
    rows: list[Sequence[dict[str, Any]]] = [
        [
            _stat("Resident", f"sum(pydamon_total_resident_bytes{_MINE})", "Memory that is resident, of all targets."),
            _stat("Used within 5 min", f"sum(pydamon_total_working_set_bytes{_LATELY})",
                  "Memory that was accessed within 5 minutes: the working set."),
            _stat("Idle for 1 h and longer",
                  f"sum(pydamon_resident_bytes{_MINE}) - sum(pydamon_idle_memory_seconds_bucket{_COLD})",
                  "Memory that has not been accessed for an hour; nothing before it was monitored for so long."),
        ],
        [
            _series("Working set by window", [
                (f"sum by (window) (pydamon_total_working_set_bytes{_MINE})", "within {{window}}"),
                (f"sum(pydamon_total_resident_bytes{_MINE})", "resident"),
            ], "bytes", _HALF, "Memory that was accessed within a time, of all targets together."),
            _series("Working set of 5 min, with its error", [
                (f"sum(pydamon_total_working_set_bytes{_LATELY})", "used"),
                (f"sum(pydamon_total_working_set_low_bytes{_LATELY})", "at least (95 %)"),
                (f"sum(pydamon_total_working_set_high_bytes{_LATELY})", "at most (95 %)"),
            ], "bytes", _HALF, "The bounds between which it lies in 95 of 100 cases."),
        ],
        [
            _heatmap(),
            _series("Memory by heat and kind", [
                (f"sum by (heat, kind) (pydamon_memory_bytes{_MINE})", "{{heat}} {{kind}}"),
            ], "bytes", _HALF, "Hot: accessed in the last aggregation interval; warm: within 10 s.", stacked=True),
        ],
        [
            _series("The 20 targets with most in use (5 min)", [
                (f"topk(20, pydamon_working_set_bytes{_LATELY} * on (kdamond, target) group_left (command,"
                 f" pid) pydamon_target_info{_MINE})", "{{command}} ({{pid}})"),
            ], "bytes", _HALF, "Memory that each accessed within 5 minutes."),
            _series("Containers: needed", [
                (f"topk(20, pydamon_container_needed_bytes{_MINE})", "{{namespace}}/{{pod}}/{{container}}"),
            ], "bytes", _HALF, "Resident memory but files that have not been accessed for 10 min."),
        ],
        [
            _series("Schemes: memory that was acted on", [
                (f"sum by (kdamond, scheme, action) (rate(pydamon_scheme_sz_applied_bytes_total{_MINE}[5m]))",
                 "{{kdamond}}: {{action}} ({{scheme}})"),
            ], "Bps", _THIRD, "Bytes per second to which the action was applied."),
            _series("CPU time of monitoring", [
                (f"rate(pydamon_cpu_seconds_total{_MINE}[5m])", "{{kdamond}}"),
            ], "percentunit", _THIRD, "Of one CPU."),
            _series("Time that targets lose", [
                (f"rate(pydamon_disturb_seconds_total{_MINE}[5m])", "{{kdamond}}"),
            ], "percentunit", _THIRD, "For how long targets are held up by monitoring, of the time."),
        ],
    ]  # fmt: skip
    return {
        "uid": "pydamon",
        "title": "Memory in use (pydamon)",
        "description": "Which memory is in use, idle, hot and cold, as DAMON sees it.",
        "tags": ["damon", "memory"],
        "timezone": "browser",
        "editable": True,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _placed(rows),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "kdamond",
            "label": "kdamond",
            "type": "query",
            "datasource": _SOURCE,
            "query": "label_values(pydamon_kdamond_info, kdamond)",
            "multi": True,
            "includeAll": True,
            "refresh": 2,  # when the range of time changes
        },
    ]


def _panel(kind: str, title: str, help: str, width: int, height: int) -> dict[str, Any]:
    size = {"w": width, "h": height, "x": 0, "y": 0}
    return {"type": kind, "title": title, "description": help, "datasource": _SOURCE, "gridPos": size}


def _query(number: int, expression: str, legend: str, form: str = "time_series") -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + number),
        "datasource": _SOURCE,
        "expr": expression,
        "legendFormat": legend,
        "format": form,
    }


def _stat(title: str, expression: str, help: str) -> dict[str, Any]:
    unit: dict[str, Any] = {"defaults": {"unit": "bytes"}, "overrides": []}
    return _panel("stat", title, help, _THIRD, 4) | {"targets": [_query(0, expression, title)], "fieldConfig": unit}


def _series(
    title: str, queries: Sequence[tuple[str, str]], unit: str, width: int, help: str, *, stacked: bool = False
) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 10}
    if stacked:
        custom |= {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 40}
    return _panel("timeseries", title, help, width, 9) | {
        "targets": [_query(number, *query) for number, query in enumerate(queries)],
        "fieldConfig": {"defaults": {"unit": unit, "min": 0.0, "custom": custom}, "overrides": []},
    }


def _heatmap() -> dict[str, Any]:
    """The buckets as they are: what is counted is bytes."""
    help = "How much memory has been idle for how long (seconds); a bucket appears once it is known."
    expression = f"sum by (le) (pydamon_idle_memory_seconds_bucket{_MINE})"
    return _panel("heatmap", "Memory by idle time", help, _HALF, 9) | {
        "targets": [_query(0, expression, "{{le}}", "heatmap")],
        "options": {
            "calculate": False,
            "cellValues": {"unit": "bytes"},
            "yAxis": {"unit": "s", "axisPlacement": "left"},
            "tooltip": {"show": True, "yHistogram": True},
            "color": {
                "mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "scale": "exponential", "exponent": 0.5,
                "steps": 64, "reverse": False,
            },
        },
    }  # fmt: skip


def _placed(rows: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """All panels, each with its number and place: a row below the other."""
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        x = 0
        for panel in row:
            place = panel["gridPos"] | {"x": x % _WIDE, "y": y}
            found.append({"id": len(found) + 1} | panel | {"gridPos": place})
            x += place["w"]
        y += max(panel["gridPos"]["h"] for panel in row)
    return found
