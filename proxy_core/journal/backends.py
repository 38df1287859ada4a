"""Where rows go: one SQLite file with one writing process, or a Postgres that several gateways share.

Each write is one transaction. Failures of the store become StoreError; what the store refuses row by row does too,
so the writer's mode decides and nothing vanishes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import aiosqlite
from sqlalchemy import Table, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from proxy_core.errors import StoreError
from proxy_core.journal import schema
from proxy_core.journal.async_engine import AsyncEngine, create_async_engine
from proxy_core.journal.records import Record
from proxy_core.journal.rows import RowBuilder
from proxy_core.journal.wal import KEPT_BYTES, WalKeeper

Rows = Mapping[str, Sequence[tuple[Any, ...]]]
_TABLES: dict[str, Table] = {name: table for name, table in schema.metadata.tables.items() if name != "meta"}
_ROWS_PER_STATEMENT = 32
READER_CACHE_KIB = 512
"""Pages that a reading connection keeps for itself, each of several; the system keeps them too."""


class Backend(Protocol):
    """What the writer needs of a store."""

    kind: str
    """`sqlite` or `postgres`."""
    engine: AsyncEngine
    """For reads and migrations."""

    async def write(self, builder: RowBuilder, records: Sequence[Record]) -> None:
        """Build the rows of `records` and commit them. Raises StoreError."""
        ...

    async def write_rows(self, rows: Rows) -> None: ...

    async def close(self) -> None: ...


def columns_of(table: Table) -> list[str]:
    return [column.name for column in table.columns if column.name != "seq"]


class SqliteBackend:
    """The embedded store: one connection writes, in a thread of its own, one hop a batch."""

    kind = "sqlite"

    def __init__(self, path: Path, *, sync: str) -> None:
        self._path = path
        self._sync = sync
        self._writer: aiosqlite.Connection | None = None
        self._lock = -1
        self._log = WalKeeper(path, self._in_writer_thread)
        self.engine = create_async_engine(URL.create("sqlite+aiosqlite", database=str(path)))
        event.listen(self.engine.sync_engine, "connect", _prepare_reader)

    def lock(self) -> None:
        """Make sure that no other process writes this file. Raises StoreError naming the other one."""
        name = f"{self._path}.lock"
        try:
            self._lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with Path(name).open(encoding="ascii", errors="replace") as file:
                owner = file.read(20).strip() or "unknown"
            raise StoreError(
                f"another luthien (process {owner}) writes {self._path}; stop it, or give this one its own --data-dir or Postgres"
            ) from None
        except OSError as error:
            raise StoreError(f"{self._path} is not writable: {error.strerror}; choose another folder with --data-dir") from error
        os.ftruncate(self._lock, 0)
        os.write(self._lock, str(os.getpid()).encode("ascii"))

    async def open_writer(self) -> None:
        try:
            self._writer = await aiosqlite.connect(self._path, isolation_level=None, cached_statements=512)
            for pragma in (
                "journal_mode=WAL",
                f"synchronous={'FULL' if self._sync == 'power' else 'NORMAL'}",
                "busy_timeout=5000",
                "trusted_schema=OFF",
                "wal_autocheckpoint=0",
                f"journal_size_limit={KEPT_BYTES}",
            ):
                await self._writer.execute(f"PRAGMA {pragma}")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self._path} cannot be opened: {error}; choose another folder with --data-dir") from error

    async def write(self, builder: RowBuilder, records: Sequence[Record]) -> None:
        def commit(connection: sqlite3.Connection) -> None:
            _insert_sqlite(connection, builder.build(records).as_lists())

        await self._in_writer_thread(commit)

    async def write_rows(self, rows: Rows) -> None:
        await self._in_writer_thread(lambda connection: _insert_sqlite(connection, rows))

    async def _in_writer_thread(self, work: Any) -> None:
        writer = self._writer
        if writer is None:
            raise StoreError("the journal is closed")
        try:
            # One hop for the whole batch: aiosqlite's public calls take one each, which costs more than the commit.
            await writer._execute(lambda: work(writer._conn))  # type: ignore[no-untyped-call]
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StoreError(f"{self._path} cannot be written: {error}") from error
        self._log.wrote()

    async def close(self) -> None:
        await self._log.close()
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        await self.engine.dispose()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _prepare_reader(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA wal_autocheckpoint=0")
    cursor.execute(f"PRAGMA cache_size=-{READER_CACHE_KIB}")
    cursor.close()


def _insert_sqlite(connection: sqlite3.Connection, rows: Rows) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name, table_rows in rows.items():
            for start in range(0, len(table_rows), _ROWS_PER_STATEMENT):
                part = table_rows[start : start + _ROWS_PER_STATEMENT]
                # One statement for many rows: each step gives up the interpreter lock and must win it back.
                connection.execute(_sqlite_insert(name, len(part)), [value for row in part for value in row])
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@lru_cache(maxsize=512)
def _sqlite_insert(name: str, rows: int) -> str:
    columns = columns_of(_TABLES[name])
    values = "(" + ",".join("?" * len(columns)) + ")"
    return f"INSERT INTO {name} ({','.join(columns)}) VALUES {','.join([values] * rows)} ON CONFLICT DO NOTHING"  # noqa: S608 - own names


class PostgresBackend:
    """A shared store: any number of gateways append to it."""

    kind = "postgres"

    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url, pool_size=5, pool_pre_ping=True)

    async def write(self, builder: RowBuilder, records: Sequence[Record]) -> None:
        rows = builder.build(records) if len(records) < 8 else await asyncio.to_thread(builder.build, records)
        await self.write_rows(rows.as_lists())

    async def write_rows(self, rows: Rows) -> None:
        try:
            async with self.engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                async with driver.transaction():
                    for name, table_rows in rows.items():
                        # In one order everywhere, so that gateways that store the same message never deadlock.
                        ordered: Iterable[tuple[Any, ...]] = sorted(table_rows) if name == "messages" else table_rows
                        if table_rows:
                            await driver.executemany(_postgres_insert(name), ordered)
        except Exception as error:  # asyncpg raises its own tree, OSError, and SQLAlchemy's wrappers
            raise StoreError(f"Postgres cannot be written: {type(error).__name__}: {str(error).splitlines()[0][:200]}") from error

    async def close(self) -> None:
        await self.engine.dispose()


@lru_cache(maxsize=16)
def _postgres_insert(name: str) -> str:
    columns = columns_of(_TABLES[name])
    values = ",".join(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {name} ({','.join(columns)}) VALUES ({values}) ON CONFLICT DO NOTHING"  # noqa: S608 - own names


async def open_backend(url: str, *, sync: str) -> Backend:
    """Open the store for writing: lock, migrate, connect. Raises StoreError naming the remedy."""
    from proxy_core.journal.migrate import bring_up_to_date

    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StoreError("the journal needs a file: sqlite+aiosqlite:///PATH")
        path = Path(parsed.database)
        backend = SqliteBackend(path, sync=sync)
        backend.lock()
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            await backend.open_writer()
            await bring_up_to_date(backend.engine, url)
        except BaseException as error:
            await backend.close()
            if isinstance(error, SQLAlchemyError | OSError):
                raise StoreError(f"{path} cannot be used as the journal: {str(error).splitlines()[0]}") from error
            raise
        return backend
    if parsed.get_backend_name() == "postgresql":
        postgres = PostgresBackend(url)
        try:
            await bring_up_to_date(postgres.engine, url)
        except BaseException as error:
            await postgres.close()
            if isinstance(error, StoreError | asyncio.CancelledError):
                raise
            where = parsed.render_as_string(hide_password=True)
            raise StoreError(f"{where} cannot be used as the journal: {str(error).splitlines()[0]}") from error
        return postgres
    raise StoreError(f"'{parsed.get_backend_name()}' is no store of luthien's: use sqlite+aiosqlite:// or postgresql+asyncpg://")
