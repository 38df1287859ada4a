"""`luthien route …`: what each of its sub-commands is called and takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthien_tui.commands.given import AsJson, Given, takes

group = typer.Typer(rich_markup_mode=None, help="See where requests go, and why.", no_args_is_help=True)

Configured = Annotated[bool, typer.Option("--configured", help="Take the configuration's rules, though a gateway runs.")]


@group.command("explain")
@takes("config", "data_dir", "control_port")
def route_explain(
    given: Given,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model that is asked for.")] = "",
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="What the user says.")] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="FILE", help="Or a whole request as JSON; - is stdin.")] = None,
    path: Annotated[str, typer.Option("--path", metavar="PATH", help="The path it is sent to.")] = "/v1/chat/completions",
    tags: Annotated[str, typer.Option("--tags", metavar="TAGS", help="Its tags, such as team:legal,debug.")] = "",
    configured: Configured = False,
    as_json: AsJson = False,
) -> None:
    """Say which rule decides where a request goes, and what every other rule says of it. Nothing is sent.

    The rules are those in force where a gateway runs over this data folder, else those of the configuration.

    \b
    Example:
      luthien route explain --model gpt-4o-mini --prompt 'What is the capital of France?'
    """
    from luthien_tui.commands.route import print_explanation

    settings = given.load().settings
    code = print_explanation(
        settings, path=path, model=model, prompt=prompt, file=file, tags=tags, configured=configured, as_json=as_json
    )
    raise typer.Exit(code)


@group.command("what-if")
@takes("config", "data_dir", "control_port")
def route_what_if(
    given: Given,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A changed rule; may be given again.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=5_000, help="How many of the latest to look at.")
    ] = 1_000,
    configured: Configured = False,
    as_json: AsJson = False,
) -> None:
    """Say which recorded transactions changed rules would have sent elsewhere, and what that would have cost.

    Changed are the rules in force where a gateway runs over this data folder, else those of the configuration.

    \b
    Example:
      luthien route what-if --set cost.max_prompt_length_for_local=500
    """
    from luthien_tui.commands.route_what_if import print_what_if

    settings = given.load().settings
    raise typer.Exit(print_what_if(settings, changes or [], limit=limit, configured=configured, as_json=as_json))
