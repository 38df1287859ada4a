"""What a request may use at most, told from its body before it is sent; and what it has used where its answer does not say.

Estimates lean to the high side for usual text: three bytes of JSON are taken for a token. Never raises on bad input.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from proxy_core.wire.dialects import READ_OPERATIONS, Operation

BYTES_PER_TOKEN = 3
STREAM_BYTES_PER_TOKEN = 50
"""A stream wraps each few characters in an event of its own."""
LOOK_FOR_FILES_FROM_BYTES = 20_000
TOKENS_PER_FILE = 2_000
"""An image or file in base64 costs by its content, not by its length."""
_FILE = re.compile(rb"[A-Za-z0-9+/_=-]{10000,}+")
MAX_TOKENS = 10_000_000
MAX_ANSWERS = 1_000
_ANSWERLESS = frozenset({Operation.EMBEDDINGS, Operation.OLLAMA_EMBED})
FREE = frozenset({Operation.COUNT_TOKENS, Operation.MODELS})
"""Operations that no provider charges for."""


class Tokens(Struct, frozen=True):
    """Tokens of one request."""

    input: int
    output: int

    @property
    def total(self) -> int:
        return self.input + self.output


class _Bounds(Struct):
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    best_of: Any = None
    options: Any = None


_decoder = msgspec.json.Decoder(_Bounds)


def expected(operation: Operation, body: bytes, assumed_output: int) -> Tokens:
    """The most that a request may use; `assumed_output` where it sets no maximum of its own.

    Nothing is known of operations whose bodies luthien does not read.
    """
    if operation not in READ_OPERATIONS:
        return Tokens(0, 0)
    read = _input(body)
    if operation in _ANSWERLESS or operation in FREE:
        return Tokens(read, 0)
    try:
        bounds = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Tokens(read, assumed_output)
    options = bounds.options if isinstance(bounds.options, dict) else {}
    named = (bounds.max_completion_tokens, bounds.max_tokens, bounds.max_output_tokens, options.get("num_predict"))
    output = next((count for one in named if (count := _count(one, MAX_TOKENS))), assumed_output)
    answers = max(_count(bounds.n, MAX_ANSWERS), _count(bounds.best_of, MAX_ANSWERS), 1)
    return Tokens(read, output * answers)


def seen(before: Tokens, received_bytes: int, *, stream: bool) -> Tokens:
    """What an answer of so many bytes has used, where it does not say so itself."""
    each = STREAM_BYTES_PER_TOKEN if stream else BYTES_PER_TOKEN
    return Tokens(before.input, min(before.output, -(-received_bytes // each)))


def _input(body: bytes) -> int:
    size, files = len(body), 0
    if size >= LOOK_FOR_FILES_FROM_BYTES:
        for found in _FILE.finditer(body):
            size -= found.end() - found.start()
            files += 1
    return -(-size // BYTES_PER_TOKEN) + files * TOKENS_PER_FILE


def _count(value: Any, most: int) -> int:
    """A positive whole number within reason; 0 for anything else."""
    return min(value, most) if type(value) is int and value > 0 else 0
