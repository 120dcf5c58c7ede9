"""The program ``perf-damon``: with it on the path, a stock ``perf`` answers ``perf damon start|record|report|…``.

perf runs a subcommand that it does not know as the program ``perf-NAME``. The words are perf's, the work is pydamon's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pydamon import messages

USAGE = """\
usage: perf damon start  [OPTIONS] PID… | COMMAND…    monitor in the background
       perf damon record [OPTIONS] PID… | COMMAND…    monitor, and write a record
       perf damon report [REPORT] [-i FILE]           show a record (access, heatmap, wss, …)
       perf damon status | tune | stop                what runs in the background

The options are those of the pydamon verb of the same name: perf damon record --help.
"""
PROGRAM = "perf-damon"
VERBS = ("start", "record", "report", "status", "tune", "stop")


def translate(arguments: Sequence[str]) -> list[str]:
    """The command line of ``pydamon`` for what stands behind ``perf damon``; the first word is one of its verbs."""
    verb, *rest = arguments
    if verb in ("start", "record"):
        return [verb, *_with_dashes(verb, rest)]
    if verb == "report" and not (rest and (rest[0] in ("-h", "--help") or not rest[0].startswith("-"))):
        return [verb, "access", *rest]
    return [verb, *rest]


def _with_dashes(verb: str, arguments: list[str]) -> list[str]:
    """As with ``perf record``, a command needs no ``--`` before it; pydamon wants one."""
    from pydamon.cli import record, start

    params = (start.command if verb == "start" else record.command).params
    with_value = {name for param in params if not getattr(param, "is_flag", True) for name in param.opts}
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] != "--":
        at += 2 if arguments[at] in with_value else 1
    if at < len(arguments) and arguments[at] != "--" and not arguments[at].isdecimal() and arguments[at] not in _EDITS:
        return [*arguments[:at], "--", *arguments[at:]]
    return arguments


_EDITS = ("cut", "merge", "aggregate")  # what `pydamon record` does with records


def main() -> None:
    """Run, and exit with pydamon's status."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if arguments:
            print(USAGE, end="")
        else:
            for line in USAGE.rstrip("\n").split("\n"):
                messages.tell(line)
        sys.exit(0 if arguments else 2)
    if arguments[0] not in VERBS:
        messages.tell(f"perf damon: there is no {arguments[0]!r}; there are {', '.join(VERBS)}")
        sys.exit(2)
    from pydamon.cli import main as run
    from pydamon.lean import begin, leave

    begin()
    leave(run(translate(arguments)))


if __name__ == "__main__":
    main()
