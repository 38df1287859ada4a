"""The clients' keys in the store: made, listed and revoked beside a gateway that may be running.

A key itself is never stored, only its SHA-256: keys are 256 random bits, so a hash of one tells nothing. Rows are only added;
the newest row of a name counts.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from proxy_core.errors import ConfigurationError, StoreError
from proxy_core.journal.async_engine import AsyncConnection, AsyncEngine, create_async_engine
from proxy_core.journal.backends import open_backend
from proxy_core.journal.schema import HEAD_REVISION, keys

PREFIX = "lth_"
_HINT_CHARS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class KeyLimits(Struct, frozen=True, omit_defaults=True):
    """What one key may do; None and an empty list set no limit."""

    models: tuple[str, ...] = ()
    """Names of models, `*` for any text."""
    rpm: int | None = None
    tpm: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None
    burst: int | None = None


class RecordedKey(Struct, frozen=True, kw_only=True):
    """A key as it stands."""

    name: str
    sha256: str
    hint: str
    """How the key begins."""
    status: Literal["active", "revoked"]
    limits: KeyLimits
    created_ns: int
    at_ns: int
    """When it was made or revoked."""
    who: str


def new_key() -> str:
    """A key that nobody can guess: `lth_` and 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def sha256_of(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


class ClientKeys:
    """Reads and writes the keys of one store."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, url: str) -> ClientKeys:
        """Open a store, made or brought up to date first where need be. Raises StoreError."""
        engine = create_async_engine(url)
        try:
            if not await _is_current(engine, url):
                await (await open_backend(url, sync="process")).close()
        except BaseException:
            await engine.dispose()
            raise
        return cls(engine)

    async def close(self) -> None:
        await self._engine.dispose()

    async def newest(self) -> int:
        """The number of the newest row; 0 where there is none."""
        async with self._engine.connect() as connection:
            return int((await connection.execute(select(func.max(keys.c.seq)))).scalar() or 0)

    async def all(self) -> list[RecordedKey]:
        """Each key as it stands, by name."""
        async with self._engine.connect() as connection:
            return await _standing(connection)

    async def create(self, name: str, limits: KeyLimits, who: str) -> str:
        """Make a key and return it; nobody can read it again. Raises ConfigurationError where the name is taken, StoreError."""
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} is no name for a key: use letters, digits, . _ @ and - (64 at most)")
        key = new_key()
        now = time.time_ns()
        fresh = RecordedKey(
            name=name,
            sha256=sha256_of(key.encode()),
            hint=key[:_HINT_CHARS],
            status="active",
            limits=limits,
            created_ns=now,
            at_ns=now,
            who=who,
        )
        async with self._engine.begin() as connection:
            await _lock(connection)
            if any(one.name == name and one.status == "active" for one in await _standing(connection)):
                raise ConfigurationError(f"there is a key '{name}' already; revoke it first, or choose another name")
            await _add(connection, fresh)
        return key

    async def revoke(self, name: str, who: str) -> bool:
        """Refuse a key from now on; False where it was revoked already. Raises ConfigurationError where there is none."""
        async with self._engine.begin() as connection:
            await _lock(connection)
            found = next((one for one in await _standing(connection) if one.name == name), None)
            if found is None:
                raise ConfigurationError(f"there is no key '{name}'; `luthien keys list` shows them")
            if found.status == "revoked":
                return False
            await _add(connection, msgspec.structs.replace(found, status="revoked", at_ns=time.time_ns(), who=who))
            return True


async def _lock(connection: AsyncConnection) -> None:
    """One writer of keys at a time."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(7250982)"))
    else:
        await connection.exec_driver_sql("BEGIN IMMEDIATE")


async def _add(connection: AsyncConnection, one: RecordedKey) -> None:
    row = {name: getattr(one, name) for name in one.__struct_fields__}
    await connection.execute(keys.insert().values(row | {"limits": msgspec.json.encode(one.limits)}))


async def _standing(connection: AsyncConnection) -> list[RecordedKey]:
    other = keys.alias("other")
    newest = select(func.max(other.c.seq)).group_by(other.c.name)
    rows = (await connection.execute(select(keys).where(keys.c.seq.in_(newest)).order_by(keys.c.name))).all()
    return [
        RecordedKey(
            name=one.name,
            sha256=one.sha256,
            hint=one.hint,
            status=one.status,
            limits=msgspec.json.decode(one.limits, type=KeyLimits),
            created_ns=one.created_ns,
            at_ns=one.at_ns,
            who=one.who,
        )
        for one in rows
    ]


async def _is_current(engine: AsyncEngine, url: str) -> bool:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():  # noqa: ASYNC240 - a stat
        return False
    try:
        async with engine.connect() as connection:
            return (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar() == HEAD_REVISION
    except SQLAlchemyError:
        return False
    except OSError as error:
        raise StoreError(f"{parsed.render_as_string(hide_password=True)} cannot be reached: {error}") from error
