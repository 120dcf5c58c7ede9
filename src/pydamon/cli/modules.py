"""``pydamon modules``: list, check and explain modules. Nothing is run, and no privilege is needed."""

from __future__ import annotations

import click

from pydamon import messages
from pydamon.cli.completion.values import RECORD
from pydamon.cli.help.classes import VerbGroup
from pydamon.cli.render.screen import echo, emit_json
from pydamon.errors import RequestError
from pydamon.modules.base import Target, Use
from pydamon.modules.registry import MODULES, parse
from pydamon.spec import Scheme

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
        _warn(use, ops)


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
        use = _parsed(text, ops)
        echo(use.write(all_knobs=True))
        schemes = use.schemes(_target(use, ops))
        for line in (*explain_schemes(schemes), *use.words()):
            echo(line)
        if path is not None:
            _foretell(use, schemes, path)
        _warn(use, ops)


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


def _warn(use: Use, ops: str) -> None:
    from pydamon.run.modules import facts

    for line in use.cannot(facts(ops, _target(use, ops))):
        messages.tell(f"{use.module.name}: {line}")
