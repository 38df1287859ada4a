"""Token counts where an upstream tells none, or not all: estimated from the length of what was asked and said.

An estimate is made of whole text only and never passes for a count: the caller is told, and marks it. What gives no hold for an
estimate stays unknown (None), never 0. Costs nothing where the upstream tells its counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from proxy_core.settings import PricesSettings
from proxy_core.wire.conversation import Usage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.glance import Glance

ANSWERING = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.RESPONSES,
        Operation.MESSAGES,
        Operation.OLLAMA_CHAT,
        Operation.OLLAMA_GENERATE,
    }
)
EMBEDDING = frozenset({Operation.EMBEDDINGS, Operation.OLLAMA_EMBED})
TOKENS_PER_FILE = 1_000
"""An image or file in base64 costs by its content, not by its length."""
LOOK_FOR_FILES_FROM_BYTES = 8_000
_FILE_MARKS = (b"base64", b'"data"', b'"images"')
"""One of these stands beside every file in a request."""
_OF_FILES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_=-"
_AS_MASK = bytes(0x78 if code in _OF_FILES else 0x20 for code in range(256))
_FILE = b"x" * 6_000
"""The least of a file, in a mask that has an x for each byte that may be of one."""


class UsageEstimates:
    """Completes usage as the section `prices` says."""

    def __init__(self, settings: PricesSettings) -> None:
        self.use(settings)

    def use(self, settings: PricesSettings) -> None:
        self._on = settings.estimate_usage
        self._chars_per_token = settings.chars_per_token

    def completed(
        self, usage: Usage | None, *, operation: Operation, asked: Glance, said_chars: int, complete: bool
    ) -> tuple[Usage | None, bool]:
        """The usage with estimates for what is missing, and whether there is one in it.

        Of an answer that broke off (`complete` is false) the count told so far is no more than a lower bound.
        """
        told = usage or Usage()
        answers = operation in ANSWERING
        if not self._on or not (answers or operation in EMBEDDING):
            return usage, False
        output = told.output_tokens
        if answers and (output is None or not complete):
            if not said_chars and output is None:
                return usage, False
            output = max(output or 0, self._tokens(said_chars))
        if told.input_tokens is not None and output == told.output_tokens:
            return usage, False
        input_tokens = told.input_tokens
        if input_tokens is None:
            chars, files = _length(asked.history)
            if not chars and not files:
                return usage, False
            more, further = _length(asked.preamble)
            input_tokens = self._tokens(chars + more) + (files + further) * TOKENS_PER_FILE
        return replace(told, input_tokens=input_tokens, output_tokens=output), True

    def _tokens(self, chars: int) -> int:
        return int(-(-chars // self._chars_per_token))


def _length(parts: Iterable[memoryview]) -> tuple[int, int]:
    """Bytes of JSON that a model reads as text, and files beside it."""
    size = files = 0
    for part in parts:
        size += len(part)
        if len(part) >= LOOK_FOR_FILES_FROM_BYTES and any(mark in (raw := bytes(part)) for mark in _FILE_MARKS):
            mask, end = raw.translate(_AS_MASK), 0
            while (start := mask.find(_FILE, end)) >= 0:
                end = mask.find(b" ", start + len(_FILE))
                end = len(mask) if end < 0 else end
                size -= end - start
                files += 1
    return size, files
