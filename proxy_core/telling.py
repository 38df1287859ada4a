"""How a transaction that failed ends: recorded first, then told to the client in its own dialect, as far as it still can be.

Before the first byte of an answer that is a status and an error body; in a stream an event that its API knows; half of any
other body cannot be mended, and its connection is cut.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TypedDict

from proxy_core.errors import (
    AdmissionRefused,
    ClientGone,
    JournalUnavailable,
    KeyRefused,
    Killed,
    LuthienError,
    RequestTooLarge,
    RouteRefused,
    UpstreamError,
)
from proxy_core.policies.base import PolicyDenied
from proxy_core.recording import Recorder
from proxy_core.relay import STREAM_TYPES, Receive, Relay, Send
from proxy_core.running import Running
from proxy_core.wire.dialects import Dialect
from proxy_core.wire.encoder import IllegalStream
from proxy_core.wire.errors import error_body, stream_error

log = logging.getLogger(__name__)

_DENIALS = (PolicyDenied, Killed, RouteRefused, AdmissionRefused)
"""What refuses a request after it was read: the client's connection stays, and the record says refused."""
LINGER_S = 2.0
LINGER_BYTES = 128 * 1024 * 1024


class Telling:
    """Tells clients what went wrong."""

    def __init__(self, *, recorder: Recorder, relay: Relay) -> None:
        self._recorder = recorder
        self._relay = relay

    async def tell(self, running: Running, error: LuthienError, receive: Receive, send: Send) -> None:
        """Record what went wrong, then tell the client as far as that is possible still."""
        row = running.row
        face = error.face
        running.error = str(error)
        if running.seat is not None and isinstance(error, UpstreamError):
            running.seat.health.failed(face.openai_code)
        if isinstance(error, ClientGone):
            await self._recorder.outcome(running, "cancelled")
            return
        words: _Words = {
            "message": running.error,
            "openai_type": face.openai_type,
            "openai_code": face.openai_code,
            "anthropic_type": face.anthropic_type,
            "transaction_id": row.transaction_id,
        }
        if not running.sent:
            refused = not running.intended or isinstance(error, _DENIALS)
            unread = isinstance(error, RequestTooLarge) or (isinstance(error, KeyRefused) and "received" not in running.timing)
            row.status = face.status
            body = error_body(_dialect_of(running), **words)
            running.response_headers = [(b"content-type", b"application/json")]
            running.received = len(body)
            running.response = bytearray(body)
            if running.control is not None:
                row.verdict = running.control.verdict
            if isinstance(error, AdmissionRefused):
                row.reason, row.verdict = error.reason, "deny"
            if isinstance(error, JournalUnavailable):
                # Nothing has passed, and the record would wait for the very store that is in trouble.
                row.outcome, row.error = "refused", running.error
                log.warning("%s refused: %s", row.transaction_id, error)
            else:
                await self._recorder.outcome(running, "refused" if refused else "error")
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode("ascii")),
            ]
            if unread or (refused and not isinstance(error, _DENIALS) and face.status not in (404, 503)):
                headers.append((b"connection", b"close"))
            if face.status < 500 and face.status != 429:
                headers.append((b"x-should-retry", b"false"))
            if isinstance(error, AdmissionRefused):
                headers += error.headers
            await send({"type": "http.response.start", "status": face.status, "headers": self._relay.with_own(running, headers)})
            if unread:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await _linger(receive)
                body = b""
            await send({"type": "http.response.body", "body": body, "more_body": False})
        elif running.content_type.startswith(STREAM_TYPES):
            refusal = _refusal(running, error)
            event = refusal or _line_end(running) + stream_error(running.dialect, running.operation, **words)
            if refusal:
                self._relay.take(running, refusal)
            await self._recorder.outcome(running, "refused" if isinstance(error, _DENIALS) else "truncated")
            await send({"type": "http.response.body", "body": event, "more_body": False})
        else:
            # Half of a body cannot be mended: cut the connection, so that nobody takes it for whole.
            await self._recorder.outcome(running, "truncated")
            running.cut_connection()


class _Words(TypedDict):
    message: str
    openai_type: str
    openai_code: str
    anthropic_type: str
    transaction_id: str


async def _linger(receive: Receive) -> None:
    """Read and forget what the client is still sending, so that it gets to read why it was refused."""
    read = 0
    try:
        async with asyncio.timeout(LINGER_S):
            while read < LINGER_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                read += len(message.get("body", b""))
    except TimeoutError:
        return


def _refusal(running: Running, error: LuthienError) -> bytes:
    """A stream's legal end that says a policy's denial; empty where there is none."""
    if not isinstance(error, PolicyDenied) or running.encoder is None:
        return b""
    try:
        return running.encoder.refusal(str(error))
    except IllegalStream:
        return b""


def _dialect_of(running: Running) -> Dialect:
    """The dialect to complain in, where the endpoint is not known: the path or the headers give a hint."""
    if running.endpoint is not None:
        return running.endpoint.dialect
    path = running.row.path
    if path.startswith(("/anthropic", "/v1/messages")) or any(name == b"anthropic-version" for name, _ in running.headers):
        return Dialect.ANTHROPIC
    return Dialect.OLLAMA if path.startswith(("/api", "/ollama")) else Dialect.OPENAI


def _line_end(running: Running) -> bytes:
    """What ends the event that the upstream left unfinished, so that ours stands alone."""
    tail = bytes(running.response[-4:])
    if not tail or tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        return b""
    if running.dialect is Dialect.OLLAMA:
        return b"" if tail.endswith(b"\n") else b"\n"
    return b"\n" if tail.endswith((b"\n", b"\r")) else b"\n\n"
