"""What the journal gets of a transaction, and when: its intent, the form in which it was sent, its outcome.

Each call of `outcome` reads the answer once, fills the row with what it says and returns when the record is durable.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from proxy_core.answers import THREAD_FROM_BYTES, Reading, read_answer, read_large_answer, reading_of
from proxy_core.detectors.secrets import redact_formats, redact_known
from proxy_core.errors import LuthienError
from proxy_core.journal.journal import Journal
from proxy_core.journal.records import Intent, LateVerdicts, Outcome, Sent
from proxy_core.limits.limiter import Used
from proxy_core.running import Running
from proxy_core.sessions.detector import Belonging, SessionDetector
from proxy_core.sessions.prices import PriceBook
from proxy_core.sessions.usage import UsageEstimates
from proxy_core.settings import PricesSettings
from proxy_core.transaction_row import TransactionRow
from proxy_core.verdicts import Verdict
from proxy_core.wire.dialects import READ_OPERATIONS, Operation
from proxy_core.wire.glance import glance

if TYPE_CHECKING:
    from proxy_core.interceptors.process import InterceptorProcess

log = logging.getLogger(__name__)

_PIECE_FROM_BYTES = 64
"""Smaller parts of a body stay in it: a row of their own would be larger than they are."""


class Recorder:
    """Writes the records of one gateway's transactions."""

    def __init__(
        self,
        *,
        journal: Journal,
        sessions: SessionDetector,
        prices: PriceBook,
        estimates: UsageEstimates,
        interceptors: InterceptorProcess | None = None,
    ) -> None:
        self._journal = journal
        self._interceptors = interceptors
        self._sessions = sessions
        self._prices = prices
        self._estimates = estimates
        self._now = time.monotonic

    def take(self, settings: PricesSettings) -> None:
        """These prices and rules of estimating hold from now on."""
        self._prices.use(settings)
        self._estimates.use(settings)

    async def intent(self, running: Running, scope: dict[str, Any], belonging: Belonging) -> None:
        """Return when the request is on record."""
        record = self._intent(running, scope, belonging)
        await self._journal.append(record)
        running.intended = True
        if self._interceptors is not None:
            self._interceptors.begun(running, record, belonging.message_hashes)

    async def sent(self, running: Running, target: bytes) -> None:
        """Return when the form in which the request goes upstream is on record."""
        row = running.row
        control = running.control
        await self._journal.append(
            Sent(
                transaction_id=row.transaction_id,
                at_ns=time.time_ns(),
                upstream=row.upstream,
                reason=row.reason,
                target=target,
                headers=running.sent_headers,
                body=running.sent_body,
                secrets=running.secrets,
                verdicts=tuple(control.context.verdicts) if control is not None else (),
            )
        )

    async def outcome(self, running: Running, outcome: str) -> None:
        """Read the answer, record how it ended, and return when that is durable. An empty `outcome` is told by the answer."""
        running.leaving = True
        row = running.row
        operation = running.operation
        control = running.control
        now = self._now()
        if control is not None:
            await control.settle()
        if not running.intended:
            self._refused_intent(running)
        reading = Reading()
        said = control.upstream_answer if control is not None else None
        if control is not None and said is not None and not control.altered:
            reading = reading_of(said)
            reading.first_token_offset = control.first_token_offset
        elif running.received and (outcome != "refused" or running.sent):
            large = len(running.response) >= THREAD_FROM_BYTES
            reading = await read_large_answer(running) if large else read_answer(running)
        elif row.stream and operation in READ_OPERATIONS and running.method != "HEAD" and outcome != "refused":
            reading.complete = False
        if control is not None and said is not None and control.altered:
            reading = _as_upstream_counts(reading, reading_of(said))
        if running.translated is not None and running.translated.usage is not None:
            # What the upstream tells, before it was said in the words of another API.
            reading.usage = running.translated.usage
        if operation is Operation.COUNT_TOKENS:
            # What a request would use is told there; nothing has used it.
            reading.usage = None
        elif row.overhead_ms is not None and not reading.error and not reading.problem and (row.status or 0) < 400:
            self._estimate(running, reading)
        self._fill(running, reading)
        if row.input_tokens is not None and not self._prices.ready:
            await self._prices.load()
        self._price(running, reading)
        if not outcome:
            outcome = _outcome_of(row, reading)
        row.outcome = outcome  # type: ignore[assignment]
        row.error = without_secrets(running, running.error or reading.error)
        row.total_ms = running.ms_at(now)
        if running.admission is not None:
            await running.admission.settle(used_by(running))
        record = self._outcome(running, reading, now)
        await self._journal.append(record)
        if self._interceptors is not None:
            self._interceptors.finished(running, record)
        running.mark("finished", self._now())
        blocks = () if reading.answer is None else reading.answer.blocks
        continued = reading.response_id if running.operation is Operation.RESPONSES else ""
        self._sessions.answered(row.session_id, continued, point=running.point, blocks=blocks, failed=row.outcome != "ok")

    def late(self, running: Running, verdicts: list[Verdict]) -> None:
        """Verdicts that come after the outcome."""
        record = LateVerdicts(
            transaction_id=running.row.transaction_id,
            at_ns=time.time_ns(),
            verdicts=tuple(verdicts),
            secrets=running.secrets,
        )
        try:
            self._journal.append(record)
        except LuthienError as error:
            log.warning("verdicts of %s are not in the journal: %s", running.row.transaction_id, error)

    def _intent(self, running: Running, scope: dict[str, Any], belonging: Belonging) -> Intent:
        row = running.row
        client = scope.get("client")
        history = running.glance.history
        pieces = [(self._journal.digest(part), part) for part in running.glance.preamble if len(part) >= _PIECE_FROM_BYTES]
        pieces += [
            (digest, part)
            for digest, part in zip(belonging.message_hashes, history, strict=False)
            if len(part) >= _PIECE_FROM_BYTES
        ]
        control = running.control
        return Intent(
            transaction_id=row.transaction_id,
            started_ns=running.started_ns,
            method=row.method,
            path=row.path,
            query=running.query,
            dialect=row.dialect,
            operation=row.operation,
            session_id=row.session_id,
            predecessor=belonging.predecessor,
            agent=row.agent,
            model=row.model,
            upstream=row.upstream,
            reason=row.reason,
            stream=row.stream,
            client=f"{client[0]}:{client[1]}" if client else "",
            preview=row.preview,
            headers=running.headers,
            body=running.body,
            pieces=tuple(pieces),
            chain=belonging.chain,
            history_length=len(history),
            secrets=running.secrets,
            policy_digest=control.digest if control is not None else "",
            key=running.key or "",
            user=row.user,
            tags=row.tags,
            workflow=row.workflow,
            parent_session=row.parent_session,
            link=row.link,
            side=row.side,
        )

    def _outcome(self, running: Running, reading: Reading, now: float) -> Outcome:
        row = running.row
        usage = reading.usage
        record = Outcome(
            transaction_id=row.transaction_id,
            finished_ns=running.started_ns + int((now - running.started) * 1e9),
            outcome=row.outcome,
            status=row.status,
            verdict=row.verdict,
            headers=running.response_headers,
            body=bytes(running.response),
            body_bytes=running.received,
            complete=reading.complete and row.outcome in ("ok", "error", "refused"),
            model=reading.model,
            response_id=reading.response_id,
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cached_tokens=row.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens if usage else None,
            reasoning_tokens=row.reasoning_tokens,
            cost_usd=row.cost_usd,
            ttft_ms=row.ttft_ms,
            total_ms=row.total_ms,
            overhead_ms=row.overhead_ms,
            timing=running.timing.copy(),
            error=running.error,
            answer_error=reading.error,
            stop_reason=row.stop_reason,
            tool_calls=row.tool_calls,
            tools=reading.tools,
            address=running.address,
            secrets=running.secrets,
            estimated=row.estimated,
        )
        if row.outcome == "refused":
            record.reason = row.reason
        if running.tried:
            record.upstream, record.reason = row.upstream, row.reason
        control = running.control
        if control is not None:
            record.verdicts = tuple(control.context.verdicts)
            record.upstream_body = control.upstream_body
            record.upstream_status = control.upstream_status
            record.upstream = row.upstream
            record.reason = row.reason
        return record

    def _refused_intent(self, running: Running) -> None:
        """What was refused before its intent leaves a record too; nothing of it was sent, so nobody waits for it."""
        running.intended = True
        try:
            record = self._intent(running, {}, Belonging(running.row.session_id, running.row.agent))
            self._journal.append(record)
        except LuthienError as error:
            log.warning("a refused request is not in the journal: %s", error)
            return
        if self._interceptors is not None:
            self._interceptors.begun(running, record, ())

    def _estimate(self, running: Running, reading: Reading) -> None:
        """Put estimates in place of counts that the upstream does not tell, and mark them."""
        usage = reading.usage
        if usage is not None and reading.complete and usage.input_tokens is not None and usage.output_tokens is not None:
            return
        asked = running.glance
        if running.sent_body and running.sent_body is not running.body and reading.usage is None:
            asked = glance(running.sent_body)
        reading.usage, running.row.estimated = self._estimates.completed(
            reading.usage,
            operation=running.operation,
            asked=asked,
            said_chars=reading.said_chars,
            complete=reading.complete,
        )

    def _fill(self, running: Running, reading: Reading) -> None:
        row = running.row
        usage = reading.usage
        if usage is not None:
            row.input_tokens = usage.input_tokens
            row.output_tokens = usage.output_tokens
            row.cached_tokens = usage.cached_input_tokens
            row.reasoning_tokens = usage.reasoning_tokens
        row.stop_reason = shared(reading.stop_reason)
        row.tool_calls = len(reading.tools)
        if not row.model:
            row.model = reading.model
        if running.arrivals:
            first = running.arrivals[0][1]
            if reading.first_token_offset:
                first = next((at for end, at in running.arrivals if end > reading.first_token_offset), first)
            row.ttft_ms = running.timing["first_token"] = running.ms_at(first)

    def _price(self, running: Running, reading: Reading) -> None:
        """What the answer cost, and what policies spent beside it; unknown where any part of it is."""
        row = running.row
        upstream, usage = running.upstream, reading.usage
        if upstream is not None and usage is not None and row.input_tokens is not None:
            row.cost_usd = self._prices.cost_usd(upstream, row.model, usage, answered=reading.model)
        running.answer_usd = row.cost_usd
        control = running.control
        if control is not None and control.services.calls:
            row.cost_usd = control.services.total_cost(row.cost_usd)


def used_by(running: Running) -> Used:
    """What a transaction that has ended has used of its limits."""
    row = running.row
    tokens = None if row.input_tokens is None else row.input_tokens + (row.output_tokens or 0)
    return Used(
        outcome=row.outcome,
        sent=row.overhead_ms is not None,
        tokens=tokens,
        usd=running.answer_usd,
        received_bytes=running.received,
        stream=row.stream,
    )


def without_secrets(running: Running, text: str) -> str:
    """Text of the traffic as front ends may have it."""
    if not text:
        return text
    raw = text.encode("utf-8", "replace")
    kept = redact_formats(redact_known(raw, running.secrets))
    return text if kept is raw and text.isascii() else kept.decode("utf-8", "replace")


@lru_cache(maxsize=2_000)
def shared(text: str) -> str:
    """One string for all rows that hold the same text: tens of thousands of them stay on a screen."""
    return text


def _as_upstream_counts(client: Reading, upstream: Reading) -> Reading:
    """What the client was given, with the counts and names of what the upstream gave."""
    return msgspec.structs.replace(
        client,
        usage=upstream.usage or client.usage,
        model=upstream.model or client.model,
        response_id=upstream.response_id or client.response_id,
        error=client.error or upstream.error,
    )


def _outcome_of(row: TransactionRow, reading: Reading) -> str:
    if row.status is not None and row.status >= 400:
        return "error"
    if reading.error and not reading.problem:
        return "error"
    return "ok" if reading.complete else "truncated"
