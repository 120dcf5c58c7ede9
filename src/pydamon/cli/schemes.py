"""``pydamon schemes``: check, explain and convert files of schemes. Nothing is run, and no privilege is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from pydamon import messages
from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import VerbGroup
from pydamon.cli.options import OPS
from pydamon.cli.render.screen import echo, emit, emit_json
from pydamon.errors import RequestError, located
from pydamon.plain import printable

if TYPE_CHECKING:
    from pydamon.spec.forms.scheme_files import Loaded

_ops = click.option(
    "--ops", type=click.Choice(OPS), help="Check against this operations set.  [default: the spec's, or vaddr]"
)


@click.group("schemes", cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Check, explain and convert schemes (DAMOS): files of pydamon, of damo, or of the kernel's debugfs.

    FILE is JSON or YAML (a whole spec, or schemes), or has one scheme on each line; - is standard input.
    """


@command.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=FILE)
@_ops
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(files: tuple[str, ...], ops: str | None, as_json: bool) -> None:
    """Say of each scheme whether it is valid, and warn of what can have no effect.

    Ends with exit status 2 at the first file that is wrong; warnings alone are no error.
    """
    from pydamon.spec.forms.scheme_short import write_short
    from pydamon.spec.words.hints import hints, same_names

    found = []
    for name in files:
        loaded = _load(name, ops)
        warnings = list(loaded.warnings)
        entries = []
        for scheme, path, used, intervals in _each(loaded, ops):
            mine = hints(scheme, path, ops=used, intervals=intervals)
            warnings += mine
            entries.append({"path": path, "ops": used, "short": write_short(scheme), "warnings": mine})
        warnings += same_names(loaded.schemes, loaded.paths)
        found.append({"file": name, "form": loaded.form, "schemes": entries, "warnings": warnings})
        if as_json:
            continue
        for entry in entries:
            echo(f"{printable(name)}: {entry['path']}: ok: {entry['short']}")
        if not entries:
            echo(f"{printable(name)}: ok: a spec without schemes")
        _say(name, warnings)
    if as_json:
        emit_json({"files": found})


@command.command("explain")
@click.argument("file", type=FILE)
@_ops
def explain(file: str, ops: str | None) -> None:
    """Say in plain words what the schemes do, and when."""
    from pydamon.spec.words.explain import explain_schemes

    loaded = _load(file, ops)
    if loaded.spec is None:
        lines = explain_schemes(loaded.schemes)
    else:
        from pydamon.spec import explain as explain_spec

        lines = explain_spec(loaded.spec)
        if not any(line.startswith("Scheme ") for line in lines):
            for kdamond in loaded.spec.kdamonds:
                context = kdamond.contexts[0]
                lines += explain_schemes(context.schemes, context.intervals.aggr_us, faithful=context.faithful)
    for line in lines:
        echo(line)
    _say(file, loaded.warnings)


@command.command("show")
@click.argument("file", type=FILE)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "yaml", "short", "damo"]),
    default="short",
    show_default=True,
    help="Our layout as JSON or YAML, one line for each scheme, or what damo reads (JSON).",
)
@_ops
def show(file: str, form: str, ops: str | None) -> None:
    """Print the schemes (or the whole spec) in another form."""
    from pydamon.spec.forms.scheme_short import write_short

    loaded = _load(file, ops)
    warnings = list(loaded.warnings)
    if form == "short":
        if loaded.spec is not None:
            warnings.append("only the schemes are shown; the short form has nothing else")
        for scheme in loaded.schemes:
            echo(write_short(scheme))
    elif form == "yaml":
        from pydamon.spec.forms.yaml_values import encode_yaml

        emit(encode_yaml(_values(loaded)))
    else:
        values = _values(loaded) if form == "json" else _damo_values(loaded, file, warnings)
        emit_json(values)
    _say(file, warnings)


def _values(loaded: Loaded) -> Any:
    from pydamon.spec import to_builtins
    from pydamon.spec.forms.scheme_files import to_builtins as scheme_to_builtins

    if loaded.spec is not None:
        return to_builtins(loaded.spec)
    return {"schemes": [scheme_to_builtins(scheme) for scheme in loaded.schemes]}


def _damo_values(loaded: Loaded, file: str, warnings: list[str]) -> Any:
    from pydamon.spec.forms.damo_write import damo_scheme, damo_spec

    try:
        if loaded.spec is not None:
            return damo_spec(loaded.spec, warnings.append)
        pairs = zip(loaded.schemes, loaded.paths, strict=True)
        return [damo_scheme(scheme, path, warnings.append) for scheme, path in pairs]
    except RequestError as error:
        raise _at(file, error) from None


def _each(loaded: Loaded, ops: str | None) -> list[tuple[Any, str, str, Any]]:
    """Each scheme with its path, its operations set, and its intervals (None if they are not known)."""
    if loaded.spec is None:
        return [(scheme, path, ops or "vaddr", None) for scheme, path in zip(loaded.schemes, loaded.paths, strict=True)]
    contexts = [kdamond.contexts[0] for kdamond in loaded.spec.kdamonds]
    owners = [context for context in contexts for _ in context.schemes]
    return [
        (scheme, path, ops or owner.ops, owner.intervals)
        for scheme, path, owner in zip(loaded.schemes, loaded.paths, owners, strict=True)
    ]


def _load(name: str, ops: str | None) -> Loaded:
    from pydamon.cli.files import read_text
    from pydamon.spec.forms.scheme_files import load

    text = read_text(name)
    try:
        loaded = load(text, ops=ops or "vaddr")
        for scheme, path, used, _ in _each(loaded, ops):
            _check_ops(scheme, path, used)
    except RequestError as error:
        raise _at(name, error) from None
    return loaded


def _check_ops(scheme: Any, path: str, ops: str) -> None:
    """Whether the operations set has the action at all, on any machine."""
    from pydamon.spec.schemes import validate_scheme

    with located(path):
        validate_scheme(scheme, ops=ops)
        if ops == "paddr":
            from pydamon.spec.actions import PHYSICAL

            if not scheme.does.physical:
                text = f"{scheme.action!r} is no action on physical memory; there are {', '.join(PHYSICAL)}"
                raise RequestError(text, where="action")


def _at(name: str, error: RequestError) -> RequestError:
    shown = "standard input" if name == "-" else name
    return RequestError(error.message, where=f"{shown}: {_field(error.where)}" if error.where else shown)


def _field(path: str) -> str:
    """``line 3: age`` instead of ``line 3.age``."""
    return re.sub(r"^(line \d+)\.", r"\1: ", path)


def _say(file: str, warnings: tuple[str, ...] | list[str]) -> None:
    for line in warnings:
        messages.tell(f"{file}: {_field(line)}")
