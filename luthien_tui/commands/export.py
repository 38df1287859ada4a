"""`luthien export`: a recorded session as a file.

Reads only; a running gateway is not disturbed. What it writes holds traffic, so a file is for its owner alone; it appears
whole or not at all. Nothing in it acts on a terminal.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from luthien_tui.commands.given import Given
from luthien_tui.commands.log import store_url
from proxy_core.errors import ConfigurationError, ExitCode

if TYPE_CHECKING:
    from proxy_core.control.session_export import ExportFormat


def run_export(given: Given, session: str, form: ExportFormat, output: Path | None) -> int:
    """Write the session. Raises ConfigurationError for one that there is not, StoreError."""
    settings = given.load().settings
    url = store_url(settings)
    if output is None:
        asyncio.run(_write(url, session, form, sys.stdout, settings.sessions.ttl_s))
        return ExitCode.OK
    if output.is_dir():
        raise ConfigurationError(f"--output: {output} is a folder; name the file to write")
    place = output.resolve()
    # A device or a pipe is written to; only a file may be put in the place of what is there.
    is_file = place.is_file() or not place.exists()
    written = place.with_name(f".{place.name}.{os.getpid()}") if is_file else place
    try:
        with open(written, "w", encoding="utf-8", opener=_for_the_owner) as file:
            asyncio.run(_write(url, session, form, file, settings.sessions.ttl_s))
        if is_file:
            written.replace(place)
    except OSError as error:
        raise ConfigurationError(f"--output: {output} cannot be written: {error.strerror or error}") from error
    finally:
        if is_file:
            written.unlink(missing_ok=True)
    return ExitCode.OK


async def _write(url: str, session: str, form: ExportFormat, file: TextIO, ttl_s: float) -> None:
    from proxy_core.control.feed import Feed
    from proxy_core.control.session_book import SessionBook
    from proxy_core.control.session_export import export
    from proxy_core.journal.session_reads import SessionReads

    reads = await SessionReads.open(url, read_only=True)
    assert isinstance(reads, SessionReads)  # noqa: S101 - it opens its own class
    try:
        book = SessionBook(reads, running={}, feed=Feed(), ttl_s=ttl_s)
        found = await book.session(session, after=None, before=None, limit=1)
        if found is None:
            raise ConfigurationError(f"the journal has no session '{session[:200]}'")
        async for piece in export(found.info, book.story(session), form):
            file.write(piece.encode("utf-8", "replace").decode())
    finally:
        await reads.close()


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
