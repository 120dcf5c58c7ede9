"""Defaults of the user's own: ``~/.config/pydamon/config.toml`` for options by verb, and PYDAMON_OPTS before them.

What stands on the command line comes before PYDAMON_OPTS, and that before the file. ``--no-config`` passes over both.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

import click

from pydamon import messages
from pydamon.cli.help.place import is_group
from pydamon.errors import RequestError
from pydamon.linux.causes import cause

VARIABLE = "PYDAMON_OPTS"
_OFF = "--no-config"
_MOST_BYTES = 1 << 16


def config_file() -> str:
    """Where the file is, if there is one: below ``$XDG_CONFIG_HOME``, else below ``~/.config``."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.config"), "pydamon", "config.toml")


def config_in_force() -> str | None:
    """The file and the variable, where they are there."""
    found = [config_file()] if _read(config_file(), quiet=True) is not None else []
    return " and ".join([*found, VARIABLE] if os.environ.get(VARIABLE) else found) or None


def with_defaults(group: click.Group, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments with those of PYDAMON_OPTS among them, and the default map for click that the file is.

    Raises RequestError naming the file, the table and the option that is wrong.
    """
    given = list(arguments)
    at = next((place for place, word in enumerate(given) if not word.startswith("-")), len(given))
    if _OFF in given[:at]:
        return given, {}
    words = _verb(group, given[at:])
    if not words or words[0] == "help":
        return given, {}
    behind = at + len(words)
    return [*given[:behind], *_of_variable(words), *given[behind:]], _of_file(group, words)


def _verb(group: click.Group, arguments: Sequence[str]) -> list[str]:
    """The words of ``arguments`` that lead to a verb or a report."""
    words: list[str] = []
    command: click.Command | None = group
    context = click.Context(group)
    for word in arguments:
        if command is None or not is_group(command) or word not in command.list_commands(context):
            break
        command = command.get_command(context, word)
        words.append(word)
    return words


def _of_variable(words: list[str]) -> list[str]:
    """The options that the variable has for the verb: ``record --max-cpu 1%; report --json``."""
    found: list[str] = []
    said = os.environ.get(VARIABLE, "")
    if not said.strip():
        return found
    import shlex

    for part in said.split(";"):
        try:
            asked = shlex.split(part)
        except ValueError as error:
            raise RequestError(f"cannot be read: {error}", where=VARIABLE) from None
        count = next((place for place, word in enumerate(asked) if word.startswith("-")), len(asked))
        if asked and not count:
            raise RequestError(f"options stand behind a verb: record {' '.join(asked)}", where=VARIABLE)
        if asked[:count] == words[:count]:
            found += asked[count:]
    return found


def _of_file(group: click.Group, words: list[str]) -> dict[str, Any]:
    path = config_file()
    text = _read(path)
    if text is None:
        return {}
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"is not TOML: {error}", where=path) from None
    context = click.Context(group)
    for name in table:
        if name not in group.list_commands(context):
            raise RequestError(f"[{name}]: no such verb{_meant(name, group.list_commands(context))}", where=path)
    return _defaults(group, context, table, words, path, [])


def _defaults(
    command: click.Command, context: click.Context, table: dict[str, Any], words: list[str], path: str, above: list[str]
) -> dict[str, Any]:
    """The default map of ``command``; of what is below it only for what ``words`` name."""
    found: dict[str, Any] = {}
    table_name = f"[{'.'.join(above)}]"
    below = command.list_commands(context) if is_group(command) else []
    options = _options(command, context)
    for key, value in table.items():
        if key in below and isinstance(value, dict):
            continue
        if key in below:
            raise RequestError(f"{key} is a verb; write [{'.'.join([*above, key])}]", where=path)
        param = options.get(key)
        if param is None:
            raise RequestError(f"{table_name}: no such option {key!r}{_meant(key, [*options, *below])}", where=path)
        found[param.name or key] = _value(param, value, f"{table_name} {key}", path)
    if words and is_group(command) and words[0] in below:
        inner = command.get_command(context, words[0])
        assert inner is not None
        # What a verb with others below it is given is meant for those others, too, where they have it.
        known = _options(inner, context)
        inherited = {key: value for key, value in table.items() if not isinstance(value, dict) and key in known}
        own = table.get(words[0], {})
        found[words[0]] = _defaults(inner, context, inherited | own, words[1:], path, [*above, words[0]])
    return found


def _options(command: click.Command, context: click.Context) -> dict[str, click.Option]:
    """The long options that a verb has, without their dashes; not those that do something at once, as ``--help``."""
    return {
        option.removeprefix("--"): param
        for param in command.get_params(context)
        if isinstance(param, click.Option) and not param.is_eager
        for option in (*param.opts, *param.secondary_opts)
        if option.startswith("--")
    }


def _value(param: click.Option, value: Any, where: str, path: str) -> Any:
    """As click takes it: a text, a truth value, or several texts."""
    if param.is_flag:
        if not isinstance(value, bool):
            raise RequestError(f"{where}: is on or off; write true or false", where=path)
        return value
    values = value if isinstance(value, list) and param.multiple else [value]
    if not all(isinstance(each, (str, int, float)) and not isinstance(each, bool) for each in values):
        shown = "a text, or a list of texts" if param.multiple else "a text"
        raise RequestError(f"{where}: must be {shown}", where=path)
    return [str(each) for each in values] if param.multiple else str(value)


def _read(path: str, *, quiet: bool = False) -> str | None:
    """What is in the file; None where there is none, or where it is somebody else's, which is said."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise RequestError("is no file", where=path)
            if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
                if not quiet:
                    messages.say(f"{path} is not read: others may write it (it must be yours, and chmod go-w)")
                return None
            raw = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None  # also where HOME is still that of who we were (su, setpriv)
    except OSError as error:
        raise RequestError(f"cannot be read: {cause(error, '')}", where=path) from None
    if len(raw) > _MOST_BYTES:
        raise RequestError(f"is larger than {_MOST_BYTES >> 10} KiB", where=path)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"is not UTF-8: byte {error.start}", where=path) from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _meant(word: str, known: list[str]) -> str:
    from pydamon.cli.help.nearest import close, did_you_mean

    return did_you_mean(close(word, known))


def origin(line: str, arguments: Sequence[str]) -> str:
    """What to add to a message: where the options come from that it names and nobody has typed."""
    if _OFF in arguments:
        return ""
    typed = {word.partition("=")[0] for word in arguments}
    named = [word.strip("'\":;,") for word in line.split() if word.startswith(("--", "'--"))]
    for name in named:
        if name not in typed and name in os.environ.get(VARIABLE, "").replace("=", " ").split():
            return f"; {name} is set in {VARIABLE}"
        if name not in typed and name.removeprefix("--") in _keys(_read(config_file(), quiet=True) or ""):
            return f"; {name} is set in {config_file()}"
    return ""


def _keys(text: str) -> set[str]:
    return {line.partition("=")[0].strip() for line in text.splitlines() if "=" in line}
