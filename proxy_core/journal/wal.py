"""Moves what SQLite has in its write-ahead log into the database, beside the writer and not in its way.

Left to itself SQLite does that at the end of a commit: it waits for the disk for tens of milliseconds, and with it every
request whose record is in that commit. Here another connection does it in a thread of its own, when the log has grown and when
nothing has been written for a moment; only then can the log begin anew. Where there never is such a moment, a log that has
become large is finished by the writer after all. Source: https://www.sqlite.org/wal.html, "Checkpointing".
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiosqlite

from proxy_core.errors import StoreError
from proxy_core.tasks import spawn

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Time between two looks while there is something to move."""
SMALL_BYTES = 4 * 1024 * 1024
"""A log that is left as it is."""
GROWN_BYTES = 32 * 1024 * 1024
"""While the disk takes what is moved a commit may wait for milliseconds, so it must happen seldom."""
LARGE_BYTES = 96 * 1024 * 1024
"""A log that the writer finishes, whatever waits."""
KEPT_BYTES = 128 * 1024 * 1024
"""A finished log is written anew in the same file; only a larger one is cut, which takes the disk tens of milliseconds."""
CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"
"""Neither waits for others nor makes them wait."""


class WalKeeper:
    """Keeps the log of one database small. All calls from the loop."""

    def __init__(self, path: Path, in_writer: Callable[[Callable[[sqlite3.Connection], None]], Awaitable[None]]) -> None:
        """`in_writer` runs something on the writing connection, between two commits."""
        self._path = path
        self._log_path = Path(f"{path}-wal")
        self._in_writer = in_writer
        self._connection: aiosqlite.Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None
        self._written = False
        self._dirty = False
        self._moved_at = 0

    def wrote(self) -> None:
        """Something was committed."""
        self._written = True
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._running is not None:
            await asyncio.wait([self._running])
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def _look(self) -> None:
        idle, self._written = not self._written, False
        self._dirty = self._dirty or not idle
        size = self._size()
        self._moved_at = min(self._moved_at, size)
        busy = self._running is not None
        if self._dirty and not busy and size > (SMALL_BYTES if idle else self._moved_at + GROWN_BYTES):
            self._running = spawn(self._move(finish=not idle), name="checkpoint")
            self._running.add_done_callback(self._moved)
        # What is written while it is moved makes it dirty again.
        self._dirty = busy or not idle
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look) if self._dirty else None

    def _moved(self, _: asyncio.Task[None]) -> None:
        self._running = None

    async def _move(self, *, finish: bool) -> None:
        try:
            if self._connection is None:
                self._connection = await aiosqlite.connect(self._path, isolation_level=None)
                await self._connection.execute("PRAGMA busy_timeout=1000")
            await (await self._connection.execute(CHECKPOINT)).close()
            self._moved_at = self._size()
            if finish and self._moved_at > LARGE_BYTES:
                await self._in_writer(_finish)
        except (sqlite3.Error, OSError, StoreError) as error:
            log.warning("journal: what is written stays in its log for now: %s", error)

    def _size(self) -> int:
        try:
            return self._log_path.stat().st_size
        except OSError:
            return 0


def _finish(writer: sqlite3.Connection) -> None:
    writer.execute(CHECKPOINT).close()
