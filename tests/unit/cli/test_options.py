"""Options are known to the command alone: nothing below names one, and the command names them all."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest

import pydamon
from pydamon.cli import main, options
from pydamon.cli.command import pydamon as group
from pydamon.cli.verbs import VERBS
from pydamon.errors import RequestError
from pydamon.spec import ONLY_CONTEXT, Context

SOURCE = Path(pydamon.__file__).parent
OPTION = re.compile(r"(?<![\w-])--(?:[a-z][\w-]*|\{)")  # or one that is put together
# Options of other programs, which are run or whose output is read.
OTHERS = {
    "ops/reported/sources/perf_mem.py": {"--timestamp", "--sample-cpu", "--pid"},
    "ops/reported/sources/valgrind.py": {
        "--tool", "--trace-mem", "--trace-sched", "--basic-counts", "--child-silent-after-fork", "--trace-children",
        "--log-fd", "--log-file",
    },
    "records/formats/input_file.py": {"--force"},
    "records/formats/export.py": {"--ns"},
    "perf_damon.py": {"--help"},  # a command, too: what `perf damon` runs
}  # fmt: skip


def test_nothing_below_the_command_names_an_option() -> None:
    found = {}
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        if not place.startswith("cli/") and (named := set(OPTION.findall(path.read_text()))):
            found[place] = named
    assert found == OTHERS


def test_the_search_finds_what_it_is_for() -> None:
    text = 'where="--dry-run", f"--{name}", "nearest: --engine user"  # a -- b, x--y, --'
    assert OPTION.findall(text) == ["--dry-run", "--{", "--engine"]


def test_each_option_that_a_field_is_called_exists() -> None:
    commands = [importlib.import_module(module).command for module, _ in VERBS.values()]
    known = {"pid"}.union(*map(options._options, commands))
    assert {*options._OF_SPEC.values(), *options._OF_REQUEST.values()} <= known


def test_each_field_of_the_table_is_one_of_a_context() -> None:
    assert {field.partition(".")[0] for field in options._OF_SPEC} <= {*Context.__struct_fields__}


def shown(verb: str, where: str | None, **meta: object) -> str | None:
    """What an error of ``where`` is about, for who has called ``verb``."""
    error = RequestError("is wrong", where=where)
    with click.Context(group) as ctx:
        ctx.invoked_subcommand = verb
        ctx.meta.update(meta)
        options.name_options(error, ctx)
    assert str(error) == (f"{error.where}: is wrong" if error.where else "is wrong")
    return error.where


@pytest.mark.parametrize(
    ("verb", "where", "expected"),
    [
        ("record", "intervals.sample_us", "--sample"),
        ("start", f"{ONLY_CONTEXT}.intervals.sample_us", "--sample"),
        ("tune", "nr_regions.max", "--max-regions"),
        ("record", f"{ONLY_CONTEXT}.probes[2].filters[0].memcg_path", "--probe"),
        ("tune", f"{ONLY_CONTEXT}.probes", "--probe"),
        ("tune", f"{ONLY_CONTEXT}.primitive", "primitive"),  # it has no such option
        ("record", f"{ONLY_CONTEXT}.targets[1].pid", "pid"),
        ("record", f"{ONLY_CONTEXT}.targets[0].regions[3]", "--region"),
        ("record", f"{ONLY_CONTEXT}.targets", "targets"),
        ("record", "primitive bpf", "--primitive bpf"),
        ("mount", "primitive bpf", "--primitive bpf"),
        ("record", "dry_run", "--dry-run"),
        ("trace", "dry_run", "dry_run"),
        ("start", "name", "--name"),
        ("stop", "name", "name"),
        ("report", "perf", "--perf"),  # an option of a verb below it
        ("import", "sample_us", "--sample"),
        ("record", "/proc/iomem", "/proc/iomem"),
        ("record", None, None),
    ],
)
def test_a_field_is_called_by_its_option(verb: str, where: str | None, expected: str | None) -> None:
    assert shown(verb, where) == expected


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (f"{ONLY_CONTEXT}.intervals.sample_us", f"{ONLY_CONTEXT}.intervals.sample_us"),
        (f"{ONLY_CONTEXT}.schemes[0].action", f"{ONLY_CONTEXT}.schemes[0].action"),
        ("dry_run", "--dry-run"),
    ],
)
def test_what_is_in_a_file_is_called_as_it_is_there(where: str, expected: str) -> None:
    assert shown("start", where, spec="policy.yaml") == expected


def test_a_scheme_is_called_by_where_it_was_given(tmp_path: Path) -> None:
    from pydamon.cli.files import Schemes

    file = tmp_path / "two"
    file.write_text("stat\ncold age>=1s\n")
    given = Schemes(str(file), ("stat size>=4K",), "vaddr")
    for field, expected in (
        ("schemes[1].quotas.goals[0].metric: /proc/x", f"--schemes {file}: line 2: quotas.goals[0].metric: /proc/x"),
        (f"{ONLY_CONTEXT}.schemes[2].action", "--scheme: action"),
        ("schemes[2]", "--scheme"),
    ):
        assert shown("record", field, schemes=given) == expected


def test_both_ways_to_ask_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options and a file make the same spec and request, and are checked by the same rules."""
    file = tmp_path / "spec.json"
    file.write_text('{"kdamonds": [{"contexts": [{"ops": "sim", "targets": [{}]}]}]}')
    for args, message in (
        (["--dry-run", "--workload", "stairs"], "--dry-run: is about schemes; give --scheme or --schemes"),
        (["--max-cpu", "1%", "--workload", "stairs"], "--max-cpu: is for monitoring running processes"),
        ([], "--workload: is needed with --ops sim"),
        (["--cpus", "1", "--workload", "stairs"], "--cpus: goes with --source"),
        (["--duration", "0s", "--workload", "stairs"], "--duration: is 0; it must be longer"),
    ):
        for asked in (["record", "--ops", "sim"], ["start", "--spec", str(file)]):
            assert main([*asked, *args]) == 2
            assert capsys.readouterr().err.startswith(f"pydamon: {message}")
