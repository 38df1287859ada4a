"""What the session detector is given back after a restart: the points that sessions reached, and what twins were answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from proxy_core.control.session_bodies import answer_of, codec_of
from proxy_core.journal.session_reads import RecordedTurn
from proxy_core.journal.store import JournalStore, Remembered
from proxy_core.sessions.detector import KnownPoint, SessionDetector
from proxy_core.wire.conversation import Block

REQUESTS_PER_SESSION = 3
"""Requests that are given back for each session that may be remembered, on average."""
MAX_TWINS = 200
"""Of which the answers are read again, the latest first; the start waits for it."""


async def recall_sessions(
    detector: SessionDetector, store: JournalStore, *, ttl_s: float, max_sessions: int, now_ns: int
) -> None:
    """Give the detector back what the journal knows of the time within which a session goes on or is named as another's
    predecessor. `now_ns` is Unix time in nanoseconds."""
    since_ns = now_ns - int(2 * ttl_s * 1e9)
    points = await store.remembered(since_ns, REQUESTS_PER_SESSION * max_sessions)
    detector.recall(
        KnownPoint(
            session_id=one.session_id,
            chain=bytes(one.chain),
            response_id=one.response_id,
            age_s=(now_ns - one.started_ns) / 1e9,
            parent_session=one.parent_session,
            link=one.link,
            side=one.side,
        )
        for one in points
    )
    for twin in twins(points)[:MAX_TWINS]:
        blocks = await _answered(store, twin.transaction_id)
        if blocks:
            detector.answered(twin.session_id, "", point=bytes(twin.chain), blocks=blocks)


def twins(points: Sequence[Remembered]) -> list[Remembered]:
    """The latest requests of sessions that stand at a point at which another session has been, too; newest first."""
    sessions_at = Counter(chain for _, chain in {(one.session_id, one.chain) for one in points if one.chain})
    latest: dict[str, Remembered] = {}
    for one in points:
        if one.chain and not one.side:
            latest.setdefault(one.session_id, one)
    return [one for one in latest.values() if sessions_at[one.chain] > 1]


async def _answered(store: JournalStore, transaction_id: str) -> tuple[Block, ...]:
    stored = await store.detail(transaction_id)
    codec = codec_of(stored.row.operation) if stored is not None else None
    if stored is None or codec is None or stored.row.outcome != "ok":
        return ()
    headers = {name.lower(): value for name, value in stored.response_headers}
    recorded = RecordedTurn(
        number=1, row=stored.row, response_body=stored.response_body, response_type=headers.get("content-type", "")
    )
    answer = answer_of(codec, recorded)
    return answer.blocks if answer is not None else ()
