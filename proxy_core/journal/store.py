"""Reading the journal: rows for lists, whole transactions with bodies, and what the session detector must remember.

Reads never wait for the writer. Bodies come back as the client or the upstream sent them, secrets aside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import msgspec
from msgspec import Struct
from sqlalchemy import and_, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from proxy_core.errors import StoreError
from proxy_core.journal.async_engine import AsyncEngine, create_async_engine
from proxy_core.journal.bodies import ABSENT, assemble, recipe_of, unpack
from proxy_core.journal.control_reads import ControlReads
from proxy_core.journal.listing import latest_outcome, listed, row_of
from proxy_core.journal.records import clean
from proxy_core.journal.said import read_verdicts
from proxy_core.journal.schema import (
    HEAD_REVISION,
    late_verdicts,
    messages,
    meta,
    outcomes,
    sent_requests,
    transactions,
    upstream_answers,
)
from proxy_core.transaction_row import TransactionRow
from proxy_core.verdicts import Verdict

_HASHES_PER_QUERY = 500


class Stored(Struct, kw_only=True):
    """One transaction as the journal has it."""

    row: TransactionRow
    query: bytes
    request_headers: tuple[tuple[str, str], ...]
    request_body: bytes
    response_headers: tuple[tuple[str, str], ...]
    response_body: bytes
    response_bytes: int
    """Full length of the response body, which may be more than what is kept."""
    timing: dict[str, float | None]
    redacted: bool
    complete: bool
    has_outcome: bool
    bodies_kept: bool
    verdicts: tuple[Verdict, ...] = ()
    """In the order in which they were said; those that came after the outcome last."""
    policy_digest: str = ""
    """Digest of the version of the chain that the transaction took; empty where no policy was configured."""
    key: str = ""
    """Name of the client's key."""
    address: str = ""
    """The root of the URL that it was sent to; empty where nothing was sent."""
    sent_target: bytes | None = None
    """Path and query as they went upstream, where the request or its route were changed."""
    sent_headers: tuple[tuple[str, str], ...] = ()
    sent_body: bytes | None = None
    """The request body that went upstream; None where it is the client's."""
    upstream_status: int | None = None
    """The upstream's status; None where it is the client's."""
    upstream_body: bytes | None = None
    """The response body that the upstream gave; None where it is the client's."""


class Decided(Struct, kw_only=True):
    """What policies made of one transaction, for lists."""

    policy_digest: str = ""
    key: str = ""
    verdicts: tuple[Verdict, ...] = ()


class RecordedRequest(Struct, kw_only=True):
    """The request that began a transaction, to be looked at anew."""

    transaction_id: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    """As the client sent it, secrets aside; empty where it is not kept."""
    body_kept: bool


class Remembered(Struct, frozen=True):
    """A point of a session's history that a later request may continue."""

    session_id: str
    agent: str
    chain: bytes
    response_id: str
    started_ns: int
    parent_session: str = ""
    link: str = ""
    side: bool = False
    transaction_id: str = ""


class JournalStore(ControlReads):
    """Reads one store. Make it with `open`, or over the engine of a running gateway."""

    @classmethod
    async def open(cls, url: str, *, read_only: bool = True) -> Self:
        """Open a store that exists, beside a gateway that may be writing it. Raises StoreError."""
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            path = Path(parsed.database or "")
            if not os.path.isfile(path):  # noqa: ASYNC240, PTH113 - a stat, nothing to wait for
                raise StoreError(f"there is no journal at {path} yet; start luthien, or name another with --data-dir")
            mode = "ro" if read_only else "rw"
            engine = create_async_engine(
                URL.create("sqlite+aiosqlite", database=f"file:{path}", query={"mode": mode, "uri": "true"})
            )
        else:
            engine = create_async_engine(url)
        store = cls(engine)
        try:
            await store.rows(1)
        except (SQLAlchemyError, OSError) as error:
            revision = await _revision(engine)
            await engine.dispose()
            where = parsed.render_as_string(hide_password=True)
            if revision and revision != HEAD_REVISION:
                remedy = "start luthien once, which brings it up to date" if revision < HEAD_REVISION else "update luthien"
                raise StoreError(f"{where} has schema {revision}, this luthien reads {HEAD_REVISION}; {remedy}") from error
            raise StoreError(f"{where} cannot be read as a journal: {str(error).splitlines()[0]}") from error
        return store

    async def close(self) -> None:
        await self._engine.dispose()

    async def rows(self, limit: int, before: str | None = None) -> list[TransactionRow]:
        """Transactions, newest first, at most `limit`; older than the transaction `before` where it is given."""
        # The page is found first: a join before it would be one of all transactions.
        page = select(transactions.c.seq).order_by(transactions.c.seq.desc()).limit(limit)
        if before is not None:
            place = select(transactions.c.seq).where(transactions.c.transaction_id == clean(before, 64)).scalar_subquery()
            page = page.where(transactions.c.seq < place)
        query = listed().where(transactions.c.seq.in_(page)).order_by(transactions.c.seq.desc())
        return [row_of(one) for one in await self._all(query)]

    async def rows_after(self, sequence: int, limit: int) -> list[tuple[int, TransactionRow]]:
        """Transactions that ended after the outcome with number `sequence`, in the order of their end, with their numbers."""
        query = listed().where(outcomes.c.seq > sequence).order_by(outcomes.c.seq).limit(limit)
        return [(one.outcome_seq, row_of(one)) for one in await self._all(query)]

    async def last_sequence(self) -> int:
        """The number of the newest outcome; 0 where there is none."""
        found = await self._all(select(func.max(outcomes.c.seq)))
        return int(found[0][0] or 0)

    async def detail(self, transaction_id: str) -> Stored | None:
        """One transaction with its bodies, or None. A unique beginning of the id is enough."""
        transaction_id = clean(transaction_id, 64)
        wanted = transactions.c.transaction_id
        condition = wanted == transaction_id if len(transaction_id) >= 26 else wanted.startswith(transaction_id, autoescape=True)
        query = listed().add_columns(
            transactions.c.query,
            transactions.c.headers.label("request_headers"),
            transactions.c.body.label("request_body"),
            transactions.c.redacted.label("request_redacted"),
            outcomes.c.headers.label("response_headers"),
            outcomes.c.body.label("response_body"),
            outcomes.c.redacted.label("response_redacted"),
            outcomes.c.timing,
            outcomes.c.complete,
            outcomes.c.verdicts,
            outcomes.c.address,
            transactions.c.policy_digest,
            transactions.c.client_key,
        )
        found = await self._all(query.where(condition).limit(1))
        if not found:
            return None
        one = found[0]
        body, pieces_redacted = await self._request_body(one.request_body)
        ended = one.outcome is not None
        response = unpack(one.response_body) if ended else b""
        row = row_of(one)
        stored = Stored(
            row=row,
            query=one.query,
            request_headers=_headers(one.request_headers),
            request_body=body,
            response_headers=_headers(one.response_headers) if ended else (),
            response_body=response,
            response_bytes=one.response_bytes or 0,
            timing=msgspec.json.decode(one.timing) if ended else {},
            redacted=bool(one.request_redacted or pieces_redacted or (ended and one.response_redacted)),
            complete=bool(one.complete),
            has_outcome=ended,
            bodies_kept=one.request_body[:1] != ABSENT,
            verdicts=read_verdicts(one.verdicts) if ended else (),
            policy_digest=one.policy_digest,
            key=one.client_key,
            address=one.address or "",
        )
        await self._add_what_came_beside(stored, row.transaction_id)
        return stored

    async def _add_what_came_beside(self, stored: Stored, transaction_id: str) -> None:
        """Final forms of request and answer, and verdicts that came late."""
        query = select(sent_requests).where(sent_requests.c.transaction_id == transaction_id)
        for one in await self._all(query.order_by(sent_requests.c.seq.desc()).limit(1)):
            body, redacted = await self._request_body(one.body)
            stored.sent_target = one.target
            stored.sent_headers = _headers(one.headers)
            stored.sent_body = body if body != stored.request_body else None
            stored.redacted = stored.redacted or bool(one.redacted) or redacted
            if not stored.has_outcome:
                stored.row.upstream, stored.row.reason = one.upstream, one.reason
                stored.verdicts = read_verdicts(one.verdicts)
        query = select(upstream_answers).where(upstream_answers.c.transaction_id == transaction_id)
        for one in await self._all(query.order_by(upstream_answers.c.seq.desc()).limit(1)):
            stored.upstream_status = one.status
            stored.upstream_body = unpack(one.body) if one.body[:1] != ABSENT else None
            stored.redacted = stored.redacted or bool(one.redacted)
        query = select(late_verdicts.c.verdicts).where(late_verdicts.c.transaction_id == transaction_id)
        for one in await self._all(query.order_by(late_verdicts.c.seq)):
            stored.verdicts += read_verdicts(one.verdicts)

    async def requests(self, transaction_ids: Sequence[str]) -> list[RecordedRequest]:
        """These transactions' requests, those that the journal has; a few queries for all of them."""
        listed = select(
            transactions.c.transaction_id,
            transactions.c.path,
            transactions.c.headers,
            transactions.c.body,
        )
        found = await self._all(listed.where(transactions.c.transaction_id.in_(transaction_ids)))
        recipes = [recipe_of(one.body) for one in found]
        pieces, _ = await self.pieces(digest for recipe in recipes if recipe is not None for digest in recipe[2])
        return [
            RecordedRequest(
                transaction_id=one.transaction_id,
                path=one.path,
                headers=_headers(one.headers),
                body=unpack(one.body) if recipe is None else assemble(*recipe, pieces),
                body_kept=one.body[:1] != ABSENT,
            )
            for one, recipe in zip(found, recipes, strict=True)
        ]

    async def decided(self, transaction_ids: Sequence[str]) -> dict[str, Decided]:
        """What policies said of these transactions; those that no policy saw are left out."""
        found: dict[str, Decided] = {}
        for start in range(0, len(transaction_ids), _HASHES_PER_QUERY):
            part = transaction_ids[start : start + _HASHES_PER_QUERY]
            listed = select(
                transactions.c.transaction_id, transactions.c.policy_digest, transactions.c.client_key, outcomes.c.verdicts
            ).select_from(transactions.outerjoin(outcomes, latest_outcome()))
            seen = and_(transactions.c.transaction_id.in_(part), transactions.c.policy_digest != "")
            for one in await self._all(listed.where(seen)):
                said = read_verdicts(one.verdicts)
                found[one.transaction_id] = Decided(policy_digest=one.policy_digest, key=one.client_key, verdicts=said)
            late = select(late_verdicts).where(late_verdicts.c.transaction_id.in_(part)).order_by(late_verdicts.c.seq)
            for one in await self._all(late):
                if one.transaction_id in found:
                    found[one.transaction_id].verdicts += read_verdicts(one.verdicts)
        return found

    async def remembered(self, since_ns: int, limit: int) -> list[Remembered]:
        """What the session detector must know after a restart: the latest points of histories, newest first."""
        latest = latest_outcome()
        query = (
            select(
                transactions.c.session_id,
                transactions.c.agent,
                transactions.c.chain,
                outcomes.c.response_id,
                transactions.c.started_ns,
                transactions.c.parent_session,
                transactions.c.link,
                transactions.c.side,
                transactions.c.transaction_id,
            )
            .select_from(transactions.outerjoin(outcomes, latest))
            .where(and_(transactions.c.started_ns >= since_ns, transactions.c.session_id != ""))
            .order_by(transactions.c.seq.desc())
            .limit(limit)
        )
        return [
            Remembered(
                session_id=one.session_id,
                agent=one.agent,
                chain=one.chain,
                response_id=one.response_id or "",
                started_ns=one.started_ns,
                parent_session=one.parent_session,
                link=one.link,
                side=bool(one.side),
                transaction_id=one.transaction_id,
            )
            for one in await self._all(query)
        ]

    async def hash_key(self) -> bytes | None:
        found = await self._all(select(meta.c.value).where(meta.c.name == "hash_key"))
        return bytes(found[0][0]) if found else None

    async def _request_body(self, stored: bytes) -> tuple[bytes, bool]:
        recipe = recipe_of(stored)
        if recipe is None:
            return unpack(stored), False
        skeleton, offsets, hashes = recipe
        pieces, changed = await self.pieces(hashes)
        return assemble(skeleton, offsets, hashes, pieces), changed

    async def pieces(self, hashes: Iterable[bytes]) -> tuple[dict[bytes, bytes], bool]:
        """Messages by their hashes, and whether one of them is not as it was sent."""
        pieces: dict[bytes, bytes] = {}
        changed = False
        wanted = list(dict.fromkeys(hashes))
        for start in range(0, len(wanted), _HASHES_PER_QUERY):
            part = wanted[start : start + _HASHES_PER_QUERY]
            query = select(messages.c.hash, messages.c.body, messages.c.redacted).where(messages.c.hash.in_(part))
            for one in await self._all(query):
                pieces[bytes(one.hash)] = unpack(one.body)
                changed = changed or bool(one.redacted)
        missing = [digest for digest in wanted if digest not in pieces]
        pieces.update((digest, b'"[not in the journal]"') for digest in missing)
        return pieces, changed or bool(missing)


async def _revision(engine: AsyncEngine) -> str:
    """The store's schema; empty where it says none."""
    try:
        async with engine.connect() as connection:
            return str((await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar() or "")
    except (SQLAlchemyError, OSError):
        return ""


async def ensure_hash_key(engine: AsyncEngine, fresh: bytes) -> bytes:
    """The store's key for hashes: the one that is there, else `fresh`, whoever comes first."""
    async with engine.begin() as connection:
        found = (await connection.execute(select(meta.c.value).where(meta.c.name == "hash_key"))).scalar()
        if found is not None:
            return bytes(found)
        if engine.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as postgres_insert

            await connection.execute(postgres_insert(meta).values(name="hash_key", value=fresh).on_conflict_do_nothing())
        else:
            await connection.execute(meta.insert().values(name="hash_key", value=fresh))
        return bytes((await connection.execute(select(meta.c.value).where(meta.c.name == "hash_key"))).scalar_one())


def _headers(stored: bytes) -> tuple[tuple[str, str], ...]:
    pairs: Iterable[list[str]] = msgspec.json.decode(stored)
    return tuple((name, value) for name, value in pairs)
