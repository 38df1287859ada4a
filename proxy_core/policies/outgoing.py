"""What leaves of a stream that policies look at: the upstream's own bytes as long as nothing is changed, then the encoder's.

Pieces of text, thinking and arguments that come back as they went in leave at once and cost no encoding. The encoder is told of
them when it has to speak: at events that it may have to hold back, and from the first change on. What it makes is checked
against the dialect's rules before it goes; what the upstream itself did wrong is passed on as its own.
"""

from __future__ import annotations

from proxy_core.wire.conversation import StreamEvent, TextDelta, ThinkingDelta, ToolCallDelta
from proxy_core.wire.dialects import Operation
from proxy_core.wire.encoder import IllegalStream, StreamEncoder
from proxy_core.wire.validator import StreamValidator

_PIECES = frozenset({TextDelta, ThinkingDelta, ToolCallDelta})


class Outgoing:
    """The client's side of one stream."""

    def __init__(self, encoder: StreamEncoder, operation: Operation) -> None:
        self._encoder = encoder
        self._operation = operation
        self._out: list[bytes] = []
        self._pristine = True
        """Whether everything left as it came, so far."""
        self._log: list[StreamEvent] = []
        """Pristine: what came, in order."""
        self._left = 0
        """How many of these have left."""
        self._told = 0
        """How many of these the encoder has seen."""
        self._told_left = 0
        """How many of those that left the encoder knows of."""
        self._behind = 0
        """Bytes that the encoder holds back, although nothing was changed."""
        self._encoded: list[tuple[int, bytes]] = []
        """Pristine: the places of events that left through the encoder, and what it made of them."""
        self._validator: StreamValidator | None = None
        """Watches what the encoder makes of a stream that is changed."""

    @property
    def altered(self) -> bool:
        """Whether anything left otherwise than it came."""
        return self._encoder.altered

    def came(self, events: list[StreamEvent]) -> None:
        """Events of the upstream, before any policy."""
        if self._pristine:
            self._log += events
        else:
            self._encoder.seen(events)

    def leave(self, events: list[StreamEvent]) -> None:
        """Events that the policies let go. Raises IllegalStream, after what is legal of them."""
        if self._pristine and len(events) == 1 and not self._behind:
            event, log, at = events[0], self._log, self._left
            following = at + 1
            if (
                at < len(log)
                and log[at] is event
                and type(event) in _PIECES
                and (following == len(log) or log[following].raw)  # the rest of a wire event may be changed yet
            ):
                self._left = following
                self._out.append(event.raw)
                return
        self._tell()
        raw = b""
        for event in events:
            raw += event.raw
            try:
                out = self._encoder.encode((event,))
            except IllegalStream as error:
                self._out.append(error.before)
                raise
            if self._pristine:
                self._follow(event, out)
            if out:
                self._send(out, own=out != raw)
                raw = b""

    def end(self, rest: bytes) -> None:
        """The policies have let everything go: what is owed yet, and the unfinished event of a stream that was cut.

        Raises IllegalStream.
        """
        if not self._pristine or self._behind or self._left < len(self._log):
            self._tell()
            self._send(self._encoder.finish(), own=True)
        if not self.altered:
            self._out.append(rest)

    def take(self) -> bytes:
        """What may go to the client since the last call."""
        out = self._out
        if not out:
            return b""
        self._out = []
        return out[0] if len(out) == 1 else b"".join(out)

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return any(self._out)

    def heartbeat(self) -> bytes:
        """A sign of life that is legal at this place."""
        self._tell()
        return self._encoder.heartbeat()

    def refusal(self, text: str) -> bytes:
        """The bytes that end the stream legally with a refusal. Raises IllegalStream."""
        self._tell()
        return self._encoder.refusal(text)

    def refuse(self, text: str) -> None:
        """End the stream with a refusal. Raises IllegalStream."""
        self._out.append(self.refusal(text))

    def _tell(self) -> None:
        """Tell the encoder what came and what left without it."""
        if not self._pristine:
            return
        if self._told < len(self._log):
            self._encoder.seen(self._log[self._told :])
            self._told = len(self._log)
        if self._told_left < self._left:
            self._encoder.encode(self._log[self._told_left : self._left])
            self._told_left = self._left

    def _follow(self, event: StreamEvent, out: bytes) -> None:
        """Note what the encoder made of an event, and whether the stream is another from here on."""
        if not self._encoder.altered:
            self._encoded.append((self._left, out))
            self._left = self._told_left = self._left + 1
            self._behind += len(event.raw) - len(out)
            return
        self._pristine = False
        self._validator = StreamValidator(self._operation)
        at = 0
        for place, encoded in [*self._encoded, (self._left, b"")]:
            self._validator.feed(b"".join([event.raw for event in self._log[at:place]]) + encoded)
            at = place + 1
        self._log, self._encoded = [], []

    def _send(self, out: bytes, *, own: bool) -> None:
        """Let bytes of the encoder's go: those of our own only if they are legal."""
        found = self._validator.feed(out) if out and self._validator is not None else []
        if found and own:
            raise IllegalStream(found[0].rule, found[0].message)
        self._out.append(out)
