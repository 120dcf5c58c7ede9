"""Files of schemes: forms are told apart by content, all forms say the same, and hostile ones get one line."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.spec.scheme_strategies import schemes

from pydamon.errors import RequestError
from pydamon.spec.forms.damo_write import damo_scheme
from pydamon.spec.forms.scheme_files import load, to_builtins
from pydamon.spec.forms.scheme_short import write_short
from pydamon.spec.forms.yaml_values import encode_yaml
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import Scheme

SHORT = "pageout size>=4K rate=0% age>=1min quota=10ms+128M/1s filter=reject:!anon"
JSON = """{"action": "pageout", "access_pattern": {"sz_bytes": {"min": "4 KiB"}, "nr_accesses": {"min": "0 %", "max":
"0 %"}, "age": {"min": "60 s"}}, "quotas": {"time_ms": "10 ms", "sz_bytes": "128 MiB", "reset_interval_ms": "1 s"},
"filters": [{"filter_type": "anon", "matching": false}]}"""
YAML = """# a policy
schemes:
- action: pageout
  access_pattern:
    sz_bytes: {min: 4 KiB}
    nr_accesses: {min: 0 %, max: 0 %}
    age: {min: 60 s}
  quotas: {time_ms: 10 ms, sz_bytes: 128 MiB, reset_interval_ms: 1 s}
  filters:
  - {filter_type: anon, matching: no}
"""


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (SHORT, "lines"),
        (JSON, "json"),
        (f"[{JSON}]", "json"),
        (f'  {{"schemes": [{JSON}]}}', "json"),
        (json.dumps({"schemes": [SHORT]}), "json"),
        (f'{{"kdamonds": [{{"contexts": [{{"targets": [{{"pid": 1}}], "schemes": [{JSON}]}}]}}]}}', "json"),
        (YAML, "yaml"),
        ("---\n" + YAML, "yaml"),
        (f"- {SHORT}\n", "yaml"),
        (f"kdamonds:\n- contexts:\n  - schemes:\n    - {SHORT}\n", "yaml"),
        ("\ufeff" + JSON, "json"),
    ],
)
def test_a_scheme_is_the_same_in_all_forms(text: str, form: str) -> None:
    loaded = load(text.encode())
    assert (loaded.form, [write_short(scheme) for scheme in loaded.schemes]) == (form, [SHORT])
    assert loaded.warnings == ()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemes())
def test_every_scheme_survives_json_and_yaml(scheme: Scheme) -> None:
    data = {"schemes": [to_builtins(scheme)]}
    (from_json,) = load(json.dumps(data), ops="sim").schemes
    (from_yaml,) = load(encode_yaml(data), ops="sim").schemes
    assert from_json == from_yaml
    assert meaning(from_json) == meaning(scheme)


@pytest.mark.parametrize("path", ["a\x85b", "\x85", "a\u2028b", " a ", "a\nb"])
def test_line_breaks_in_a_name_survive_yaml(path: str) -> None:
    data = {"schemes": [{"action": "stat", "filters": [{"filter_type": "memcg", "memcg_path": path}]}]}
    (scheme,) = load(encode_yaml(data), ops="vaddr").schemes
    assert scheme.filters[0].memcg_path == path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemes())
def test_what_damo_can_say_survives_its_layout(scheme: Scheme) -> None:
    try:
        data = damo_scheme(scheme, "s", lambda _: None)
    except RequestError as error:
        assert "damo" in error.message  # it has no rates per second, and no mixed units
        return
    (again,) = load(json.dumps([data]), ops="sim").schemes
    assert meaning(again) == meaning(scheme)


def meaning(scheme: Scheme) -> Scheme:
    """The scheme with one unit for zero and for no limit: these are the same in all of them."""
    pattern = scheme.access_pattern
    rates, ages = pattern.nr_accesses, pattern.age
    rates = replace(rates, min=rates.min if rates.min.value else Rate(0, "%"))
    if rates.max.value == 0:
        rates = replace(rates, max=Rate(0, "%"))
    ages = replace(ages, min=ages.min if ages.min.value else Age(0, "us"))
    if ages.max.value == 0:
        ages = replace(ages, max=Age(0, "us"))
    return replace(scheme, access_pattern=replace(pattern, nr_accesses=rates, age=ages))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"# only a comment\n", "has no scheme in it"),
        (b"[]", "has no scheme in it"),
        (b"stat\0", "NUL byte"),
        (b'{"action": "st\xe4t"}', "is not UTF-8 text (byte 14)"),
        ('{"action":"stat"}'.encode("utf-16"), "is not UTF-8 text"),
        (b" " * ((16 << 20) + 1), "is larger than 16 MiB"),
        (b"a: 1\n" + b"#\n" * (300 << 10), "is larger than 512 KiB, the most for YAML"),
        (b"[" * 100_000, "is nested more than 64 levels deep"),
        (b'{"a":' * 70 + b"1" + b"}" * 70, "is nested more than 64 levels deep"),
        (b"schemes: " + b"[" * 80 + b"]" * 80, "is nested more than 64 levels deep"),
        (b"schemes: &a\n- *a\n", "is nested more than 64 levels deep"),
        (BOMB.encode(), "holds more than 400000 values"),
        (b"a: &a {b: 1}\nc:\n  <<: *a\n", "merges objects"),
        (b"action: stat\naction: cold\n", "has the key 'action' twice"),
        (b"1: 2\n", "which is not text"),
        (b"? [a]\n: b\n", "key that is not text"),
        (b"action: !!python/object/apply:os.system ['true']\n", "is not YAML: could not determine a constructor"),
        (b"action: !!timestamp 2024-01-01\n", "value of the type date"),
        (b"action: [stat\n", "is not YAML"),
        (b'{"action": "stat", "action": "cold"}', "has the key 'action' twice"),
        (b'{"action": "stat",}', "is not JSON"),
        (b'{"action": "stat", "name": "\\ud800"}', "has a character that is none"),
        (b'{"action": "stat", "name": "\\u0000"}', "has a character that is none"),
        (b'{"apply_interval_us": ' + b"9" * 5000 + b"}", "is not JSON: Exceeds the limit"),
        (b'{"apply_interval_us": NaN}', "has NaN"),
        (b'{"apply_interval_us": 1e999}', "has inf"),
        (b'{"size": 1}', "has neither kdamonds, nor schemes, nor the action"),
        (b'{"schemes": [], "intervals": {}}', "does not go with schemes"),
        (b'{"kdamonds": []}', "must have at least one kdamond"),
        (b'{"kdamonds": [{"contexts": []}]}', "has 0 contexts"),
        (b'{"kdamonds": 5}', "must be a list, not a number"),
        (b'{"action": {"a": 1}}', "is no action"),
        (b'{"action": "stat", "quota": {}}', "did you mean quotas?"),
        (b'{"action": "stat", "quotas": {"sz_byte": 1}}', "did you mean sz_bytes?"),
        (b'{"action": "stat", "quotas": {"sz_bytes": -1}}', "must be 0 to"),
        (b'{"action": "stat", "quotas": {"sz_bytes": true}}', "is not a size"),
        (b'{"action": "stat", "filters": [{"filter_type": "anno"}]}', "did you mean anon?"),
        (b'{"action": "stat", "filters": [{"filter_type": "anon", "matching": "maybe"}]}', "neither true nor false"),
        (b'{"action": "stat", "access_pattern": {"age": {"min": [1]}}}', "is not an age"),
        (b'{"action": "stat", "access_pattern": {"age": 5}}', "must be an object, not a number"),
        (b'["stat age>=1"]', "has no unit"),
        (b"schemes:\n" + b"- stat\n" * 300, "has 300 entries; the most is 256"),
    ],
)
def test_hostile_files_get_one_line(text: bytes, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        load(text)
    assert message in caught.value.message
    assert len(str(caught.value)) < 400


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80) | st.text('{}[]":,- \nkdamonds:schemes*&!<stat0', max_size=60).map(str.encode))
def test_whatever_the_bytes_are_nothing_but_a_request_error_comes_out(text: bytes) -> None:
    try:
        load(text)
    except RequestError as error:
        assert error.message


def test_the_path_of_a_field_is_named() -> None:
    with pytest.raises(RequestError) as caught:
        load('{"schemes": ["stat", {"action": "stat", "quotas": {"time_ms": "soon"}}]}')
    assert caught.value.where == "schemes[1].quotas.time_ms"
    with pytest.raises(RequestError) as caught:
        load('{"kdamonds": [{"contexts": [{"schemes": ["stat agee>=1s"]}]}]}')
    assert caught.value.where == "kdamonds[0].contexts[0].schemes[0]"
