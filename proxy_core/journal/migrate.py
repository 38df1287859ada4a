"""Bring a store to the current schema: at once where it is empty or current, through Alembic where it is older.

Alembic is imported only when there is something to migrate.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from proxy_core.errors import StoreError
from proxy_core.journal import schema
from proxy_core.journal.async_engine import AsyncEngine


async def bring_up_to_date(engine: AsyncEngine, url: str) -> None:
    """Create or migrate the schema. Raises StoreError for a store of a newer luthien, or of something else."""
    async with engine.begin() as connection:
        revision = await connection.run_sync(_revision_or_create)
        if revision == schema.HEAD_REVISION:
            return
        await connection.run_sync(_upgrade)


def _revision_or_create(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        # Gateways that start together create the schema once.
        connection.execute(text("SELECT pg_advisory_xact_lock(7250981)"))
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if revision is not None:
            return str(revision)
    elif {"transactions", "outcomes"} & tables:
        raise StoreError("the database has tables of another program with luthien's names; give luthien a database of its own")
    create_all(connection)
    return schema.HEAD_REVISION


def create_all(connection: Connection) -> None:
    """The current schema in an empty store, marked as current."""
    schema.metadata.create_all(connection)
    connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": schema.HEAD_REVISION})


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if current is not None and current not in known:
        raise StoreError(f"the journal was written by a newer luthien (schema {current}); update luthien, or use another store")
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(f"the journal's schema cannot be migrated: {error}") from error
