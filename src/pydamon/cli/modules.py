"""``pydamon modules``: list, check and explain modules. Nothing is run, and no privilege is needed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from pydamon import messages
from pydamon.cli.completion.values import FILE, RECORD
from pydamon.cli.help.classes import VerbGroup
from pydamon.cli.render.screen import echo, emit, emit_json
from pydamon.errors import PydamonError, RequestError, located
from pydamon.modules.base import Target, Use
from pydamon.modules.registry import MODULES, parse
from pydamon.spec import Scheme

if TYPE_CHECKING:
    from pydamon.modules.hmsdk import Converted

_TEXTS = click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
_OPS = click.option(
    "--ops", type=click.Choice(["vaddr", "paddr", "sim"]), default="vaddr", show_default=True, help="Of these targets."
)


@click.group(
    "modules", cls=VerbGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(ctx: click.Context, /, as_json: bool) -> None:
    """List the modules with their knobs and defaults; check and explain one.

    A module runs with record, start, or a spec: --module 'reclaim min_age=30s quota=128MiB/1s'.
    """
    if ctx.invoked_subcommand is not None:
        return
    if as_json:
        emit_json({"modules": [_values(name) for name in MODULES]})
        return
    for name, module in MODULES.items():
        usual = module.knobs()
        echo(f"{name}: {module.help}")
        for key, (field, knob) in module.table.items():
            echo(f"  {f'{key}={knob.write(getattr(usual, field))}':<44} {knob.help}")


def _values(name: str) -> dict[str, object]:
    module, usual = MODULES[name], MODULES[name].knobs()
    knobs = [
        {"name": key, "default": knob.write(getattr(usual, field)), "help": knob.help}
        for key, (field, knob) in module.table.items()
    ]
    return {"name": name, "help": module.help, "knobs": knobs, "where": module.where}


@command.command("check")
@_TEXTS
@_OPS
def check(texts: tuple[str, ...], ops: str) -> None:
    """Say of each TEXT whether it is valid, and what it cannot do on this machine; warnings are no error."""
    for text in texts:
        use = _parsed(text, ops)
        echo(f"ok: {use.write()}")
        _here(use, ops)


@command.command("explain")
@_TEXTS
@_OPS
@click.option(
    "-i", "--input", "path", type=RECORD, help="Say how much would come back of what is taken, by this record."
)
def explain(texts: tuple[str, ...], ops: str, path: str | None) -> None:
    """Say in plain words what each TEXT does, and when; and what it cannot do on this machine.

    With a record: how much of what it takes would be used again, from the record's page panel, with the error.
    """
    from pydamon.spec.words.explain import explain_schemes

    for text in texts:
        use = _here(_parsed(text, ops), ops)
        echo(use.write(all_knobs=True))
        schemes = use.schemes(_target(use, ops))
        for line in (*explain_schemes(schemes), *use.words()):
            echo(line)
        if path is not None:
            _foretell(use, schemes, path)


@command.command("from-hmsdk", context_settings={"ignore_unknown_options": True})
@click.argument("options", metavar="OPTIONS", nargs=-1, type=click.UNPROCESSED)
def from_hmsdk(options: tuple[str, ...]) -> None:
    """Print a spec (YAML) that does what HMSDK's gen_migpol.py makes of OPTIONS, e.g. -d 0 2 -p 2 0.

    What it does not have is said. Run it with start.
    """
    from pydamon.modules.hmsdk import convert

    with located("OPTIONS"):
        _print(convert(options[0] if len(options) == 1 else shlex.join(options)))


@command.command("from-etmem")
@click.argument("path", metavar="FILE", type=FILE)
def from_etmem(path: str) -> None:
    """Print a spec (YAML) of a project file of openEuler's etmem: engines slide, damon and cslide.

    What is not used of it is said. Run it with start.
    """
    from pydamon.cli.files import read_text
    from pydamon.linux.named import processes_named
    from pydamon.linux.texts import decode
    from pydamon.modules.etmem_project import convert

    text = decode(read_text(path))
    with located(path, ": "):
        _print(convert(text, processes_named))


def _print(converted: Converted) -> None:
    from pydamon.modules.registry import expand
    from pydamon.spec import to_builtins, validate
    from pydamon.spec.forms.yaml_values import encode_yaml

    validate(expand(converted.spec))
    for line in converted.remarks:
        messages.tell(line)
    emit(encode_yaml(to_builtins(converted.spec)))


def _foretell(use: Use, schemes: tuple[Scheme, ...], path: str) -> None:
    """What would come back, by the record. Raises PydamonError if it has no page panel."""
    from pydamon.cli.report.refaults import foretell

    for line in foretell(path, schemes):
        messages.tell(f"{use.module.name}: {line}")


def _parsed(text: str, ops: str) -> Use:
    from pydamon.spec.schemes import validate_schemes

    try:
        use = parse(text)
        target = _target(use, ops)
        validate_schemes(use.schemes(target), ops="paddr" if target == "physical" else ops, nr_targets=1)
    except RequestError as error:
        raise RequestError(error.message, where=error.where or "modules") from None
    return use


def _target(use: Use, ops: str) -> Target:
    """The first that it does not refuse: a process, a cgroup, physical memory."""
    if ops == "paddr":
        return "physical"
    targets: tuple[Target, ...] = ("process", "cgroup")
    for target in targets:
        try:
            use.schemes(target)
        except RequestError:
            continue
        return target
    return "physical"


def _here(use: Use, ops: str) -> Use:
    """What the module is on this machine, as it is where that has nothing for it; what it cannot do there is said."""
    from pydamon.run.modules import facts

    known = facts(ops, _target(use, ops))
    try:
        use = use.fitted(known)
    except PydamonError as error:
        messages.tell(f"{use.module.name}: {error}")
    for line in use.cannot(known):
        messages.tell(f"{use.module.name}: {line}")
    return use
