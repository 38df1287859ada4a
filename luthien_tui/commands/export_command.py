"""`luthien export`: what it is called and takes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from luthien_tui.commands.given import STORED, Given, takes


class Form(StrEnum):
    """What the file is."""

    MARKDOWN = "markdown"
    JSONL = "jsonl"


@takes(*STORED)
def export(
    given: Given,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="The session's id, as the screen and the API show it.")],
    form: Annotated[
        Form, typer.Option("--format", help="As a person reads it, or one transaction a line.", show_default=True)
    ] = Form.MARKDOWN,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there [stdout].")] = None,
) -> None:
    """Write one recorded session as Markdown or JSON lines.

    \b
    Examples:
      luthien export s-5f2c91d0aa -o session.md
      luthien export s-5f2c91d0aa --format jsonl | jq .transaction.model
    """
    from luthien_tui.commands.export import run_export

    raise typer.Exit(run_export(given, session, form.value, output))
