"""What lists show of transactions: the query, and the rows that it gives."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, and_, select

from proxy_core.journal.schema import outcomes, transactions
from proxy_core.transaction_row import TransactionRow

_decode_tags = msgspec.json.Decoder(dict[str, str]).decode

_LISTED = [
    transactions.c.seq,
    transactions.c.transaction_id,
    transactions.c.started_ns,
    transactions.c.method,
    transactions.c.path,
    transactions.c.dialect,
    transactions.c.operation,
    transactions.c.session_id,
    transactions.c.agent,
    transactions.c.model,
    transactions.c.upstream,
    transactions.c.reason,
    transactions.c.stream,
    transactions.c.preview,
    transactions.c.user_name,
    transactions.c.tags,
    transactions.c.workflow,
    transactions.c.parent_session,
    transactions.c.link,
    transactions.c.side,
    transactions.c.body_bytes.label("request_bytes"),
    outcomes.c.seq.label("outcome_seq"),
    outcomes.c.outcome,
    outcomes.c.status,
    outcomes.c.verdict,
    outcomes.c.body_bytes.label("response_bytes"),
    outcomes.c.model.label("answered_model"),
    outcomes.c.input_tokens,
    outcomes.c.output_tokens,
    outcomes.c.cached_tokens,
    outcomes.c.reasoning_tokens,
    outcomes.c.cost_usd,
    outcomes.c.ttft_ms,
    outcomes.c.total_ms,
    outcomes.c.overhead_ms,
    outcomes.c.error,
    outcomes.c.stop_reason,
    outcomes.c.tool_calls,
    outcomes.c.upstream.label("final_upstream"),
    outcomes.c.reason.label("final_reason"),
    outcomes.c.estimated,
]


def latest_outcome() -> ColumnElement[bool]:
    """The condition that joins a transaction with its newest outcome."""
    # Asking for the largest number instead makes Postgres search all outcomes for each transaction while it has no statistics.
    later = outcomes.alias("later")
    newer = select(later.c.seq).where(later.c.transaction_id == outcomes.c.transaction_id, later.c.seq > outcomes.c.seq)
    return and_(outcomes.c.transaction_id == transactions.c.transaction_id, ~newer.exists())


def listed() -> Select[Any]:
    """A query of transactions with what lists show of them; `row_of` reads its rows."""
    return select(*_LISTED).select_from(transactions.outerjoin(outcomes, latest_outcome()))


def row_of(one: Any) -> TransactionRow:
    ended = one.outcome is not None
    return TransactionRow(
        transaction_id=one.transaction_id,
        started_at=one.started_ns / 1e9,
        method=one.method,
        path=one.path,
        dialect=one.dialect,
        operation=one.operation,
        state="done",
        outcome=one.outcome if ended else "lost",
        session_id=one.session_id,
        agent=one.agent,
        model=one.model or one.answered_model or "",
        upstream=one.final_upstream or one.upstream,
        reason=one.final_reason or one.reason,
        status=one.status,
        verdict=one.verdict if ended else "",
        stream=bool(one.stream),
        input_tokens=one.input_tokens,
        output_tokens=one.output_tokens,
        cached_tokens=one.cached_tokens,
        reasoning_tokens=one.reasoning_tokens,
        cost_usd=one.cost_usd,
        ttft_ms=one.ttft_ms,
        total_ms=one.total_ms,
        overhead_ms=one.overhead_ms,
        request_bytes=one.request_bytes,
        response_bytes=one.response_bytes or 0,
        preview=one.preview,
        error=(one.error or "") if ended else "no outcome was recorded: the gateway ended, or it still runs",
        stop_reason=one.stop_reason or "",
        tool_calls=one.tool_calls or 0,
        user=one.user_name,
        tags=read_tags(one.tags) if one.tags else (),
        workflow=one.workflow,
        parent_session=one.parent_session,
        link=one.link,
        side=bool(one.side),
        estimated=bool(one.estimated),
    )


def read_tags(stored: str) -> tuple[tuple[str, str], ...]:
    """The column `tags` as names and values; nothing where it cannot be read."""
    try:
        return tuple(_decode_tags(stored).items())
    except msgspec.MsgspecError:
        return ()
