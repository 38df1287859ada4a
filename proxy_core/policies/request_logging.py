"""Writes one line of JSON to the log for each request: at its start, at its end, or both.

Lines hold no credential: secret headers, parameters and whatever looks like a key are blanked. Control characters are
written out, so a line stays a line. Bodies are left out unless asked for.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from proxy_core.detectors.secrets import redact_formats, redact_headers, redact_known, redact_query
from proxy_core.policies.base import ControlPolicy, PolicyParams, Release
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import RawHeaders, TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import StreamEvent

log = logging.getLogger(__name__)

MAX_LINE_CHARS = 3_500
"""Longer lines are cut by the log; so headers and previews are left out before that happens."""
_MAX_VALUE_CHARS = 200
_PREVIEWED_BYTES = 32_000
"""What is searched for secrets before a preview is cut from it: longer than the longest key."""


class RequestLoggingParams(PolicyParams):
    level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"
    """Level of the lines; they are written where `logging.level` lets it through."""
    when: Literal["start", "end", "both"] = "start"
    """When a line is written: before the request is sent, when the answer is over, or both."""
    headers: bool = False
    """Whether headers stand in the line, credentials blanked."""
    body: Literal["none", "digest", "preview"] = "none"
    """What stands in the line of the body: nothing, its length and SHA-256, or its beginning with secrets blanked too."""
    preview_chars: int = Field(default=200, ge=1, le=1_000)
    """Length of a preview."""


class RequestLoggingPolicy(ControlPolicy[RequestLoggingParams]):
    """Writes one line to the log for each request."""

    params_model = RequestLoggingParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST, Stage.RESPONSE})
    release: ClassVar[Release | None] = Release.PASS
    default_on_error = "allow"

    def acts_on(self, stage: Stage, *, before_send: bool) -> bool:
        if stage is Stage.REQUEST:
            return before_send and self.params.when != "end"
        return stage is Stage.RESPONSE and self.params.when != "start"

    async def apply(self, context: TransactionContext) -> TransactionContext:
        if context.response_status is None:
            self._write(context, "request", context.request_headers, context.request_body)
        else:
            self._write(context, "answer", context.response_headers, context.response_body)
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        try:
            async for event in events:
                yield event
        finally:
            self._write(context, "answer", context.response_headers, None)

    def _write(self, context: TransactionContext, what: str, headers: RawHeaders, body: bytes | None) -> None:
        level = logging.getLevelNamesMapping()[self.params.level]
        if context.shadow:
            context.verdict("allow", Reason.REQUEST_LOGGED, "would be logged")
            return
        if log.isEnabledFor(level):
            log.log(level, "%s", self._line(context, what, headers, body))
        context.verdict("allow", Reason.REQUEST_LOGGED)

    def _line(self, context: TransactionContext, what: str, headers: RawHeaders, body: bytes | None) -> str:
        known = context.services.secrets(context)
        path, mark, query = context.target.partition(b"?")
        fields: dict[str, Any] = {
            "event": what,
            "transaction_id": context.transaction_id,
            "method": context.method,
            "path": _shown(path + mark + redact_query(query), known),
            "operation": context.operation.value,
            "model": _shown((context.conversation.model or "").encode("utf-8", "replace"), known) or None,
            "stream": context.stream,
            "upstream": context.route.upstream,
            "reason": context.route.reason,
            "session_id": _shown(context.session.session_id.encode("utf-8", "replace"), known),
            "agent": _shown(context.agent.encode("utf-8", "replace"), known),
            "key": context.key,
        }
        if what == "answer":
            fields["status"] = context.response_status
            fields["timing_ms"] = {point: round(ms, 1) for point, ms in context.timing.items()}
        if body is not None and self.params.body != "none":
            fields["body_bytes"] = len(body)
            fields["body_sha256"] = hashlib.sha256(body).hexdigest()
            if self.params.body == "preview":
                # blanked before it is cut: half a key is not recognised as one
                start = redact_formats(redact_known(body[:_PREVIEWED_BYTES], known))
                fields["body"] = start.decode("utf-8", "replace")[: self.params.preview_chars]
        if self.params.headers:
            shown = redact_headers(headers, known)
            fields["headers"] = [[name[:_MAX_VALUE_CHARS], value[:_MAX_VALUE_CHARS]] for name, value in shown[:40]]
        line = json.dumps(fields)
        for dispensable in ("headers", "body", "path"):
            if len(line) <= MAX_LINE_CHARS:
                break
            if dispensable in fields:
                fields[dispensable] = "(too long)"
                line = json.dumps(fields)
        return line


def _shown(value: bytes, known: tuple[bytes, ...]) -> str:
    return redact_formats(redact_known(value, known)).decode("utf-8", "replace")[:_MAX_VALUE_CHARS]
