"""Recorded transactions out of the journal, to be replayed like those of a recording.

The journal keeps bodies without secrets and no times of pieces, so streams are cut between their events. What it has not kept
(`journal.capture: metadata`, bodies beyond the limit) cannot be replayed, and is left out with a word.
"""

from __future__ import annotations

from proxy_core.control.filters import Filter
from proxy_core.journal.store import JournalStore, Stored
from proxy_core.replay.comparing import facts_of, recorded
from proxy_core.replay.exchanges import Answered, Exchange, RawHeaders, Recording, usual_target
from proxy_core.replay.kept import Exchanges, Packed, Spool, pack
from proxy_core.replay.reading import explain_without_upstream, readable

PAGE = 500


async def read_journal(store: JournalStore, chosen: Filter, limit: int) -> Recording:
    """The latest `limit` transactions that the filter means, oldest first."""
    found, spool = Recording(problems=[]), Spool()
    kept: list[Packed] = []
    before: str | None = None
    while len(kept) < limit:
        rows = await store.rows(PAGE, before)
        for row in rows:
            if len(kept) < limit and chosen.matches(row):
                stored = await store.detail(row.transaction_id)
                if stored is None:
                    continue
                if stored.bodies_kept:
                    kept.append(pack(_exchange(stored), spool))
                    found.unanswered += not stored.has_outcome
                else:
                    found.trouble(row.transaction_id, "its bodies are not kept: journal.capture is 'metadata'")
        if len(rows) < PAGE:
            break
        before = rows[-1].transaction_id
    found.exchanges = Exchanges(kept[::-1])
    return found


def _exchange(stored: Stored) -> Exchange:
    row = stored.row
    cut = stored.response_bytes > len(stored.response_body) and not stored.redacted
    exchange = Exchange(
        where=row.transaction_id,
        kind="journal",
        transaction_id=row.transaction_id,
        method=row.method,
        target=usual_target(row.path.encode("latin-1", "replace")) + (b"?" + stored.query if stored.query else b""),
        headers=_raw(stored.request_headers),
        body=stored.request_body,
        started_at=row.started_at,
        session_id=row.session_id,
        provider=row.dialect,
        model=row.model,
        stream=row.stream,
        redacted=("headers", "body") if stored.redacted else ("headers",),
        body_redacted=stored.redacted,
        cut=cut,
    )
    if not stored.has_outcome:
        return exchange
    exchange.facts = facts_of(row, recorded(stored.verdicts))
    if row.status is None:
        exchange.fault = row.error if row.outcome == "error" else ""
        return exchange
    headers = _raw(stored.response_headers)
    client = Answered(
        status=row.status,
        headers=readable(headers, stored.response_body),
        body=stored.response_body,
        duration_ms=row.total_ms,
        complete=row.outcome not in ("truncated", "cancelled") and not cut,
        redacted=stored.redacted,
    )
    exchange.client = client
    if stored.upstream_body is not None:
        exchange.upstream = Answered(
            status=stored.upstream_status or row.status,
            headers=[one for one in headers if one[0] not in (b"content-length", b"content-encoding")],
            body=stored.upstream_body,
            duration_ms=row.total_ms,
            complete=client.complete,
            redacted=stored.redacted,
        )
    elif stored.timing.get("responded") is not None:
        exchange.upstream = client
    else:
        explain_without_upstream(exchange, exchange.facts)
    return exchange


def _raw(headers: tuple[tuple[str, str], ...]) -> RawHeaders:
    return [(name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers]
