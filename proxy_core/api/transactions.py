"""Routes about transactions: lists by filter, one with both forms of its bodies, and the end of one that runs."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import FastAPI, Path, Query
from starlette.responses import Response

from proxy_core.api.answers import answer, returns, to_json
from proxy_core.api.operator import Operator
from proxy_core.api.shapes import Killed, TransactionDetails, TransactionList, forms
from proxy_core.control.diff import Diff, diff_request, diff_response
from proxy_core.control.filters import parse
from proxy_core.control.plane import ControlConflict, ControlNotFound, ControlPlane, TransactionDetail
from proxy_core.control.rows import TransactionRow
from proxy_core.wire.dialects import Operation

MAX_LIMIT = 1_000
MAX_SCANNED = 20_000
"""Transactions that one request looks at for its filter; `next` goes on from there."""
PAGE = 200
"""Rows that are read at once, so that the loop is free in between."""
THREAD_FROM_BYTES = 64 * 1024

TransactionId = Annotated[str, Path(max_length=64, description="The transaction's id.")]
Expression = Annotated[str, Query(max_length=2_000, description="Only these, in the filter language: `status>=400 model:gpt-*`.")]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="At most so many.")]
Cursor = Annotated[
    str | None, Query(pattern="^[0-9A-Za-z]{26}$", description="The `next` of the page before; without it the newest come first.")
]


def add_transaction_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get(
        "/api/transactions",
        tags=["transactions"],
        responses=returns(TransactionList, 422),
        summary="Recorded and running transactions, newest first",
    )
    async def transactions(filter: Expression = "", limit: Limit = 100, cursor: Cursor = None) -> Response:  # noqa: A002 - its name outside
        return answer(await page_of(plane, filter, limit, cursor))

    @app.get(
        "/api/transactions/{transaction_id}",
        tags=["transactions"],
        responses=returns(TransactionDetails, 404),
        summary="One transaction, with its bodies",
    )
    async def transaction(transaction_id: TransactionId) -> Response:
        detail = await _detail(plane, transaction_id)
        size = len(detail.request_body) + len(detail.response_body)
        if size < THREAD_FROM_BYTES:
            body = to_json(details(detail))
        else:
            body = await asyncio.to_thread(lambda: to_json(details(detail)))
        return Response(body, media_type="application/json")

    @app.post(
        "/api/transactions/{transaction_id}/kill",
        tags=["transactions"],
        responses=returns(Killed, 404, 409),
        summary="End a running transaction",
    )
    async def kill(transaction_id: TransactionId, who: Operator) -> Response:
        if not await plane.kill(transaction_id, who=who):
            await _detail(plane, transaction_id)
            raise ControlConflict(f"transaction '{transaction_id}' does not run any more")
        return answer(Killed(transaction_id=transaction_id))


async def page_of(plane: ControlPlane, expression: str, limit: int, cursor: str | None) -> TransactionList:
    """One page of transactions that a filter means. Raises FilterError."""
    only = parse(expression)
    found: list[TransactionRow] = []
    scanned = 0
    place = cursor
    while len(found) < limit and scanned < MAX_SCANNED:
        wanted = PAGE if only else min(PAGE, limit - len(found))
        rows = await plane.history(wanted, place)
        for row in rows:
            place = row.transaction_id
            scanned += 1
            if only.matches(row):
                found.append(row)
                if len(found) == limit:
                    break
        else:
            if len(rows) < wanted:
                return TransactionList(transactions=found, next=None)
    return TransactionList(transactions=found, next=place)


async def _detail(plane: ControlPlane, transaction_id: str) -> TransactionDetail:
    """The transaction of exactly this id. Raises ControlNotFound."""
    detail = await plane.detail(transaction_id)
    if detail is None or detail.row.transaction_id != transaction_id:
        raise ControlNotFound(f"there is no transaction '{transaction_id[:64]}'")
    return detail


def details(detail: TransactionDetail) -> TransactionDetails:
    """A transaction as the API gives it, with what policies changed."""
    try:
        operation = Operation(detail.row.operation)
    except ValueError:
        operation = Operation.OTHER
    sent = detail.request_body if detail.sent_body is None else detail.sent_body
    came = detail.response_body if detail.upstream_body is None else detail.upstream_body
    asked = diff_request(operation, detail.request_body, sent) if detail.sent_body is not None else Diff()
    answered = diff_response(operation, came, detail.response_body) if detail.upstream_body is not None else Diff()
    return TransactionDetails(
        row=detail.row,
        policy_digest=detail.policy_digest,
        verdicts=detail.verdicts,
        timing=detail.timing,
        redacted=detail.redacted,
        capture_note=detail.capture_note,
        request=forms(
            headers=detail.request_headers,
            original=detail.request_body,
            final=sent,
            changed=detail.sent_body is not None,
            changes=asked.changes,
            truncated=asked.truncated,
        ),
        response=forms(
            headers=detail.response_headers,
            original=came,
            final=detail.response_body,
            changed=detail.upstream_body is not None,
            changes=answered.changes,
            truncated=answered.truncated,
        ),
    )
