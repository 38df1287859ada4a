"""`luthien replay`: what it is called and takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luthien_tui.commands.given import STORED, AsJson, Given, takes


@takes(*STORED)
def replay(
    given: Given,
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH", help="Recordings: files or folders.")] = None,
    delay: Annotated[float, typer.Option("--delay", metavar="S", min=0, max=3_600, help="Pause between requests, in s.")] = 0.0,
    speed: Annotated[
        float | None, typer.Option("--speed", metavar="N", min=0.001, help="At the recorded times, N times as fast [at once].")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="UPSTREAM", help="Send live to this upstream or URL.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Send live without asking.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show whole differences of text, line by line.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 where anything differs.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", metavar="N", min=1, help="At most this many transactions.")
    ] = None,
    journal: Annotated[bool, typer.Option("--journal", help="Replay what the journal holds, in place of files.")] = False,
    filter_text: Annotated[str, typer.Option("--filter", metavar="EXPR", help="With --journal: only these.")] = "",
    record: Annotated[bool, typer.Option("--record", help="Keep the replay in the journal, and run interceptors.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run recorded traffic through the policies again, and say what comes out differently. Nothing is sent without --to.

    Reads recordings of http_recorder, of Cylestio, and HAR. Exits 1 where something of a recording could not be read.

    \b
    Examples:
      luthien replay recordings/ --config luthien.yaml
      luthien replay recordings/ --diff --limit 20
      luthien replay session.har --to local --yes
      luthien replay --journal --filter 'verdict:deny'
    """
    from luthien_tui.commands.replay import Wanted, run_replay

    wanted = Wanted(
        paths=paths or [],
        delay_s=delay,
        speed=speed,
        to=to,
        yes=yes,
        diff=diff,
        check=check,
        limit=limit,
        journal=journal,
        filter_text=filter_text,
        record=record,
        as_json=as_json,
    )
    raise typer.Exit(run_replay(given, wanted))
