"""Reading the journal for one session's story.

Bodies of many requests of a session are put together at once: what they share is read once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import func, select

from proxy_core.journal.bodies import ABSENT, MISSING_PIECE, assemble, recipe_of, unpack
from proxy_core.journal.day_reads import DayReads
from proxy_core.journal.listing import listed, row_of
from proxy_core.journal.said import read_verdicts
from proxy_core.journal.schema import late_verdicts, messages, outcomes, transactions
from proxy_core.transaction_row import TransactionRow
from proxy_core.verdicts import Verdict
from proxy_core.wire.encodings import UnreadableEncoding, decoded

_PART = 500
"""Ids in one query."""


class RecordedTurn(Struct, kw_only=True):
    """One request of a session, with its bodies."""

    number: int
    """From 1, in order of arrival."""
    row: TransactionRow
    request_body: bytes = b""
    response_body: bytes = b""
    """Without its content encoding where that can be undone."""
    response_type: str = ""
    """Its content type."""
    bodies_kept: bool = True
    ended_ns: int | None = None
    """When the outcome was there, in Unix nanoseconds; None where there is none."""
    verdicts: tuple[Verdict, ...] = ()


class SessionReads(DayReads):
    """Reads one store by session, by agent and by time."""

    async def turn_count(self, session_id: str) -> int:
        """How many requests the session has."""
        query = select(func.count()).select_from(transactions).where(transactions.c.session_id == session_id)
        return int((await self._all(query))[0][0])

    async def turns(self, session_id: str, first: int, count: int) -> list[RecordedTurn]:
        """The session's requests from number `first` on, at most `count`, with their bodies, in order."""
        numbered = select(transactions.c.seq).where(transactions.c.session_id == session_id).order_by(transactions.c.seq)
        chosen = [one.seq for one in await self._all(numbered.limit(count).offset(first - 1))]
        query = (
            listed()
            .add_columns(
                transactions.c.body.label("request_body"),
                outcomes.c.body.label("response_body"),
                outcomes.c.headers.label("response_headers"),
                outcomes.c.finished_ns,
                outcomes.c.verdicts,
            )
            .order_by(transactions.c.seq)
        )
        found = [
            one
            for start in range(0, len(chosen), _PART)
            for one in await self._all(query.where(transactions.c.seq.in_(chosen[start : start + _PART])))
        ]
        late = await self._late([one.transaction_id for one in found])
        pieces = await self._stored_pieces([one.request_body for one in found])
        return await asyncio.to_thread(_turns, first, found, pieces, late)

    async def latest_requests(self, agents: Sequence[str]) -> dict[str, tuple[TransactionRow, bytes]]:
        """The latest request of each of these agents, with its body."""
        newest = select(func.max(transactions.c.seq)).where(transactions.c.agent.in_(agents)).group_by(transactions.c.agent)
        query = listed().add_columns(transactions.c.body).where(transactions.c.seq.in_(newest))
        found = await self._all(query)
        stored = [one.body for one in found]
        bodies = await asyncio.to_thread(_bodies, stored, await self._stored_pieces(stored))
        return {one.agent: (row_of(one), body) for one, body in zip(found, bodies, strict=True)}

    async def _stored_pieces(self, bodies: Sequence[bytes]) -> dict[bytes, bytes]:
        """The messages that these bodies share, as stored, by their hashes."""
        recipes = (recipe_of(one) for one in bodies)
        wanted = list(dict.fromkeys(digest for recipe in recipes if recipe is not None for digest in recipe[2]))
        pieces: dict[bytes, bytes] = {}
        for start in range(0, len(wanted), _PART):
            query = select(messages.c.hash, messages.c.body).where(messages.c.hash.in_(wanted[start : start + _PART]))
            pieces.update((bytes(one.hash), one.body) for one in await self._all(query))
        return pieces

    async def _late(self, transaction_ids: Sequence[str]) -> dict[str, tuple[Verdict, ...]]:
        found: dict[str, tuple[Verdict, ...]] = {}
        for start in range(0, len(transaction_ids), _PART):
            part = transaction_ids[start : start + _PART]
            query = select(late_verdicts).where(late_verdicts.c.transaction_id.in_(part)).order_by(late_verdicts.c.seq)
            for one in await self._all(query):
                found[one.transaction_id] = found.get(one.transaction_id, ()) + read_verdicts(one.verdicts)
        return found


def _turns(
    first: int, found: Sequence[Any], pieces: Mapping[bytes, bytes], late: Mapping[str, tuple[Verdict, ...]]
) -> list[RecordedTurn]:
    bodies = _bodies([one.request_body for one in found], pieces)
    turns: list[RecordedTurn] = []
    for place, (one, body) in enumerate(zip(found, bodies, strict=True)):
        ended = one.outcome is not None
        headers: dict[str, str] = dict(msgspec.json.decode(one.response_headers)) if ended else {}
        turns.append(
            RecordedTurn(
                number=first + place,
                row=row_of(one),
                request_body=body,
                response_body=_readable(one.response_body, headers.get("content-encoding", "")) if ended else b"",
                response_type=headers.get("content-type", ""),
                bodies_kept=one.request_body[:1] != ABSENT,
                ended_ns=one.finished_ns,
                verdicts=(read_verdicts(one.verdicts) if ended else ()) + late.get(one.transaction_id, ()),
            )
        )
        time.sleep(0)  # the loop goes first
    return turns


def _bodies(stored: Sequence[bytes], pieces: Mapping[bytes, bytes]) -> list[bytes]:
    whole = _Unpacked(pieces)
    recipes = [recipe_of(one) for one in stored]
    return [unpack(one) if recipe is None else assemble(*recipe, whole) for one, recipe in zip(stored, recipes, strict=True)]


class _Unpacked(dict[bytes, bytes]):
    """Messages by their hashes, each unpacked when it is first needed."""

    def __init__(self, stored: Mapping[bytes, bytes]) -> None:
        super().__init__()
        self._stored = stored

    def __missing__(self, digest: bytes) -> bytes:
        stored = self._stored.get(digest)
        self[digest] = piece = MISSING_PIECE if stored is None else unpack(stored)
        return piece


def _readable(stored: bytes, encoding: str) -> bytes:
    body = unpack(stored)
    if not encoding or not body:
        return body
    try:
        return decoded(body, encoding)
    except UnreadableEncoding:
        return body
