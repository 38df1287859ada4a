"""The way of an answer to the client through the policies: whole, or event by event.

Like the plain relay it returns what makes the answer whole in place of sending it. While something is held back, a client
that waits for a stream gets a sign of life now and then. The head of the response waits for the first thing that may go, so
that a denial before it is a plain HTTP error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from proxy_core.enforcement import Control
from proxy_core.errors import UpstreamError
from proxy_core.policies.base import PolicyDenied
from proxy_core.policies.streaming import StreamPipeline
from proxy_core.relay import STREAM_TYPES, TERMINATOR_GRACE_S, Message, Relay, Send, put_into, scan_for
from proxy_core.routing.transport import UpstreamResponse
from proxy_core.running import RawHeaders, Running
from proxy_core.tasks import spawn
from proxy_core.verdicts import Stage
from proxy_core.wire.codec import codec_for
from proxy_core.wire.dialects import Dialect
from proxy_core.wire.encoder import StreamEncoder, encoder_for
from proxy_core.wire.encodings import UnreadableEncoding, decoded
from proxy_core.wire.headers import response_headers

log = logging.getLogger(__name__)

_BODY_HEADERS = (b"content-length", b"content-encoding", b"etag", b"content-md5", b"digest", b"content-digest", b"repr-digest")
"""What is no longer true of a body that was changed."""


class ControlledRelay:
    """Sends answers on after the policies have seen them."""

    def __init__(self, *, relay: Relay, heartbeat_s: float, max_body_bytes: int, loop: asyncio.AbstractEventLoop) -> None:
        self._relay = relay
        self.heartbeat_s = heartbeat_s
        self._max_body_bytes = max_body_bytes
        self._loop = loop

    def heartbeat(self, running: Running, send: Send) -> Heartbeat:
        """Signs of life to the client of this transaction, from now until it is stopped."""
        return Heartbeat(running, send, self._relay, self.heartbeat_s, self._loop)

    async def relay(self, running: Running, control: Control, response: UpstreamResponse, send: Send) -> bytes:
        """Run the policies on the upstream's answer and send what they leave; returns the last piece of it.

        Raises UpstreamError, PolicyDenied.
        """
        headers = response_headers(response.headers)
        content_type = next((value for name, value in headers if name == b"content-type"), b"").decode("latin-1")
        if response.status >= 400 or not control.reads_response or codec_for(running.operation) is None:
            return await self._relay_unread(running, response, send)
        encoding = any(name == b"content-encoding" for name, _ in headers)
        if content_type.startswith(STREAM_TYPES) and control.streams and not encoding:
            encoder = encoder_for(running.operation, model=running.row.model, transaction_id=running.row.transaction_id)
            if encoder is not None:
                return await self._events(running, control, response, encoder, send)
        body = await self._whole(control, response)
        if encoding:
            name = next(value for name, value in headers if name == b"content-encoding").decode("latin-1")
            try:
                plain = decoded(body, name)
            except UnreadableEncoding:
                log.warning("%s: no policy could read an answer in the encoding %r", running.row.transaction_id, name[:40])
                return await self._made(running, response.status, headers, body, send)
        else:
            plain = body
        control.context.set_response(response.status, [one for one in headers if one[0] not in _BODY_HEADERS], plain)
        return await self.answered(running, control, send, original=(response.status, headers, body, plain))

    async def answered(
        self,
        running: Running,
        control: Control,
        send: Send,
        original: tuple[int, RawHeaders, bytes, bytes] | None = None,
    ) -> bytes:
        """Run the policies on the whole response that the context has, and begin to send it; returns its last piece."""
        control.context.stream = False
        control.waiting = True
        try:
            await control.on_whole()
        except PolicyDenied:
            if original is not None:
                control.upstream_body, control.upstream_status = original[3], original[0]
            raise
        finally:
            control.waiting = False
        running.row.verdict = control.verdict
        context = control.context
        status = context.response_status or 200
        if original is not None and status == original[0] and context.response_body == original[3]:
            return await self._made(running, status, original[1], original[2], send)
        if original is not None:
            control.upstream_body, control.upstream_status = original[3], original[0]
        body = context.response_body
        headers = [one for one in response_headers(context.response_headers) if one[0] not in _BODY_HEADERS]
        headers.append((b"content-length", str(len(body)).encode("ascii")))
        return await self._made(running, status, headers, body, send)

    async def _made(self, running: Running, status: int, headers: RawHeaders, body: bytes, send: Send) -> bytes:
        """Send the head, and return the whole body as the last piece."""
        if running.sent and status >= 400:
            raise UpstreamError(f"the upstream answered with status {status}: {body[:500].decode('utf-8', 'replace')}")
        headers = self._relay.begin(running, status, headers)
        self._relay.take(running, body)
        if not running.sent:
            running.start_message = self._relay.start_message(running, status, headers)
        return body

    async def _relay_unread(self, running: Running, response: UpstreamResponse, send: Send) -> bytes:
        if not running.sent:
            return await self._relay.relay(running, response, send)
        body = b""
        while chunk := await response.read():
            body += chunk
        return await self._made(running, response.status, response.headers, body, send)

    async def _whole(self, control: Control, response: UpstreamResponse) -> bytes:
        parts: list[bytes] = []
        control.waiting = True
        try:
            while chunk := await response.read():
                parts.append(chunk)
        finally:
            control.waiting = False
        return b"".join(parts)

    # --- event by event ---

    async def _events(
        self, running: Running, control: Control, response: UpstreamResponse, encoder: StreamEncoder, send: Send
    ) -> bytes:
        codec = codec_for(running.operation)
        if codec is None:
            raise ValueError("no codec")
        headers = running.response_headers
        if not running.sent:
            begun = self._relay.begin(running, response.status, response.headers)
            # Nobody knows yet whether the policies will change it.
            headers = running.response_headers = [one for one in begun if one[0] not in _BODY_HEADERS]
        context = control.context
        context.stage = Stage.RESPONSE
        context.stream = True
        context.set_response(response.status, headers, b"")
        pipeline = StreamPipeline(
            control.chain.response,
            context,
            decoder=codec.stream_decoder(),
            encoder=encoder,
            shadows=control.shadows,
            task=running.task,
            loop=self._loop,
        )
        running.encoder = pipeline
        stream = _Stream(self._relay, running, control, pipeline, self._max_body_bytes)
        start = self._relay.start_message
        over = False
        try:
            while True:
                if not over:
                    await response.pump(stream.forward)
                    if stream.saw_end and not response.ended and await response.ends_within(TERMINATOR_GRACE_S):
                        while chunk := await response.read():
                            stream.feed(chunk)
                    if response.ended or stream.saw_end:
                        over = True
                        pipeline.finish()
                if pipeline.has_output and not running.sent and pipeline.denied is None:
                    running.row.verdict = control.verdict
                    await send(start(running, response.status, headers))
                    running.sent = True
                await stream.flush(send)
                if pipeline.suspended:
                    await self._settle(control, pipeline, response, stream)
                    if pipeline.has_output and pipeline.denied is None:
                        continue
                if pipeline.denied is not None and not running.sent:
                    raise pipeline.denied
                if pipeline.failure is not None:
                    raise pipeline.failure
                if pipeline.ended and not pipeline.has_output:
                    break
            running.row.verdict = control.verdict
            return bytes(stream.held)
        finally:
            await pipeline.close()
            pipeline.finish_verdicts()
            control.upstream_answer = pipeline.answer
            control.first_token_offset = pipeline.first_token_offset
            control.altered = pipeline.altered or pipeline.denied is not None
            control.denied = pipeline.denied is not None
            if control.altered:
                control.upstream_body = bytes(stream.original)
                control.upstream_status = response.status

    async def _settle(self, control: Control, pipeline: StreamPipeline, response: UpstreamResponse, stream: _Stream) -> None:
        """Wait for the policy that waits, and meanwhile take what the upstream still says, so that it can finish."""
        control.waiting = True
        ahead = None if response.ended else spawn(_read_ahead(response, stream), name="read ahead")
        try:
            await pipeline.settle()
        finally:
            control.waiting = False
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait([ahead])


async def _read_ahead(response: UpstreamResponse, stream: _Stream) -> None:
    await response.pump(stream.feed)


class _Stream:
    """What the client gets of one stream: everything at once, from the terminator on held."""

    __slots__ = ("_control", "_limit", "_relay", "_running", "_scan", "_terminated", "_write", "held", "original", "outbox",
                 "pipeline", "saw_end")  # fmt: skip

    def __init__(self, relay: Relay, running: Running, control: Control, pipeline: StreamPipeline, limit: int) -> None:
        self._relay = relay
        self._running = running
        self._control = control
        self.pipeline = pipeline
        self._limit = limit
        self._scan = scan_for(running, 200)
        self._terminated = False
        self.outbox: list[bytes] = []
        self._write: Callable[[bytes], bool] = running.write or put_into(self.outbox)
        self.held = bytearray()
        self.original = bytearray()
        """The upstream's own bytes, as far as they are kept."""
        self.saw_end = False
        """Whether the upstream's terminator has come."""

    def feed(self, chunk: bytes) -> bool:
        """Take a piece from the upstream. False where nothing more may be fed."""
        room = self._limit - len(self.original)
        if room > 0:
            self.original += chunk if len(chunk) <= room else chunk[:room]
        pipeline = self.pipeline
        pipeline.feed(chunk)
        self.saw_end = pipeline.saw_end
        return pipeline.failure is None and not pipeline.ended

    def forward(self, chunk: bytes) -> bool:
        """The sink of the upstream's pump: what comes goes through the policies and out, without a task switch."""
        running = self._running
        pipeline = self.pipeline
        going = self.feed(chunk) and not pipeline.suspended and not self.saw_end
        if not running.sent:
            return going and not pipeline.has_output  # the head goes first
        out = pipeline.take()
        if not out:
            return going
        if going and not self._terminated:
            self._relay.take(running, out)
            return self._write(out)
        return self._give(out) and going

    def _give(self, out: bytes) -> bool:
        """Send what may go; False where the client is slower than the upstream."""
        self._relay.take(self._running, out)
        if self._terminated:
            self.held += out
            return True
        # What goes out are whole events, and a terminator comes only after the upstream's or where policies end the stream.
        ending = self.saw_end or self.pipeline.ended
        at = self._scan.feed(out) if ending and self._scan is not None else None
        if at is None:
            return self._write(out)
        self._terminated = True
        self.held += out[at:]
        return self._write(out[:at]) if at else True

    async def flush(self, send: Send) -> None:
        """Send what is there, the ASGI way where the server has no other, and wait for a slow client."""
        out = self.pipeline.take() if self._running.sent else b""
        ready = self._give(out) if out else True
        for chunk in self.outbox:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if not ready and not self.outbox:
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        self.outbox.clear()


class Heartbeat:
    """Signs of life for a client that waits for a stream which is held back."""

    def __init__(self, running: Running, send: Send, relay: Relay, every_s: float, loop: asyncio.AbstractEventLoop) -> None:
        self._running = running
        self._send = send
        self._relay = relay
        self._every_s = every_s
        self._loop = loop
        self._beating: asyncio.Task[None] | None = None
        self._seen = -1
        self._timer = loop.call_later(every_s, self._check)

    def _check(self) -> None:
        running = self._running
        control = running.control
        if running.leaving or control is None:
            return
        quiet = running.received == self._seen
        self._seen = running.received
        if quiet and (control.waiting or control.services.waiting) and (self._beating is None or self._beating.done()):
            self._beating = spawn(self._beat(), name="heartbeat")
        self._timer = self._loop.call_later(self._every_s, self._check)

    async def _beat(self) -> None:
        running = self._running
        encoder = running.encoder
        if encoder is None:
            encoder = running.encoder = encoder_for(
                running.operation, model=running.row.model, transaction_id=running.row.transaction_id
            )
        if encoder is None:
            return
        if not running.sent:
            kind = b"application/x-ndjson" if running.dialect is Dialect.OLLAMA else b"text/event-stream; charset=utf-8"
            headers: RawHeaders = [(b"content-type", kind), (b"cache-control", b"no-cache")]
            running.sent = True
            self._relay.begin(running, 200, headers)
            start: Message = self._relay.start_message(running, 200, headers)
            await self._send(start)
        sign = encoder.heartbeat()
        if sign:
            await self._send({"type": "http.response.body", "body": sign, "more_body": True})

    async def stop(self) -> None:
        """No sign after this; one that is being sent is finished first."""
        self._timer.cancel()
        if self._beating is not None and not self._beating.done():
            await asyncio.wait([self._beating])
