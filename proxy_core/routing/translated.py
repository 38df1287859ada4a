"""An upstream's answer in the dialect of a client that speaks another one.

It is read like any other answer: a stream piece by piece as it comes, anything else whole. Status and headers stay the
upstream's, but for those that describe the body.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy_core.errors import UpstreamInvalid
from proxy_core.routing.transport import UpstreamResponse
from proxy_core.wire.conversation import Usage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.encodings import UnreadableEncoding, decoded
from proxy_core.wire.headers import value_of
from proxy_core.wire.translate import StreamTranslator, Translated, UnreadableBody, translate_response

RawHeaders = list[tuple[bytes, bytes]]

MAX_WHOLE_BYTES = 64 * 1024 * 1024
_STREAMS = ("text/event-stream", "application/x-ndjson")
_OF_THE_BODY = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"etag", b"content-md5", b"digest"}
)
_OF_ONE_API = (b"anthropic-", b"openai-")


def request_headers(headers: RawHeaders, translated: Translated) -> RawHeaders:
    """The client's headers with what the upstream's API needs, and without what belongs to the client's."""
    own = {name for name, _ in translated.headers} | {b"content-encoding", b"accept-encoding"}
    kept = [one for one in headers if one[0] not in own and not one[0].startswith(_OF_ONE_API)]
    return [*kept, *translated.headers, (b"accept-encoding", b"identity")]


async def translated_answer(
    answer: UpstreamResponse, source: Operation, target: Operation, request: Translated, *, transaction_id: str, model: str
) -> TranslatedAnswer:
    """The answer of an upstream that speaks `source`, for a client that speaks `target`. Raises UpstreamError."""
    headers = [one for one in answer.headers if one[0].lower() not in _OF_THE_BODY]
    received = [(name.lower(), value) for name, value in answer.headers]
    encoding = value_of(received, b"content-encoding")
    if answer.status < 400 and value_of(received, b"content-type").startswith(_STREAMS) and not encoding:
        translator = StreamTranslator(
            source, target, transaction_id=transaction_id, model=model, stream_usage=request.stream_usage
        )
        kind = b"application/x-ndjson" if target is Operation.OLLAMA_CHAT else b"text/event-stream; charset=utf-8"
        return TranslatedStream(answer, [*headers, (b"content-type", kind)], translator)
    try:
        body = decoded(await _whole(answer), encoding)
        said = translate_response(source, target, answer.status, body, transaction_id=transaction_id)
    except (UnreadableBody, UnreadableEncoding) as error:
        raise UpstreamInvalid(f"the upstream's answer cannot be translated: {error}") from error
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(said)).encode("ascii"))]
    return TranslatedWhole(answer, headers, said)


async def _whole(answer: UpstreamResponse) -> bytes:
    body = bytearray()
    while chunk := await answer.read():
        body += chunk
        if len(body) > MAX_WHOLE_BYTES:
            raise UpstreamInvalid(f"the upstream gave more than {MAX_WHOLE_BYTES:,} bytes, too much to translate")
    return bytes(body)


class TranslatedAnswer(UpstreamResponse):
    """What is ready for the client stands in `_ready`."""

    __slots__ = ("_inner", "_over", "_ready")

    def __init__(self, inner: UpstreamResponse, headers: RawHeaders, ready: bytes = b"") -> None:
        self._inner = inner
        self._ready = ready
        self._over = False
        self.status = inner.status
        self.headers = headers
        self.connected_at = inner.connected_at
        self.read = self._read
        self.pump = self._pump

    @property
    def ended(self) -> bool:
        return self._over and not self._ready

    @property
    def waiting(self) -> bool:
        return bool(self._ready) or self._over or self._inner.waiting

    async def ends_within(self, seconds: float) -> bool:
        return await self._inner.ends_within(seconds)

    def close(self) -> None:
        self._inner.close()

    @property
    def usage(self) -> Usage | None:
        """Counts of tokens that the client does not see, because it asked for none."""
        return None

    def _take(self) -> bytes:
        ready, self._ready = self._ready, b""
        return ready

    async def _read(self) -> bytes:
        raise NotImplementedError

    async def _pump(self, sink: Callable[[bytes], bool]) -> None:
        raise NotImplementedError


class TranslatedWhole(TranslatedAnswer):
    """A whole body."""

    __slots__ = ()

    def __init__(self, inner: UpstreamResponse, headers: RawHeaders, body: bytes) -> None:
        super().__init__(inner, headers, body)
        self._over = True

    async def _read(self) -> bytes:
        return self._take()

    async def _pump(self, sink: Callable[[bytes], bool]) -> None:
        if self._ready:
            sink(self._take())


class TranslatedStream(TranslatedAnswer):
    """A stream, translated piece by piece."""

    __slots__ = ("_translator",)

    def __init__(self, inner: UpstreamResponse, headers: RawHeaders, translator: StreamTranslator) -> None:
        super().__init__(inner, headers)
        self._translator = translator

    @property
    def usage(self) -> Usage | None:
        return self._translator.usage

    async def _read(self) -> bytes:
        while not self._ready and not self._over:
            if chunk := await self._inner.read():
                self._ready += self._translator.feed(chunk)
            else:
                self._finish()
        return self._take()

    async def _pump(self, sink: Callable[[bytes], bool]) -> None:
        going = True

        def forward(chunk: bytes) -> bool:
            nonlocal going
            if said := self._translator.feed(chunk):
                going = sink(said)
            return going

        while going:
            if self._ready:
                going = sink(self._take())
            elif self._over:
                return
            elif self._inner.ended:
                self._finish()
            else:
                await self._inner.pump(forward)

    def _finish(self) -> None:
        self._over = True
        self._ready += self._translator.finish()
