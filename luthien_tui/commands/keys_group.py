"""`luthien keys …`: what each of its sub-commands is called and takes."""

from __future__ import annotations

from typing import Annotated

import typer

from luthien_tui.commands.given import STORED, AsJson, Given, takes

group = typer.Typer(rich_markup_mode=None, help="Make, list and revoke keys for clients.", no_args_is_help=True)


@group.command("create")
@takes(*STORED)
def keys_create(
    given: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is called in records and limits.")],
    models: Annotated[
        str | None, typer.Option("--models", metavar="NAMES", help="Models it may use, with commas between; * is any text.")
    ] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", metavar="N", help="Requests a minute.")] = None,
    burst: Annotated[
        int | None, typer.Option("--burst", metavar="N", help="Requests at once; as many as in a minute by default.")
    ] = None,
    tpm: Annotated[int | None, typer.Option("--tpm", metavar="N", help="Tokens a minute.")] = None,
    usd_per_day: Annotated[float | None, typer.Option("--usd-per-day", metavar="USD", help="Budget for a day (UTC).")] = None,
    usd_per_month: Annotated[
        float | None, typer.Option("--usd-per-month", metavar="USD", help="Budget for a month (UTC).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it; it cannot be shown again. A running gateway takes it within a second.

    \b
    Example:
      luthien keys create ci --models 'gpt-4o-mini,claude-*' --rpm 60 --usd-per-day 5
    """
    from luthien_tui.commands.keys import create_key

    named = [one.strip() for one in models.split(",") if one.strip()] if models is not None else None
    limits = {"models": named, "rpm": rpm, "burst": burst, "tpm": tpm, "usd_per_day": usd_per_day, "usd_per_month": usd_per_month}
    raise typer.Exit(create_key(given, name, limits, as_json=as_json))


@group.command("list")
@takes(*STORED)
def keys_list(given: Given, as_json: AsJson = False) -> None:
    """List the keys with their limits; only how each one begins is known.

    \b
    Example:
      luthien keys list
    """
    from luthien_tui.commands.keys import list_keys

    raise typer.Exit(list_keys(given, as_json=as_json))


@group.command("revoke")
@takes(*STORED)
def keys_revoke(
    given: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key.")],
    as_json: AsJson = False,
) -> None:
    """Refuse a key from now on. A running gateway takes it within a second.

    \b
    Example:
      luthien keys revoke ci
    """
    from luthien_tui.commands.keys import revoke_key

    raise typer.Exit(revoke_key(given, name, as_json=as_json))
