"""The write-ahead log stays small, though no commit waits for it to be moved."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest

from proxy_core.journal import wal
from proxy_core.journal.journal import Journal
from proxy_core.settings import JournalSettings
from tests.proxy_core.journal.made import intent


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "LOOK_S", 0.02)
    monkeypatch.setattr(wal, "SMALL_BYTES", 64 * 1024)
    monkeypatch.setattr(wal, "GROWN_BYTES", 128 * 1024)
    monkeypatch.setattr(wal, "LARGE_BYTES", 512 * 1024)
    monkeypatch.setattr("proxy_core.journal.backends.KEPT_BYTES", 256 * 1024)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(JournalSettings(capture="full"), tmp_path)
    yield opened
    await opened.close()


async def write(journal: Journal, number: int) -> None:
    """About 20 kB that cannot be made smaller."""
    await journal.append(intent(journal, Random(number).randbytes(20_000), pieces=()))


async def test_a_log_that_is_written_without_a_pause_begins_anew(tmp_path: Path, journal: Journal) -> None:
    log = tmp_path / "luthien.db-wal"
    size = number = 0
    async with asyncio.timeout(20):
        while log.stat().st_size >= size:
            size = log.stat().st_size
            await write(journal, number)
            number += 1
    assert size > wal.LARGE_BYTES


def in_database(folder: Path) -> int:
    """Transactions that are in the database itself, without its log; 0 while it is being changed."""
    copy = folder / "copy.db"
    shutil.copy(folder / "luthien.db", copy)
    # At first there are not even the tables, and a copy of what is being moved can have pages of before and after.
    with closing(sqlite3.connect(copy)) as reader, suppress(sqlite3.DatabaseError):
        found: int = reader.execute("SELECT count(*) FROM transactions").fetchone()[0]
        return found
    return 0


async def test_what_was_written_is_moved_when_nothing_more_comes(tmp_path: Path, journal: Journal) -> None:
    for number in range(20):
        await write(journal, number)
    async with asyncio.timeout(10):
        while in_database(tmp_path) < 20:
            await asyncio.sleep(0.01)
