"""``pydamon status``: what runs in the background."""

from __future__ import annotations

import click


@click.command("status")
@click.argument("name", required=False)
@click.option("--kernel", "with_kernel", is_flag=True, help="Always show the kernel's own DAMON.")
@click.option("--json", "as_json", is_flag=True, help="All there is to know, as JSON.")
def command(name: str | None, with_kernel: bool, as_json: bool) -> None:
    """Show the kdamonds in the background, or everything about the one called NAME.

    Also who uses the kernel's own DAMON, and its modules, if they are there and this user may look.
    """
    from pydamon.errors import PydamonError
    from pydamon.service.client import Client, running
    from pydamon.views import lines, status

    names = running() if name is None else [name]
    found, shown = [], []
    for each in names:
        try:
            found.append(Client(each).status())
            if not as_json:
                shown.append(status.running(found[-1]))
        except PydamonError as error:
            if name is not None:
                raise
            click.echo(f"pydamon: {error}", err=True)  # the others are still worth showing
    kernel = []
    if with_kernel or name is None:
        from pydamon.run.kernel import kernel_status, status_lines

        kernel = kernel_status()
    if as_json:
        import msgspec

        told = {"kdamonds": found, "kernel": kernel} if with_kernel or name is None else {"kdamonds": found}
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
    elif not shown:
        click.echo("nothing runs in the background")
    elif name is not None:
        click.echo("\n".join(lines.details(shown[0])))
    else:
        click.echo("\n".join(lines.overview(shown)))
    if (with_kernel or kernel) and not as_json:
        about = status_lines(kernel) or ["not in use, or not visible"]
        click.echo("\n".join(["", "the kernel's DAMON:", *(f"  {line}" for line in about)]))
