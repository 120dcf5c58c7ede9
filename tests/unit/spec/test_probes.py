"""Probes in the spec: what is valid, the short form, damo's layout, and what they are called."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pydamon.errors import RequestError
from pydamon.spec import explain, from_builtins, to_builtins
from pydamon.spec.forms import scheme_files
from pydamon.spec.forms.damo_write import damo_spec
from pydamon.spec.probes import Prep, Probe, describe_probe, parse_probe, validate_probes
from pydamon.spec.schemes import Filter, SizeRange

MIB = 1 << 20
ANON = {"filter_type": "anon", "allow": True}


def spec(*probes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    context = {"ops": "vaddr", "targets": [{"pid": 1}], "probes": [{"filters": p} for p in probes], **more}
    return {"kdamonds": [{"contexts": [context]}]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (spec(*[[ANON]] * 5), r"probes: has 5 entries; the most is 4"),
        (spec([{"filter_type": "young"}]), r"probes\[0\]\.filters\[0\]\.filter_type: is young, which is no attribute"),
        (spec([ANON], [{"filter_type": "memcg"}]), r"probes\[1\]\.filters\[0\]\.memcg_path: is needed"),
        (spec([ANON], ops="reported"), r"probes: cannot be had"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        from_builtins(data)


def test_a_spec_with_probes_survives_being_written() -> None:
    one = from_builtins(spec([ANON], [{"filter_type": "hugepage_size", "hugepage_size": {"min": "2M", "max": "2M"}}]))
    assert from_builtins(to_builtins(one)) == one
    probes = one.kdamonds[0].contexts[0].probes
    assert probes[1].filters[0].hugepage_size == SizeRange(min=2 * MIB, max=2 * MIB)
    assert "Probe 0: count how many of the sampled pages are: anon." in explain(one)


# As `damo args damon --probe --probe_filter allow anon --probe --probe_filter reject non memcg /a --probe \
# --probe_filter allow hugepage_size 2M max --format json` of damo 3.4.3 writes them.
DAMO: list[dict[str, Any]] = [
    {"preps": [], "filters": [{"filter_type": "anon", "matching": True, "allow": True, "path": None,
                               "range_min": None, "range_max": None}], "weight": 0},
    {"preps": [], "filters": [{"filter_type": "memcg", "matching": False, "allow": False, "path": "/a",
                               "range_min": None, "range_max": None}], "weight": 0},
    {"preps": [], "filters": [{"filter_type": "hugepage_size", "matching": True, "allow": True, "path": None,
                               "range_min": "2.000000 MiB", "range_max": "max"}], "weight": 0},
]  # fmt: skip


def test_damos_layout_is_read_and_written() -> None:
    loaded = scheme_files.load(json.dumps({"kdamonds": [{"contexts": [{"ops": "paddr", "probes": DAMO}]}]}))
    assert loaded.warnings == ()
    assert loaded.spec is not None
    probes = loaded.spec.kdamonds[0].contexts[0].probes
    assert [describe_probe(probe) for probe in probes] == ["anon", "memcg /a", "pages of 2.0 MiB to max"]
    written = damo_spec(loaded.spec, lambda path: None)["kdamonds"][0]["contexts"][0]["probes"]
    assert written[:2] == DAMO[:2]
    assert written[2]["filters"][0] == DAMO[2]["filters"][0] | {"range_min": "2 MiB"}


# As `damo args damon --ops paddr --probe --probe_prep set_pgidle --probe_filter allow pgidle_unset \
# --probe_filter allow hugepage_size 2M 1G --probe_weight 100` of damo 3.4.3 writes it.
DAMO_WEIGHED: dict[str, Any] = {
    "preps": [{"prep_action": "set_pgidle"}],
    "filters": [{"filter_type": "pgidle_unset", "matching": True, "allow": True, "path": None,
                 "range_min": None, "range_max": None},
                {"filter_type": "hugepage_size", "matching": True, "allow": True, "path": None,
                 "range_min": "2.000000 MiB", "range_max": "1024.000000 MiB"}],
    "weight": 100,
}  # fmt: skip


def test_weights_and_preparations_are_read_and_written() -> None:
    loaded = scheme_files.load(json.dumps({"kdamonds": [{"contexts": [{"ops": "paddr", "probes": [DAMO_WEIGHED]}]}]}))
    assert loaded.spec is not None
    (probe,) = loaded.spec.context.probes
    assert probe == parse_probe("set_pgidle pgidle_unset hugepage_size=2M..1G weight=100")
    assert describe_probe(probe) == "accessed, else pages of 2.0 MiB to 1.0 GiB"
    (written,) = damo_spec(loaded.spec, lambda path: None)["kdamonds"][0]["contexts"][0]["probes"]
    assert written["preps"] == DAMO_WEIGHED["preps"]
    assert written["weight"] == 100
    text = "\n".join(explain(loaded.spec))
    assert "accesses are not looked for." in text
    assert "each marked as idle before the sampling interval are: accessed" in text
    assert "Weight 100." in text


# The kernel's own numbers (KUnit of valid_probe_params): samples per aggregation, weights, and whether they are valid.
@pytest.mark.parametrize(
    ("window", "weights", "at"),
    [
        (1_000_000, [0], None),
        (255, [100], None),
        (256, [100], 0),
        (255, [16843009], None),
        (255, [16843010], 0),
        (1, [2**32 - 1], None),
        (1, [2**32 - 1, 1], 1),
        (1, [2**32 - 1, 0], None),
        (20, [0, -1], 1),
    ],
)
def test_weighted_sums_have_the_bounds_of_the_kernel(window: int, weights: list[int], at: int | None) -> None:
    probes = tuple(Probe(weight=weight) for weight in weights)
    if at is None:
        validate_probes(probes, ops="paddr", window=window)
        return
    with pytest.raises(RequestError) as caught:
        validate_probes(probes, ops="paddr", window=window)
    assert caught.value.where == f"probes[{at}].weight"


@pytest.mark.parametrize(
    ("text", "probe"),
    [
        ("weight=3 anon", Probe(filters=(Filter(filter_type="anon", allow=True),), weight=3)),
        ("set_pgidle pgidle_unset",
         Probe(filters=(Filter(filter_type="pgidle_unset", allow=True),), preps=(Prep(),))),
        ("!pgidle_set",
         Probe(filters=(Filter(filter_type="pgidle_set", matching=False, allow=True),))),
        ("weight=7", Probe(weight=7)),
    ],
)  # fmt: skip
def test_weights_and_preparations_have_a_short_form(text: str, probe: Probe) -> None:
    assert parse_probe(text) == probe


@pytest.mark.parametrize(
    ("text", "filters", "words"),
    [
        ("anon", [Filter(filter_type="anon", allow=True)], "anon"),
        ("!active", [Filter(filter_type="active", matching=False, allow=True)], "not active"),
        ("reject:memcg=/a anon",
         [Filter(filter_type="memcg", memcg_path="/a"), Filter(filter_type="anon", allow=True)],
         "not memcg /a, else anon"),
        ("hugepage_size=4K",
         [Filter(filter_type="hugepage_size", allow=True, hugepage_size=SizeRange(min=4096, max=4096))],
         "pages of 4.0 KiB"),
    ],
)  # fmt: skip
def test_the_short_form(text: str, filters: list[Filter], words: str) -> None:
    assert parse_probe(text) == Probe(filters=tuple(filters))
    assert describe_probe(parse_probe(text)) == words


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "warm",
        "memcg",
        "anon=3",
        "weight",
        "weight=",
        "weight=x",
        "weight=-1",
        "weight=1 weight=2",
        "set_pgidle=1",
        "pgidle_set=3",
    ],
)
def test_a_wrong_short_form_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse_probe(text)


EVENT = {"filter_type": "perf_event", "allow": True, "perf_event": "page-faults"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (spec([EVENT, ANON]), r"probes\[0\]\.filters\[0\]\.perf_event: goes alone"),
        (spec([ANON, EVENT]), r"probes\[0\]\.filters\[1\]\.perf_event: goes alone"),
        (spec([EVENT | {"matching": False}]), r"goes with matching and allow only"),
        (spec([EVENT | {"allow": False}]), r"goes with matching and allow only"),
        (spec([EVENT | {"perf_event": "a b"}]), r"is no name of an event"),
        (spec([EVENT | {"perf_event": "x" * 201}]), r"is no name of an event"),
        (spec([EVENT | {"perf_event": None}]), r"perf_event: is needed with a filter of type perf_event"),
        (spec([ANON | {"perf_event": "page-faults"}]), r"perf_event: does not go with a filter of type anon"),
        (spec([EVENT], ops="paddr", targets=[{}]), r"is for processes \(ops vaddr, fvaddr\), not for paddr"),
    ],
)
def test_probes_of_events_that_cannot_be_are_refused_by_name(data: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        from_builtins(data)


def test_probes_of_events_are_written_and_told() -> None:
    given = from_builtins(spec([EVENT], [ANON]))
    assert from_builtins(to_builtins(given)) == given
    (line,) = [line for line in explain(given) if line.startswith("Probe 0")]
    assert line == "Probe 0: count in how many samples the event page-faults has seen an access in the region."
    assert given.context.probes[0] == parse_probe("perf_event=page-faults")
    assert describe_probe(given.context.probes[0]) == "accesses sampled by page-faults"
    again = scheme_files.load(json.dumps(damo_spec(given, lambda _: None))).spec
    assert again is not None
    assert again.context.probes == given.context.probes
    scheme = {"action": "stat", "filters": [EVENT]}
    with pytest.raises(RequestError, match=r"filter_type: is perf_event, which is for probes$"):
        from_builtins(spec(schemes=[scheme]))
