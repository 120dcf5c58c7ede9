"""The table of the kernel's files and the spec fit together: no file of a field that is not there, and the reverse."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pydamon.damonfs.levels import NAMES, level
from pydamon.spec import Context
from pydamon.spec.damon_files import FILES, counter_in, files_in, pattern, version_text

# What no kernel knows: who is monitored in ways of ours, how pages are asked, and names.
OURS = {
    "primitive",
    "faithful",
    "targets[*].cgroup",
    "targets[*].include_children",
    "targets[*].match.names",
    "targets[*].match.cgroups",
    "targets[*].match.most",
    "schemes[*].name",
    "schemes[*].watermarks.nid",
    "schemes[*].quotas.bloat_bp",
    "schemes[*].quotas.goals[*].name",
    "schemes[*].filters[*].nid",
    "schemes[*].filters[*].perf_event",
    "probes[*].filters[*].perf_event",
}
# Filters have several files for what is one field here; a probe's filters have no file for what they cannot be of.
NOT_OF_PROBES = {f"probes[*].filters[*].{name}" for name in
                 ("address_range.start", "address_range.end", "damon_target_idx", "nid", "probe_hits_wsum.min",
                  "probe_hits_wsum.max")}  # fmt: skip


def fields(kind: Any, path: str) -> Iterator[str]:
    """All fields below ``path`` that hold no other fields, and those that hold several of a kind."""
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is tuple:
        yield path
        yield from fields(typing.get_args(kind)[0], f"{path}[*]")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield from fields(field.type, f"{path}.{field.name}" if path else field.name)
    else:
        yield path


def test_every_field_has_a_file_and_every_file_a_field() -> None:
    in_files = {file.stands_for for file in FILES if file.stands_for}
    in_spec = {path for path in fields(Context, "") if not path.endswith("]")}
    assert in_spec - in_files == OURS | NOT_OF_PROBES
    assert in_files - in_spec == set()


def test_a_file_stands_once_in_the_table() -> None:
    paths = [file.path for file in FILES]
    assert len(paths) == len(set(paths)) > 100


def test_each_numbered_directory_has_one_counter() -> None:
    numbered = {part for file in FILES for at, part in directories(file.path) if at}
    # What is found is made by nobody, and counted by looking.
    numbered -= {"schemes/*/tried_regions", "schemes/*/tried_regions/*/probes"}
    assert {counter_in(directory).name.partition("_")[0] for directory in numbered} == {"nr"}
    assert {file.directory for file in FILES if file.kind == "count"} == numbered


def directories(path: str) -> Iterator[tuple[bool, str]]:
    """Each directory of a path, and whether numbered ones are in it."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        yield parts[count] == "*", "/".join(parts[:count])


def test_only_words_have_words_and_the_first_is_one_of_them() -> None:
    for file in FILES:
        assert bool(file.words) == (file.kind == "word")
        # (A new filter of the kernel is of the type anon wherever it is.)
        assert not file.words or file.first in (*file.words, "anon")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("schemes/12/quotas/goals/0/nid", "schemes/*/quotas/goals/*/nid"),
        ("schemes[3].quotas.goals[10].nid", "schemes[*].quotas.goals[*].nid"),
        ("monitoring_attrs", "monitoring_attrs"),
        ("", ""),
    ],
)
def test_patterns(place: str, expected: str) -> None:
    assert pattern(place) == expected


def test_files_of_a_directory_come_in_the_order_of_the_table() -> None:
    assert [file.name for file in files_in("schemes/*/dests/*")] == ["id", "weight"]
    assert files_in("schemes/*/nothing") == ()


def test_a_level_has_what_came_until_then() -> None:
    names = [name for name in NAMES if name != "mm"]
    assert names == [version_text(level(name).version) for name in names]
    for file in FILES:
        have = [level(name).has(file) for name in NAMES]
        assert have == sorted(have)  # once there, always there
