"""HMSDK's options as a spec with the module `tier`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.errors import RequestError
from pydamon.modules.base import Facts
from pydamon.modules.hmsdk import convert
from pydamon.modules.registry import expand, fitted
from pydamon.spec import validate

FACTS = Facts(target="physical", knows_ages=True)


def test_its_readmes_example() -> None:
    """`-d 0 2 -d 1 3 -p 2 0 -p 3 1 -g`: two sockets, each with its own CXL memory."""
    spec = convert("-d 0 2 -d 1 3 -p 2 0 -p 3 1 -g").spec
    (text,) = spec.kdamonds[0].modules
    assert text == "tier tiers=0>2+1>3 way=both hot=5% cold_age=30s used=100% free=100% quota=1s+50GiB/20s"
    assert (spec.context.intervals.sample_us, spec.context.nr_regions.max) == (100_000, 10_000)
    expanded = expand(fitted(spec, FACTS))
    validate(expanded)
    assert [scheme.target_nid for scheme in expanded.context.schemes] == [3, 1, 2, 0]


def test_without_g_only_its_cgroup_moves() -> None:
    (text,) = convert("-d 0 1 -p 1 0").spec.kdamonds[0].modules
    assert "cgroup=/hmsdk" in str(text)


def test_one_way_is_one_way() -> None:
    (down,) = convert("-d 0 2").spec.kdamonds[0].modules
    (up,) = convert("-p 2 0").spec.kdamonds[0].modules
    assert "way=down" in str(down)
    assert "way=up" in str(up)
    schemes = expand(fitted(convert("-d 0 2").spec, FACTS)).context.schemes
    assert [scheme.action for scheme in schemes] == ["migrate_cold"]


def test_what_is_not_done_is_said() -> None:
    assert [line.split(":")[0] for line in convert("-d 0 2 -s 50G -o x.json").remarks] == ["-s", "-o"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no nodes; write it like '-d 0 2 -p 2 0'"),
        ("-d 0", "-d: needs 2 values, like -d 0 2"),
        ("-d 0 x", "-d: 'x' is no number of a NUMA node"),
        ("--frob", "'--frob' is no option of gen_migpol.py"),
        ("-d 0 2 -p 3 1", "is one way only between nodes"),
        ("-d 0 1 -d 1 0", "moves in a circle"),
        ("-d 0 2 -d 1 2", "moves from or to node"),
        ('-o "', "'-o \"': no closing quotation"),
    ],
)
def test_wrong_options_are_named(text: str, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        convert(text)
    assert str(raised.value).startswith(message)


@given(st.lists(st.sampled_from(["-d", "-p", "-g", "-s", "0", "1", "2", "x", "'", "-9"]), max_size=12))
def test_nonsense_is_an_error_of_the_request_or_a_valid_spec(words: list[str]) -> None:
    try:
        spec = convert(" ".join(words)).spec
    except RequestError:
        return
    validate(expand(fitted(spec, FACTS)))
