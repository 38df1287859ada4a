"""Base of policies that change text: the texts of a request, and those of an answer, whole or streamed.

A subclass gives `request_text` for the texts of requests, `transducer` for those of answers, or both. An answer's texts are
changed block by block; thinking, tool calls and everything else pass untouched. A stream gives the same text as the whole
answer, wherever its pieces are cut: what a block still holds back leaves right before the event that ends the block.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from proxy_core.policies.base import ControlPolicy, Params, PolicyFault, Release
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.wire.conversation import (
    INSERTED,
    Block,
    EndEvent,
    ErrorEvent,
    OpaqueEvent,
    StopEvent,
    StreamEvent,
    TextBlock,
    TextDelta,
    ThinkingDelta,
    ToolCallStart,
)
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import TextPart, UnreadableBody

MAX_TEXT_CHARS = 32 * 1024 * 1024
"""No text may grow beyond this, and no more may be held back."""

TEXT_OPERATIONS = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.RESPONSES,
        Operation.MESSAGES,
        Operation.COUNT_TOKENS,
        Operation.OLLAMA_CHAT,
        Operation.OLLAMA_GENERATE,
        Operation.EMBEDDINGS,
        Operation.OLLAMA_EMBED,
    }
)
_INTERLEAVED = frozenset({Operation.CHAT, Operation.COMPLETIONS})
"""Where the pieces of several texts (choices) come mixed, and thinking may stand between pieces of one text."""
_BLOCK_ENDS = frozenset(
    {
        "content_block_start",
        "content_block_stop",
        "message",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.done",
    }
)
"""Events that the codecs carry unread and that stand after, or between, the texts of an answer."""


_UNREADABLE = frozenset({"unreadable", "oversized"})
"""Events that may hold text which nobody could read."""


class TextTransducer(Protocol):
    """Changes one text that comes in pieces."""

    @property
    def changes(self) -> int:
        """How many changes it has made so far."""
        ...

    def feed(self, text: str) -> str:
        """Take the next piece and give what may go now; it may be empty."""
        ...

    def finish(self) -> str:
        """The text is over: give what was held back. Called once."""
        ...


class TextCounts(Struct):
    """What was changed in one request or answer; lengths in characters."""

    blocks: int = 0
    """Texts that were changed."""
    changes: int = 0
    before: int = 0
    """Length of all texts together as they came."""
    after: int = 0
    """Their length as they went on."""
    partial: bool = False
    """Whether only a part was seen: the stream was cut off, or an event of it could not be read."""
    changed: list[TextTransducer] = []
    """Of an answer: what changed each text of which something was changed."""

    def add(self, transducer: TextTransducer) -> None:
        """Count a text that is over."""
        if transducer.changes:
            self.blocks += 1
            self.changes += transducer.changes
            self.changed.append(transducer)


class TextPolicy(ControlPolicy[Params]):
    """Base of policies that change text."""

    operations: ClassVar[frozenset[Operation] | None] = TEXT_OPERATIONS
    release: ClassVar[Release | None] = Release.TAIL
    reason: ClassVar[Reason] = Reason.TEXT_REPLACED

    def request_text(self, context: TransactionContext, part: TextPart) -> str | None:
        """The new text in place of one text of the request, or None to leave it."""
        return None

    def transducer(self, context: TransactionContext) -> TextTransducer | None:
        """What changes one text of the answer; asked for once for each block. None leaves answers alone."""
        return None

    def changes_of(self, before: str, after: str) -> int:
        """How many changes `request_text` made of `before`; one where nobody counts."""
        return 1

    def report(self, context: TransactionContext, counts: TextCounts) -> None:
        """Record the verdict on a request or answer of which something was changed; called once for each."""
        context.verdict(
            "modify",
            self.reason,
            ran="partial" if counts.partial else "ran",
            blocks_modified=counts.blocks,
            total_replacements=counts.changes,
            original_length=counts.before,
            transformed_length=counts.after,
        )

    async def apply(self, context: TransactionContext) -> TransactionContext:
        """Change the request's texts before the send, the whole answer's after it."""
        try:
            if context.response_status is None:
                self._apply_to_request(context)
            elif context.response_status < 400:
                self._apply_to_answer(context)
        except UnreadableBody as error:
            context.verdict("allow", Reason.UNSUPPORTED_DIALECT, str(error), ran="unsupported")
        return context

    def _apply_to_request(self, context: TransactionContext) -> None:
        if type(self).request_text is TextPolicy.request_text:
            return
        counts = TextCounts()

        def edit(part: TextPart) -> str | None:
            after = self.request_text(context, part)
            counts.before += len(part.text)
            counts.after += len(part.text if after is None else after)
            if after is None or after == part.text:
                return None
            counts.blocks += 1
            counts.changes += self.changes_of(part.text, after)
            return after

        context.edit_request_texts(edit)
        if counts.blocks:
            self.report(context, counts)

    def _apply_to_answer(self, context: TransactionContext) -> None:
        if type(self).transducer is TextPolicy.transducer:
            return
        counts = TextCounts()

        def edit(block: Block) -> list[Block] | None:
            if type(block) is not TextBlock or (transducer := self.transducer(context)) is None:
                return None
            after = transducer.feed(block.text) + transducer.finish()
            counts.before += len(block.text)
            counts.after += len(after)
            counts.add(transducer)
            if after == block.text:
                return None
            return [TextBlock(after)] if after else []

        context.edit_answer(edit)
        if counts.blocks:
            self.report(context, counts)

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        """Change the texts of a stream."""
        texts = _Texts(self, context)
        try:
            async for event in events:
                if type(event) is TextDelta:
                    if texts.open and texts.ends_others(event.index):
                        for released in texts.end():
                            yield released
                    text = texts.feed(event.index, event.text)
                    if text == event.text:
                        yield event
                    elif text:
                        yield TextDelta(event.index, text)
                    continue
                if texts.open:
                    for released in texts.before(event):
                        yield released
                if type(event) is OpaqueEvent and event.kind in _UNREADABLE:
                    texts.unread = True
                if type(event) is EndEvent:
                    texts.report()
                yield event
            for released in texts.end():
                yield released
            texts.report()
        finally:
            texts.report(partial=True)


class _Texts:
    """The texts of one stream."""

    def __init__(self, policy: TextPolicy[Any], context: TransactionContext) -> None:
        self.open: dict[int, TextTransducer] = {}
        """By index: the texts that have begun and not ended."""
        self.unread = False
        """Whether an event could not be read."""
        self._policy = policy
        self._context = context
        self._interleaved = context.operation in _INTERLEAVED
        self._counts = TextCounts()
        self._reported = False

    def feed(self, index: int, piece: str) -> str:
        """What may go when `piece` comes for the text at `index`."""
        transducer = self.open.get(index)
        if transducer is None:
            begun = self._policy.transducer(self._context)
            if begun is None:
                return piece
            transducer = self.open[index] = begun
        out = transducer.feed(piece)
        self._counts.before += len(piece)
        self._counts.after += len(out)
        return out

    def ends_others(self, index: int) -> bool:
        """Whether a piece at `index` says that all open texts, which are others, are over."""
        return index not in self.open and (not self._interleaved or index == INSERTED or INSERTED in self.open)

    def before(self, event: StreamEvent) -> list[StreamEvent]:
        """What has to leave before `event`, which is no piece of text."""
        kind = type(event)
        if kind is EndEvent or kind is ErrorEvent:
            return self.end()
        if isinstance(event, StopEvent):
            return self.end(event.choice) if self._interleaved else self.end()
        if self._interleaved:
            return self.end(INSERTED)
        if kind is ThinkingDelta or kind is ToolCallStart or (isinstance(event, OpaqueEvent) and event.kind in _BLOCK_ENDS):
            return self.end()
        return []

    def end(self, only: int | None = None) -> list[StreamEvent]:
        """End one text, or all; what they held back comes out."""
        released: list[StreamEvent] = []
        for index in list(self.open) if only is None else [only] if only in self.open else []:
            transducer = self.open.pop(index)
            rest = transducer.finish()
            if rest:
                released.append(TextDelta(index, rest))
                self._counts.after += len(rest)
            self._counts.add(transducer)
        return released

    def report(self, *, partial: bool = False) -> None:
        """Let the policy say what was changed, once."""
        if self._reported:
            return
        self._reported = True
        for transducer in self.open.values():
            self._counts.add(transducer)
        if self._counts.blocks:
            self._counts.partial = partial or self.unread
            self._policy.report(self._context, self._counts)
        elif self.unread:
            why = "an event of the stream could not be read"
            self._context.verdict("allow", Reason.UNSUPPORTED_DIALECT, why, ran="partial")


def check_length(chars: int) -> None:
    """Raise PolicyFault where a text would be longer than a policy may make or keep."""
    if chars > MAX_TEXT_CHARS:
        raise PolicyFault(Reason.POLICY_OVERSIZED, f"a text would have more than {MAX_TEXT_CHARS:,} characters")
