"""``pydamon status``: what runs in the background."""

from __future__ import annotations

import click


@click.command("status")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="All there is to know, as JSON.")
def command(name: str | None, as_json: bool) -> None:
    """Show the kdamonds in the background, or everything about the one called NAME."""
    from pydamon.cli.render import service
    from pydamon.errors import PydamonError
    from pydamon.service.client import Client, running

    names = running() if name is None else [name]
    found = []
    for each in names:
        try:
            found.append(Client(each).status())
        except PydamonError as error:
            if name is not None:
                raise
            click.echo(f"pydamon: {error}", err=True)  # the others are still worth showing
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode({"kdamonds": found}), indent=2))
    elif not found:
        click.echo("nothing runs in the background")
    elif name is not None:
        click.echo("\n".join(service.details(found[0])))
    else:
        click.echo("\n".join(service.overview(found)))
