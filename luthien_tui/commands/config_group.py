"""`luthien config …`: what each of its sub-commands is called and takes."""

from __future__ import annotations

import typer

from luthien_tui.commands.given import AsJson, Given, takes

group = typer.Typer(rich_markup_mode=None, help="Look at the settings.", no_args_is_help=True)


@group.command("show")
@takes("config", "data_dir")
def config_show(given: Given, as_json: AsJson = False) -> None:
    """Print every setting, its value and where it came from; secrets are hidden.

    \b
    Example:
      luthien config show --config luthien.yaml
    """
    from luthien_tui.commands.config import print_settings

    print_settings(given.load(), as_json=as_json)
