"""What was probably meant by a word that is none: a slip of the finger, or what other tools call it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

import click

from pydamon.cli import verbs
from pydamon.cli.help.place import words_of

# What other tools call it; the first that the verb has is meant.
_OPTIONS = {
    "--children": ("--include-children",),
    "--cpu": ("--max-cpu", "--cpus"),
    "--file": ("--input", "--output"),
    "--follow": ("--include-children",),
    "--format": ("--json",),
    "--freq": ("--sample",),
    "--head": ("--top",),
    "--interval": ("--sample",),
    "--limit": ("--top",),
    "--order": ("--by",),
    "--out": ("--output",),
    "--overhead": ("--max-cpu",),
    "--process": ("--pid",),
    "--seconds": ("--duration",),
    "--since": ("--from",),
    "--sort": ("--by",),
    "--time": ("--duration", "--at"),
    "--timeout": ("--duration",),
    "--until": ("--to",),
}
_VERBS = {
    "attach": "record",
    "check": "doctor",
    "convert": "import",
    "info": "report info",
    "kill": "stop",
    "list": "status",
    "ls": "status",
    "man": "help",
    "monitor": "record",
    "plot": "report heatmap",
    "ps": "status",
    "run": "record",
    "set": "tune",
    "show": "report",
    "update": "tune",
    "view": "report",
}
_BEFORE_THE_VERB = ("--no-config", "--version")


def no_such_verb(group: click.Group, ctx: click.Context, word: str) -> str:
    """What to say of a word that stands where a verb (or what is below one) should."""
    below = words_of(ctx)
    kind = "report" if below == ("report",) else "verb"
    if below:
        meant = close(word, group.list_commands(ctx))
    elif word.isascii() and word.isdigit():
        meant = [f"record {word}"]
    elif word in _VERBS:
        meant = [_VERBS[word]]
    else:
        meant = close(word, verbs.VERBS) or _report(word, group, ctx)
    return f"No such {kind} {word!r}{did_you_mean(meant)}"


def _report(word: str, group: click.Group, ctx: click.Context) -> list[str]:
    """A report was named as if it were a verb."""
    reports = group.get_command(ctx, "report")
    found = close(word, reports.list_commands(ctx)) if isinstance(reports, click.Group) else []
    return [f"report {name}" for name in found]


def no_such_option(error: click.NoSuchOption) -> str:
    """What to say of an option that the verb does not have."""
    name = error.option_name
    ctx = error.ctx
    if ctx is None:
        return f"No such option {name}"
    if name in _BEFORE_THE_VERB and ctx.parent is not None:
        return f"{name} stands before the verb: pydamon {name} {' '.join(words_of(ctx))}"
    known = [opt for param in ctx.command.get_params(ctx) if isinstance(param, click.Option) for opt in param.opts]
    meant = [option for option in _OPTIONS.get(name, ()) if option in known][:1]
    return f"No such option {name}{did_you_mean(meant or close(name, known))}"


def close(word: str, known: Collection[str]) -> list[str]:
    """What differs least from ``word``, if it differs little: at most two, the nearest first."""
    begin = [name for name in known if len(word.lstrip("-")) > 1 and name.startswith(word)]
    return begin[:2] or get_close_matches(word, _long(known) if word.startswith("--") else known, n=2, cutoff=0.6)


def _long(known: Iterable[str]) -> list[str]:
    return [name for name in known if name.startswith("--")]


def did_you_mean(meant: list[str]) -> str:
    """What to add to a message, if anything was probably meant."""
    return f"; did you mean {' or '.join(meant)}?" if meant else ""
