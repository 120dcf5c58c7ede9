"""``pydamon calibrate``: what faults, paging out and huge pages cost on this machine, as a file for simulations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pydamon.cli.completion.values import FILE
from pydamon.cli.help.classes import Verb
from pydamon.cli.options import Quantity
from pydamon.spec import units

if TYPE_CHECKING:
    from pydamon.run.calibration.calibrate import Calibration


@click.command("calibrate", cls=Verb)
@click.option("-o", "--output", type=FILE, help="Write a cost file, for --costs (.json: as JSON, else YAML).")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--quick", is_flag=True, help="Fewer measurements: two seconds instead of about six.")
@click.option(
    "--memory",
    type=Quantity("size", units.parse_size),
    default="256MiB",
    show_default=True,
    help="Take so much memory for it, 16MiB to 2GiB; a file is a quarter as large, 64MiB at most.",
)
@click.option(
    "--directory",
    metavar="DIR",
    default="/var/tmp",
    show_default=True,
    help="Where that file is: on the disk that is measured.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(**options: Any) -> None:
    """Measure what page faults, paging out and huge pages cost on this machine.

    It needs no privilege, takes memory and a file without a name of its own, and changes no setting; a machine that
    is busy meanwhile measures itself busy. What cannot be measured keeps its default, and it says why.
    """
    _run(**options)


def _run(output: str | None, force: bool, quick: bool, memory: int, directory: str, as_json: bool) -> None:
    from pydamon import messages
    from pydamon.cli.calibration import as_file, as_object, check_output, text
    from pydamon.cli.render.output import write_public
    from pydamon.cli.render.screen import current_screen, emit, emit_json
    from pydamon.errors import RequestError
    from pydamon.run.calibration.calibrate import calibrate

    if output == "-" and as_json:
        raise RequestError("- and --json both go to standard output", where="-o")
    if output is not None:
        check_output(output, force)
    try:
        found = calibrate(memory=memory, directory=directory, quick=quick)
    except RequestError as error:
        raise RequestError(error.message, where=f"--{error.where}") from None
    if as_json:
        emit_json(as_object(found))
    elif output != "-":
        emit("\n".join(text(found, current_screen())) + "\n")
    if output == "-":
        emit(as_file(found, output))
    elif output is not None:
        write_public(output, as_file(found, output))
        messages.say(f"wrote {output}: {_counted(found)}")


def _counted(found: Calibration) -> str:
    return f"{len(found.measured)} costs as measured, {len(found.left)} by default"
