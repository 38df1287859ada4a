"""An answer that is being gathered from a stream: parts in the order in which they began, each of pieces of text.

Joining happens once, at the end, so a stream of any length costs linear time.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy_core.wire.conversation import Block, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock


class Part:
    """One block of the answer while its pieces arrive."""

    __slots__ = ("call_id", "choice", "ended", "kind", "name", "number", "pieces", "signature", "whole")

    def __init__(self, kind: str, choice: int = 0, number: int = 0) -> None:
        self.kind = kind
        """`text`, `thinking`, `tool_call`, or what an opaque block calls itself."""
        self.choice = choice
        self.number = number
        """The index that this part's stream events carry."""
        self.pieces: list[str] = []
        self.call_id = ""
        self.name = ""
        self.signature: str | None = None
        self.whole = b""
        """The bytes of an opaque part."""
        self.ended = False

    def block(self) -> Block | None:
        """The gathered block, or None where nothing came."""
        text = "".join(self.pieces)
        if self.kind == "text":
            return TextBlock(text) if text else None
        if self.kind == "thinking":
            return ThinkingBlock(text, self.signature) if text or self.signature else None
        if self.kind == "tool_call":
            return ToolCallBlock(self.call_id, self.name, text, self.whole)
        return OpaqueBlock(self.kind, self.whole or text.encode("utf-8", "replace"))


def gathered_blocks(parts: Iterable[Part]) -> tuple[Block, ...]:
    """The blocks of all parts; those of a response with several choices in the order of the choices."""
    blocks = (part.block() for part in sorted(parts, key=lambda part: part.choice))
    return tuple(block for block in blocks if block is not None)
