"""From what the gateway hands over to what interceptors are told.

The loop makes a `Began` and an `End` of a transaction, which are packed at once; in the interceptors' process they become `Begun`
and `Finished`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from proxy_core.detectors.secrets import redact_formats, redact_known
from proxy_core.interceptors.base import Begun, Finished
from proxy_core.journal.records import Outcome

if TYPE_CHECKING:
    from proxy_core.journal.records import Intent
    from proxy_core.running import Running
    from proxy_core.wire.glance import Glance


class Began:
    """A request, as the loop leaves it."""

    __slots__ = ("begun", "glance", "hashes", "intent")

    def __init__(self, intent: Intent, glance: Glance, hashes: tuple[bytes, ...]) -> None:
        self.intent = intent
        self.glance = glance
        self.hashes = hashes
        self.begun: Begun | None = None
        """Made once, in the interceptors' process."""


class End(Struct, array_like=True, gc=False):
    """The end of a transaction, as the loop leaves it."""

    transaction_id: str
    outcome: Outcome
    arrivals: list[tuple[int, float]]
    started: float
    content_type: str
    content_encoding: str
    upstream: str
    upstream_api: str
    translated: bool
    calls: list[Any]


class Ended(NamedTuple):
    """A transaction that is over."""

    began: Began
    end: End


def end_of(outcome: Outcome, running: Running) -> End:
    """The end of a transaction; takes from `running` what no longer changes."""
    control, upstream = running.control, running.upstream
    return End(
        outcome.transaction_id,
        outcome,
        running.arrivals,
        running.started,
        running.content_type,
        running.content_encoding,
        running.row.upstream,
        upstream.api.value if upstream is not None else "",
        running.translated is not None,
        control.services.calls if control is not None else [],
    )


@lru_cache(maxsize=10_000)
def _name(secrets: tuple[bytes, ...], text: str) -> str:
    """A name that a client gave: it may have put its key there."""
    raw = text.encode("utf-8", "replace")
    return redact_formats(redact_known(raw, secrets)).decode("utf-8", "replace") if raw else ""


def begun_of(item: Began) -> Begun:
    """The record of a request."""
    if item.begun is None:
        item.begun = _begun(item)
    return item.begun


@lru_cache(maxsize=10_000)
def _names(secrets: tuple[bytes, ...], *texts: str) -> tuple[str, ...]:
    """Several of them; nearly all come again with the next request of their session."""
    return tuple([_name(secrets, text) for text in texts])


def _begun(item: Began) -> Begun:
    intent, glance = item.intent, item.glance
    secrets = intent.secrets
    path, model, session_id, predecessor, parent_session, agent, user, workflow = _names(
        secrets,
        intent.path,
        intent.model,
        intent.session_id,
        intent.predecessor,
        intent.parent_session,
        intent.agent,
        intent.user,
        intent.workflow,
    )
    return Begun(
        transaction_id=intent.transaction_id,
        started_at=intent.started_ns / 1e9,
        method=intent.method,
        path=path,
        query=intent.query,
        headers=intent.headers,
        body=intent.body,
        client=intent.client,
        dialect=intent.dialect,
        operation=intent.operation,
        model=model,
        upstream=intent.upstream,
        reason=intent.reason,
        stream=intent.stream,
        session_id=session_id,
        predecessor=predecessor,
        parent_session=parent_session,
        link=intent.link,
        side=intent.side,
        agent=agent,
        user=user,
        tags=tuple([(_name(secrets, word), _name(secrets, value)) for word, value in intent.tags]) if intent.tags else (),
        workflow=workflow,
        key=intent.key,
        history=glance.history,
        history_hashes=item.hashes,
        system=glance.system,
        secrets=intent.secrets,
    )


def finished_of(item: Ended) -> Finished:
    """The record of a transaction that has ended."""
    end = item.end
    outcome = end.outcome
    begun = begun_of(item.began)
    if outcome.secrets != begun.secrets:  # policies have added credentials
        begun = replace(begun, secrets=outcome.secrets, _shown_body=None)
    return Finished(
        begun=begun,
        finished_at=outcome.finished_ns / 1e9,
        outcome=outcome.outcome,
        verdict=outcome.verdict,
        verdicts=outcome.verdicts,
        status=outcome.status,
        headers=outcome.headers,
        content_type=end.content_type,
        content_encoding=end.content_encoding,
        body=outcome.body,
        body_bytes=outcome.body_bytes,
        complete=outcome.complete,
        arrivals=[(place, round((at - end.started) * 1e3, 3)) for place, at in end.arrivals],
        upstream=end.upstream,
        upstream_api=end.upstream_api,
        translated=end.translated,
        calls=tuple(end.calls),
        upstream_answered="responded" in outcome.timing,
        upstream_status=outcome.upstream_status,
        upstream_body=outcome.upstream_body,
        reason=outcome.reason or begun.reason,
        model=begun.model or begun.redacted_text(outcome.model),
        response_id=outcome.response_id,
        input_tokens=outcome.input_tokens,
        output_tokens=outcome.output_tokens,
        cached_tokens=outcome.cached_tokens,
        reasoning_tokens=outcome.reasoning_tokens,
        estimated=outcome.estimated,
        cost_usd=outcome.cost_usd,
        ttft_ms=outcome.ttft_ms,
        total_ms=outcome.total_ms,
        error=begun.redacted_text(outcome.error),
        answer_error=begun.redacted_text(outcome.answer_error),
        stop_reason=outcome.stop_reason,
        tool_calls=outcome.tool_calls,
    )
