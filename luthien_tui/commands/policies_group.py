"""`luthien policies …`: what each of its sub-commands is called and takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthien_tui.commands.given import AsJson, Given, takes

group = typer.Typer(rich_markup_mode=None, help="See, try and write policies.", no_args_is_help=True)


@group.command("list")
@takes("config", "data_dir")
def policies_list(given: Given, as_json: AsJson = False) -> None:
    """List every policy: what it does, what it holds back of a stream, and its parameters. Exits 1 if one cannot be loaded.

    \b
    Example:
      luthien policies list
    """
    from luthien_tui.commands.policies import print_policies

    settings = given.load().settings
    raise typer.Exit(print_policies(settings, as_json_text=as_json))


@group.command("show")
@takes("config", "data_dir")
def policies_show(
    given: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The policy.")],
    as_json: AsJson = False,
) -> None:
    """Say all about one policy, and how it is configured.

    \b
    Example:
      luthien policies show string_replacement
    """
    from luthien_tui.commands.policies import print_policy

    settings = given.load().settings
    raise typer.Exit(print_policy(settings, name, as_json_text=as_json))


@group.command("new")
def policies_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy, such as block_swearing.")],
    folder: Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Where the files go [policies].")] = Path("policies"),
) -> None:
    """Write a policy of your own, and a test that passes; then change both.

    \b
    Example:
      luthien policies new block_swearing
    """
    from luthien_tui.commands.policies import write_policy

    raise typer.Exit(write_policy(name, folder))


@group.command("test")
@takes("config", "data_dir")
def policies_test(
    given: Given,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The policy.")],
    file: Annotated[
        Path,
        typer.Option("--input", metavar="FILE", help="A request, a response, a stream, or JSON with both; - is stdin."),
    ],
    params: Annotated[str, typer.Option("--params", metavar="JSON", help="Its parameters.")] = "",
    operation: Annotated[str, typer.Option("--operation", metavar="NAME", help="The API of the file [read from it].")] = "",
    stream: Annotated[bool, typer.Option("--stream", help="Try the response as a stream.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a policy on recorded bodies, and print them before and after. Nothing is sent anywhere.

    \b
    Example:
      luthien policies test string_replacement --params '{"replacements": [["foo", "bar"]]}' --input answer.json
    """
    from luthien_tui.commands.policies import try_policy

    settings = given.load().settings
    raise typer.Exit(try_policy(settings, name, file, params=params, operation=operation, stream=stream, as_json_text=as_json))


@group.command("import")
def policies_import(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The other program's file.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where the configuration goes [stdout].")] = None,
) -> None:
    """Translate a file of Luthien Control, Luthien Proxy, Policy Mesh or Cylestio Perimeter into luthien's configuration.

    What has no counterpart is refused, with its place in the file.

    \b
    Example:
      luthien policies import policy.json --out luthien.yaml
    """
    from luthien_tui.commands.policies import import_policies

    raise typer.Exit(import_policies(file, out))
