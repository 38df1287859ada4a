"""The journal of a running gateway: one writer and one reader over one store."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from proxy_core.errors import StoreError
from proxy_core.journal.async_engine import AsyncEngine
from proxy_core.journal.backends import Backend, open_backend
from proxy_core.journal.records import Record
from proxy_core.journal.rows import RowBuilder, keyed_hash
from proxy_core.journal.spool import Spool
from proxy_core.journal.store import JournalStore, ensure_hash_key
from proxy_core.journal.writer import JournalWriter
from proxy_core.settings import JournalSettings


class Journal:
    """Open with `open`; `append` records, read through `store`, end with `close`."""

    def __init__(self, backend: Backend, writer: JournalWriter, key: bytes) -> None:
        self._backend = backend
        self.digest = keyed_hash(key)
        """The keyed hash by which content is stored and histories are recognised: 16 bytes."""
        self.writer = writer
        self.store = JournalStore(backend.engine)

    @classmethod
    async def open(cls, settings: JournalSettings, data_dir: Path) -> Journal:
        """Open or create the store. Raises StoreError naming the remedy."""
        backend = await open_backend(database_url(settings, data_dir), sync=settings.sync)
        try:
            key = await ensure_hash_key(backend.engine, os.urandom(32))
            spool = await asyncio.to_thread(Spool, data_dir / "spool")
        except BaseException as error:
            await backend.close()
            if isinstance(error, asyncio.CancelledError | StoreError):
                raise
            raise StoreError(f"the journal cannot be opened: {str(error).splitlines()[0]}") from error
        builder = RowBuilder(key=key, capture=settings.capture)
        writer = JournalWriter(backend, builder, spool, mode=settings.on_trouble)
        writer.start()
        return cls(backend, writer, key)

    @property
    def kind(self) -> str:
        return self._backend.kind

    @property
    def engine(self) -> AsyncEngine:
        """The store, for what is no record: keys and budgets."""
        return self._backend.engine

    def append(self, record: Record) -> asyncio.Future[None]:
        """Hand over a record; the future is done when it is durable. Raises JournalUnavailable."""
        return self.writer.append(record)

    async def close(self) -> None:
        """Write what waits and close the store."""
        await self.writer.close()
        await self._backend.close()


def database_url(settings: JournalSettings, data_dir: Path) -> str:
    return settings.database_url or f"sqlite+aiosqlite:///{data_dir / 'luthien.db'}"
